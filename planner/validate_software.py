"""The software era of a published record, from what it states about its code.

Only stated facts decide: the framework's sharding, flash attention, precision, sequence parallelism, year of
the model's style. No source and no row has a constant of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.costs.software import Software
from profiles.cluster import Precision


def precision_of(text: str) -> Precision:
    """Return the training precision that a record's text names."""
    words = text.lower()
    if "bf16" in words and "fp16/bf16" not in words:
        return "bf16"
    if "fp16" in words or "float16" in words or "half" in words:
        return "fp16"
    if "tf32" in words:
        return "tf32"
    if "fp32" in words or "float32" in words:
        return "fp32"
    return "bf16"


def software_of(record: Mapping[str, Any], assumed: list[str]) -> tuple[Software, dict[str, bool]]:
    """Return the software of a record and which communication it overlaps."""
    model, parallelism = record.get("model") or {}, record.get("parallelism") or {}
    training = record.get("training") or {}
    zero = str(parallelism.get("zero_stage") or "").lower()
    gated = bool(model.get("gated_mlp"))
    flash = training.get("flash_attention")
    if flash is None:
        flash = gated
        assumed.append(f"{'flash' if flash else 'materialised'} attention")
    sharded = any(word in zero for word in ("zero-3", "zero-2", "fsdp", "shard"))
    dropout = not gated and not flash
    bf16 = precision_of(str(training.get("precision") or "bf16")) == "bf16"
    stated = training.get("grad_overlap")
    overlap = bool(flash) or sharded if stated is None else bool(stated)
    if "overlaps disabled" in str(training.get("overlap", "")):
        overlap = False
    name = ("fsdp" if sharded else "3d") + ("-flash" if flash else "-scores")
    software = Software(
        name=name,
        flash_attention=bool(flash),
        gradient_bytes=4 if bf16 and not sharded else 2,
        dropout=dropout,
        source="stated by the record",
    )
    return software, {"dp": overlap, "tp": False, "pp": False}
