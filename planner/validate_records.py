"""Published records → cases that can be priced, or the reason why not.

A record names a model, a cluster, a layout and what was measured. Sources leave things out; whatever had to
be assumed is said in the case. Nothing here looks at the measured values to decide an assumption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planner.layout import Layout, Overlap
from planner.validate_case import Case, SkippedError, Unpriced, stated_count
from planner.validate_cluster import cluster_of
from planner.validate_measured import peak_bytes, ran_out_of_memory, step_seconds
from planner.validate_recompute import recompute_share, without_configured
from planner.validate_software import precision_of, software_of
from profiles.documents import read_document
from profiles.errors import ConfigError, CuboidError
from profiles.model import ModelSpec

DEFAULT_VOCAB = 50304
EXPERTS = ("moe", "experts", "num_experts", "num_local_experts", "n_routed_experts")
SECTIONS = ("model", "cluster", "parallelism", "training", "measured", "derived")
# Heads of models whose tables leave them out: hidden → heads, from the same authors' launch scripts.
KNOWN_HEADS = {14400: 96}
Data = Mapping[str, Any]


def read_cases(path: Path) -> Iterator[Case | Unpriced]:
    """Yield every record of a file, or of all YAML files in a folder; an id that was read before is skipped.

    Raises:
        ConfigError: when `path` is missing, a named file holds no records, or a folder no YAML file.
    """
    read: dict[str, str] = {}
    for item in _all_cases(path):
        if item.id in read:
            reason = f"a record of this id was read before, from {read[item.id]}"
            yield Unpriced(id=item.id, source=item.source, reason=reason)
            continue
        read[item.id] = item.source
        yield item


def _all_cases(path: Path) -> Iterator[Case | Unpriced]:
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no YAML file in this folder; give the folder or the file of the records")
    for file in files:
        try:
            data = read_document(file).data
        except CuboidError as error:
            if not path.is_dir():
                raise
            yield Unpriced(id=file.stem, source=file.stem, reason=f"not readable: {error}")
            continue
        if not path.is_dir() and not _is_table(data):
            raise ConfigError(f"{file}: not a table of records: it needs `records`, or `columns` and `rows`")
        yield from cases_from(data, file.stem)


def cases_from(data: Any, source: str) -> Iterator[Case | Unpriced]:
    """Yield the records of one document."""
    if not _is_table(data):
        yield Unpriced(id=source, source=source, reason="not a table of records")
        return
    remarks = " ".join(str(text) for text in _map(data.get("meta")).values() if isinstance(text, str))
    cases: list[Case] = []
    for number, record in enumerate([*_list(data.get("records")), *_expanded(data, source)]):
        name = str(_map(record).get("id") or f"{source}-{number}")
        try:
            cases.append(_case(_sections(record), name, source, remarks))
        except SkippedError as reason:
            yield Unpriced(id=name, source=source, reason=str(reason))
        except (
            CuboidError,
            TypeError,
            ValueError,
            ZeroDivisionError,
            OverflowError,
        ) as error:
            yield Unpriced(id=name, source=source, reason=f"not understood: {error}")
    yield from without_configured(cases, remarks)


def _is_table(data: Any) -> bool:
    return isinstance(data, dict) and ("records" in data or "rows" in data)


def _expanded(data: Data, source: str) -> list[Any]:
    """Turn a compact table (columns, rows and common values) into records."""
    meta = _map(data.get("meta"))
    columns, common = _list(meta.get("columns")), _map(meta.get("common"))
    records = []
    for row in _list(data.get("rows")):
        values = dict(common) | dict(zip(columns, _list(row), strict=False))
        parts = "-".join(
            f"{short}{values.get(key)}"
            for short, key in (
                ("g", "num_gpus"), ("b", "global_batch"), ("mb", "micro_batch"), ("h", "hidden"),
                ("l", "layers"), ("s", "seq_len"), ("tp", "tp"), ("dp", "dp"), ("pp", "pp"),
            )
        )  # fmt: skip
        values["kv_heads"] = None if isinstance(values.get("kv_heads"), str) else values.get("kv_heads")
        values["ffn_hidden"] = None if isinstance(values.get("ffn_hidden"), str) else values.get("ffn_hidden")
        if values.get("iteration_time_s") is None and values.get("iteration_time_ms") is not None:
            values["iteration_time_s"] = values["iteration_time_ms"] / 1e3
        name = values.get("id") or f"{source}-{parts}"
        records.append(
            {
                "id": name,
                "kind": values.get("kind", "training_run"),
                **dict.fromkeys(SECTIONS[:-1], values),
            }
        )
    return records


def _sections(record: Any) -> Data:
    """Return a record whose sections are all there, empty where they are missing.

    Raises:
        SkippedError: when the record, or a section, is something else than keys and values.
    """
    if not isinstance(record, Mapping):
        raise SkippedError(f"not a record of keys and values but {record!r}")
    for name in SECTIONS:
        if not isinstance(record.get(name) or {}, Mapping):
            raise SkippedError(f"its {name} section is not keys and values but {record[name]!r}")
    return {**record, **{name: _map(record.get(name)) for name in SECTIONS}}


def _case(record: Data, name: str, source: str, remarks: str) -> Case:
    kind = str(record.get("kind") or "training_run")
    if kind not in {"training_run", "memory_only"}:
        raise SkippedError(f"a record of kind '{kind}' is not a training run")
    model, cluster, parallelism, training, measured, derived = (record[section] for section in SECTIONS)
    if not any(model.get(key) for key in ("layers", "hidden", "name")):
        raise SkippedError("it names no model")
    _refuse_features(record, model, parallelism, training)
    assumed: list[str] = []
    layout_data = _degrees(cluster, parallelism, training, assumed)
    spec = _model(model, layout_data["tp"], assumed)
    share = recompute_share(training, layout_data, spec, assumed)
    layout_data |= _schedule(parallelism, training, layout_data, spec, assumed)
    layout_data["precision"] = precision_of(str(training.get("precision") or ""), assumed)
    software, overlap = software_of(record, assumed, remarks=remarks)
    layout = Layout(**layout_data, overlap=Overlap(**overlap))
    machine = cluster_of(cluster, layout.world_size, assumed)
    step = None if kind == "memory_only" else step_seconds(spec, layout, measured, derived)
    peak, view = peak_bytes(measured, f"{remarks} {record.get('notes')} {record.get('confidence')}".lower())
    oom = ran_out_of_memory(measured)
    if step is None and peak is None and not oom:
        raise SkippedError("the source gives neither step time, throughput in tokens nor usable memory")
    return Case(
        id=name,
        source=source,
        gpu=machine.device.name,
        model=spec,
        cluster=machine,
        layout=layout,
        software=software,
        framework=str(training.get("framework") or ""),
        measured_step_seconds=step,
        measured_peak_bytes=peak,
        memory_view=view,
        out_of_memory=oom,
        recompute_share=share,
        assumed=tuple(assumed),
    )


def _refuse_features(record: Data, model: Data, parallelism: Data, training: Data) -> None:
    name = str(model.get("name", "")).lower()
    if any(model.get(key) for key in EXPERTS) or (stated_count(parallelism, "ep") or 1) > 1:
        raise SkippedError("mixture of experts is not modelled")
    if any(word in name for word in ("bert", "t5", "vit", "resnet", "deepseek", "mixtral", "moe")):
        raise SkippedError(f"'{model.get('name')}' is not a dense decoder-only transformer")
    if (stated_count(parallelism, "cp") or 1) > 1:
        raise SkippedError("context parallelism is not modelled")
    if "lora" in str(training.get("task", "")).lower():
        raise SkippedError("LoRA fine-tuning is not modelled")
    for value in (
        training.get("cpu_offload"),
        parallelism.get("cpu_offload"),
        training.get("offload"),
    ):
        if value and str(value).lower() not in {"false", "none", "no"}:
            raise SkippedError("offloading to the host is not modelled")
    precision = str(training.get("precision", "")).lower()
    if any(word in precision for word in ("fp8", "float8", "fp4", "mxfp", "nvfp", "int8")):
        raise SkippedError(f"{training.get('precision')} arithmetic is not modelled")


def _degrees(cluster: Data, parallelism: Data, training: Data, assumed: list[str]) -> dict[str, Any]:
    tp, pp, dp = (stated_count(parallelism, axis) or 1 for axis in ("tp", "pp", "dp"))
    devices = stated_count(cluster, "num_gpus")
    if parallelism.get("dp") is None and devices:
        dp = max(1, devices // (tp * pp))
    if devices and tp * pp * dp != devices:
        raise SkippedError(f"tp·pp·dp = {tp * pp * dp} is not the {devices} devices of the record")
    microbatch = stated_count(training, "micro_batch")
    batch, count = (
        stated_count(training, "global_batch"),
        stated_count(training, "num_microbatches"),
    )
    if microbatch is None and batch and count:
        microbatch = batch // (dp * count)
    if microbatch is None:
        raise SkippedError("the micro-batch is not stated")
    if batch is None and count:
        batch = microbatch * dp * count
    if batch is None:
        raise SkippedError("the global batch is not stated")
    sequence_parallel = parallelism.get("sequence_parallel")
    if sequence_parallel is None:
        sequence_parallel = False
        if tp > 1:
            assumed.append("no sequence parallelism")
    return {
        "tp": tp,
        "pp": pp,
        "dp": dp,
        "microbatch": microbatch,
        "global_batch": batch,
        "sequence_parallel": bool(sequence_parallel) and tp > 1,
        "zero": _zero(parallelism),
    }


def _zero(parallelism: Data) -> int:
    stage = parallelism.get("zero_stage")
    if stage in {0, 1, 2, 3}:
        return int(stage)
    text = str(stage or "").lower()
    if "zero-2" in text or "grad_op" in text:
        return 2
    if any(word in text for word in ("zero-3", "fsdp", "full_shard", "full shard", "hsdp")):
        return 3
    if "zero-1" in text or "optimizer sharded" in text:
        return 1
    if stage and text != "none":
        raise SkippedError(f"zero_stage is {stage!r}; known are 0 to 3, and the words of their frameworks")
    return 1 if parallelism.get("distributed_optimizer") else 0


def _model(model: Data, tp: int, assumed: list[str]) -> ModelSpec:
    layers, hidden, seq = (stated_count(model, key) for key in ("layers", "hidden", "seq_len"))
    if not layers or not hidden or not seq:
        missing = [key for key in ("layers", "hidden", "seq_len") if not stated_count(model, key)]
        raise SkippedError(f"not stated of the model: {', '.join(missing)}")
    heads = stated_count(model, "heads")
    if heads is None:
        heads = KNOWN_HEADS.get(hidden) or _likely_heads(hidden, tp)
        assumed.append(f"{heads} heads")
    if stated_count(model, "head_dim") is None and hidden % heads:
        raise SkippedError(f"{heads} heads do not divide hidden = {hidden}, and head_dim is not stated")
    vocab = stated_count(model, "vocab")
    if vocab is None:
        vocab = DEFAULT_VOCAB
        assumed.append(f"vocabulary {vocab}")
    gated = bool(model.get("gated_mlp"))
    if stated_count(model, "ffn_hidden") is None:
        assumed.append(f"ffn_hidden {4 * hidden}")
    if stated_count(model, "kv_heads") is None:
        assumed.append(f"{heads} key/value heads")
    position = str(model.get("position") or "")
    learned = "learned" in position or (not gated and not position)
    tied = model.get("tied_embeddings")
    unit = 128 * tp  # split vocabularies are padded so that every rank has a multiple of 128
    padded = -(-vocab // unit) * unit if tp > 1 else vocab
    head_dim = stated_count(model, "head_dim") or hidden // heads
    return ModelSpec(
        name=str(model.get("name") or "model"),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=stated_count(model, "kv_heads") or heads,
        head_dim=head_dim,
        ffn_hidden=stated_count(model, "ffn_hidden") or 4 * hidden,
        gated_mlp=gated,
        vocab=padded,
        seq_len=seq,
        tied_embeddings=(not gated) if tied is None else bool(tied),
        position="learned" if learned or "alibi" in position.lower() else "rope",
        norm="rmsnorm" if gated else "layernorm",
        linear_bias=bool(model["bias"]) if model.get("bias") is not None else not gated,
        attention_bias=bool(model["bias"]) if model.get("bias") is not None else not gated,
    )


def _likely_heads(hidden: int, tp: int) -> int:
    """Return the number of heads nearest to a width of 128 that divides hidden and is divisible by tp."""
    fitting = [n for n in range(tp, hidden // 16 + 1, tp) if hidden % n == 0] or [1]
    return min(fitting, key=lambda n: abs(hidden / n - 128))


def _schedule(
    parallelism: Data,
    training: Data,
    layout: dict[str, Any],
    model: ModelSpec,
    assumed: list[str],
) -> dict[str, Any]:
    pp, chunks = layout["pp"], stated_count(parallelism, "vpp")
    text = str(training.get("schedule") or "").lower()
    if chunks is None:
        chunks = 1
        if pp > 1:
            assumed.append("no interleaving")
    chunks = max(1, min(chunks, (model.layers + 2) // pp)) if pp > 1 else 1  # the ends may hold no block
    name = "interleaved-1f1b" if chunks > 1 else "1f1b"
    if pp > 1:
        for words, family, count in (
            (("zb-1p", "zb-h1"), "zb-h1", 1),
            (("zb-2p", "zb-h2"), "zb-h2", 1),
            (("zbv", "zb-v"), "zb-v", 2),
            (("gpipe",), "gpipe", 1),
        ):
            if any(word in text for word in words):
                name, chunks = family, count
    data: dict[str, Any] = {"schedule": name, "chunks": chunks}
    if "one layer fewer" in str(training.get("stage_layers", "")) and pp > 1:
        stages = pp * chunks
        each = (model.layers + 2) // stages
        if each * stages - 2 == model.layers:
            data["layers_per_stage"] = (
                each - 1,
                *(each for _ in range(stages - 2)),
                each - 1,
            )
    return data


def _map(value: Any) -> Data:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
