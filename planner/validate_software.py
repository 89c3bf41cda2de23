"""The software era of a published record, from what it and its table state about the code.

Only stated facts decide: the framework, its sharding, flash attention, precision, the year of the model's
style. No source and no row has a constant of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from planner.costs.software import (
    COMPILED,
    DEEPSPEED,
    MATERIALISED,
    MODERN,
    SHARDED,
    Software,
)
from profiles.cluster import Precision

# Devices that came out after flash attention had become usual.
RECENT_DEVICES = ("h100", "h200", "h800", "h20", "b200", "b300", "l40", "mi300", "mi325", "mi355")
# Megatron-DeepSpeed, and projects that trained with it.
DEEPSPEED_PROJECTS = ("megatron-deepspeed", "bigscience")
# Projects whose launch scripts set CUDA_LAUNCH_BLOCKING=1: the host waits for every kernel that it starts.
BLOCKING_PROJECTS = ("bigscience",)


def precision_of(text: str, assumed: list[str] | None = None) -> Precision:
    """Return the training precision that a record's text names; bf16 is assumed where it names none."""
    words = text.lower()
    if "bf16" in words and "fp16/bf16" not in words:
        return "bf16"
    if "fp16" in words or re.search(r"\bfloat16", words) or "half" in words:
        return "fp16"
    if "tf32" in words:
        return "tf32"
    if "fp32" in words or "float32" in words:
        return "fp32"
    if assumed is not None and "bfloat16" not in words:
        assumed.append("bf16")
    return "bf16"


def software_of(
    record: Mapping[str, Any], assumed: list[str], *, remarks: str = ""
) -> tuple[Software, dict[str, bool]]:
    """Return the software of a record and which communication it overlaps.

    `remarks` is what the record's table says of all its records.
    """
    model, parallelism = record.get("model") or {}, record.get("parallelism") or {}
    training = record.get("training") or {}
    zero = str(parallelism.get("zero_stage") or "").lower()
    gated = bool(model.get("gated_mlp"))
    flash = training.get("flash_attention")
    if flash is None:
        device = str((record.get("cluster") or {}).get("gpu") or "").lower()
        flash = gated or any(name in device for name in RECENT_DEVICES)
        assumed.append(f"{'flash' if flash else 'materialised'} attention")
    sharded = any(word in zero for word in ("zero-3", "zero-2", "fsdp", "full_shard", "full shard"))
    sharded = sharded or parallelism.get("zero_stage") in {2, 3}
    stated = training.get("grad_overlap")
    overlap = bool(flash) if stated is None else bool(stated)
    if "overlaps disabled" in str(training.get("overlap", "")):
        overlap = False
    project = f"{training.get('framework') or ''} {record.get('source') or ''} {remarks}".lower()
    base = _era(training, project, flash=bool(flash), sharded=sharded)
    group = re.search(r"over (\d+) ranks", zero)
    per_operation = "op" in str(training.get("recompute") or "").lower().replace("optim", "")
    software = replace(
        base,
        **_gradient_bytes(base, training, sharded=sharded),
        dropout=not gated and not flash,
        single_rail=sharded and not flash,
        synchronous=_blocking(training, project, assumed),
        zero_group=int(group.group(1)) if group else None,
        broadcasts="internevo" in project,
        selective_keeps_matmuls=0.5 if per_operation else None,
        buffer_bytes=_buffer_bytes(base, training, project),
    )
    return software, {"dp": overlap, "tp": False, "pp": False}


def _era(training: Mapping[str, Any], project: str, *, flash: bool, sharded: bool) -> Software:
    """Return the era that the framework and its kernels belong to."""
    if flash:
        return COMPILED if training.get("torch_compile") else SHARDED if sharded else MODERN
    if (
        any(name in project for name in DEEPSPEED_PROJECTS)
        or "(deepspeed)" in str(training.get("schedule") or "").lower()
    ):
        return DEEPSPEED
    return MATERIALISED


def _gradient_bytes(base: Software, training: Mapping[str, Any], *, sharded: bool) -> dict[str, Any]:
    """Return the sizes of accumulated and of reduced gradients, and the traffic of accumulating them.

    A kernel of its own reads each new 16-bit gradient, and reads and writes the sum. Megatron-LM reduces the
    fp32 sum that it keeps of bf16 gradients; the frameworks above it go back to 16 bits.
    """
    precision = str(training.get("precision") or "bf16")
    wide = precision_of(precision) == "bf16" or "fp32" in str(training.get("grad_accumulation") or "")
    size = 4 if wide and not sharded else 2
    fp32_sum = "all-reduce" in precision or (size == 4 and base.name == MATERIALISED.name)
    added = {} if base.flash_attention else {"accumulate_bytes": 2.0 + 2 * size}
    return {"gradient_bytes": size, "reduce_bytes": 4 if fp32_sum else 2, **added}


def _blocking(training: Mapping[str, Any], project: str, assumed: list[str]) -> bool:
    """Return whether kernels are started one by one, each after the one before it has ended."""
    stated = training.get("launch_blocking")
    if stated is not None:
        return bool(stated)
    if any(name in project for name in BLOCKING_PROJECTS):
        assumed.append("CUDA_LAUNCH_BLOCKING=1 (the project's launch scripts)")
        return True
    return False


def _buffer_bytes(base: Software, training: Mapping[str, Any], project: str) -> int:
    """Return the flat gradient copies of a framework's optimizer wrapper, which the source has to name."""
    if base.name == DEEPSPEED.name or "deepspeed" in str(training.get("framework") or "").lower():
        return 4 if "fp32" in str(training.get("grad_accumulation") or "") else 2
    # bf16 gradients stay in one flat buffer beside the fp32 buffer that they are added to
    return 2 if "nanotron" in project else 0
