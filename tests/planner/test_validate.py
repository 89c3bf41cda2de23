"""Rows of a validation: errors, skipped records, verdicts on memory, ranking."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.validate import Row, compare, model_class, predict, validate_records
from planner.validate_case import Case, Unpriced
from planner.validate_records import cases_from, read_cases
from planner.validate_summary import kendall_tau, statistics, summarise
from profiles.documents import dump_yaml
from profiles.errors import ConfigError

RECORD: dict[str, Any] = {
    "id": "one",
    "kind": "training_run",
    "model": {"name": "GPT", "layers": 24, "hidden": 2048, "heads": 16, "vocab": 50304, "seq_len": 1024},
    "cluster": {"gpu": "A100-SXM4-80GB", "gpu_mem_gb": 80, "gpus_per_node": 8, "num_gpus": 8},
    "parallelism": {"tp": 2, "pp": 2, "dp": 2, "cp": 1, "ep": 1, "vpp": 1, "zero_stage": 0},
    "training": {
        "micro_batch": 2,
        "global_batch": 32,
        "recompute": "full",
        "precision": "fp16",
        "flash_attention": False,
    },
    "measured": {"iteration_time_s": 1.0, "peak_memory_gb": 20},
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return RECORD | {name: RECORD[name] | values for name, values in sections.items()}


def only(record: Any) -> Case | Unpriced:
    (item,) = cases_from({"records": [record]}, "table")
    return item


def test_a_record_becomes_a_layout() -> None:
    case = only(RECORD)
    assert isinstance(case, Case)
    layout = case.layout
    assert (layout.tp, layout.pp, layout.dp, layout.microbatches, layout.recompute) == (2, 2, 2, 8, "full")
    assert case.model.vocab % (128 * 2) == 0  # padded for tp
    assert case.measured_step_seconds == 1.0
    assert not case.software.flash_attention


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"training": {"precision": "FP8-CS"}}, "FP8-CS arithmetic"),
        ({"training": {"precision": "bf16, float8 linear layers"}}, "arithmetic"),
        ({"model": {"moe": True}}, "mixture of experts"),
        ({"parallelism": {"cp": 2}}, "context parallelism"),
        ({"training": {"cpu_offload": "activations of 20 layers"}}, "offloading"),
        ({"training": {"task": "lora"}}, "LoRA"),
        ({"cluster": {"gpu": "abacus"}}, "no device preset for 'abacus'"),
        ({"model": {"layers": None}}, "not stated of the model: layers"),
        ({"parallelism": {"dp": 3}}, "is not the 8 devices"),
        ({"measured": {"iteration_time_s": None, "peak_memory_gb": None}}, "neither step time"),
        ({"training": {"micro_batch": None}}, "micro-batch"),
        ({"model": {"heads": "many"}}, "heads is 'many', not a whole number"),
        ({"model": {"heads": 7}}, "7 heads do not divide hidden"),
        ({"model": {"layers": -4}}, "layers is -4, not a whole number"),
        ({"model": {"num_experts": 8}}, "mixture of experts"),
        ({"parallelism": {"zero_stage": "stage 3"}}, "zero_stage is 'stage 3'"),
        ({"cluster": {"gpus_per_node": "8 GPUs"}}, "gpus_per_node is '8 GPUs'"),
        ({"cluster": {"gpu": None}}, "the device is not stated"),
        ({"measured": {"iteration_time_s": -1.0}}, "iteration_time_s is -1.0, not a positive number"),
        ({"measured": {"iteration_time_s": float("nan")}}, "iteration_time_s is nan"),
        ({"measured": {"iteration_time_s": "1.5 s"}}, "iteration_time_s is '1.5 s'"),
        ({"model": {"heads": None, "ffn_hidden": None}}, ""),
    ],
)
def test_records_outside_the_model_are_skipped_with_the_reason(
    sections: dict[str, dict[str, Any]], reason: str
) -> None:
    item = only(changed(**sections))
    if reason:
        assert isinstance(item, Unpriced)
        assert reason in item.reason
    row = compare(item)
    assert (row.skipped is not None) == bool(reason)


def test_whatever_a_source_leaves_out_is_said_to_be_assumed() -> None:
    case = only(
        changed(
            model={"heads": None, "vocab": None, "ffn_hidden": None, "kv_heads": None},
            cluster={"gpus_per_node": None},
            training={"precision": None, "recompute": None, "flash_attention": None},
        )
    )
    assert isinstance(case, Case)
    said = (
        "heads",
        "vocabulary",
        "ffn_hidden",
        "key/value heads",
        "a node",
        "bf16",
        "no recompu",
        "attention",
    )
    for word in said:
        assert any(word in assumption for assumption in case.assumed), word


def test_milliseconds_are_read_as_such_and_sections_of_text_are_refused() -> None:
    case = only(changed(measured={"iteration_time_s": None, "iteration_time_ms": 1500}))
    assert isinstance(case, Case)
    assert case.measured_step_seconds == 1.5
    item = only(RECORD | {"parallelism": "tp1"})
    assert isinstance(item, Unpriced)
    assert item.reason == "its parallelism section is not keys and values but 'tp1'"


@pytest.mark.parametrize(
    "junk", [None, 7, "text", [], {}, {"kind": "formula"}, {"model": [1], "training": 3}]
)
def test_any_record_is_read_or_skipped(junk: Any) -> None:
    row = compare(only(junk))
    assert row.skipped


@pytest.mark.parametrize("text", ["hello", "- {records: []}", "meta: {columns: [tp]}"])
def test_a_file_without_records_is_refused_alone_and_skipped_in_a_folder(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no YAML file in this folder"):
        list(read_cases(tmp_path))
    file = tmp_path / "other.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.yaml: not a table of records"):
        list(read_cases(file))
    (skipped,) = read_cases(tmp_path)
    assert isinstance(skipped, Unpriced)
    assert skipped.reason == "not a table of records"


def test_a_record_that_is_read_again_is_skipped(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(dump_yaml({"records": [RECORD]}))
    case, again = read_cases(tmp_path)
    assert isinstance(case, Case) and case.source == "first"
    assert isinstance(again, Unpriced)
    assert again.reason == "a record of this id was read before, from first"


def test_compact_tables_are_read(tmp_path: Path) -> None:
    table = {
        "meta": {
            "common": {"gpu": "A100", "gpus_per_node": 8, "vocab": 50257, "recompute": "full"},
            "columns": [
                "num_gpus", "global_batch", "micro_batch", "hidden", "heads", "layers", "seq_len",
                "tp", "dp", "pp", "iteration_time_ms",
            ],
        },
        "rows": [[2, 16, 8, 1024, 16, 24, 1024, 1, 1, 2, 372.2]],
    }  # fmt: skip
    file = tmp_path / "table.yaml"
    file.write_text(dump_yaml(table))
    (case,) = read_cases(tmp_path)
    assert isinstance(case, Case)
    assert case.measured_step_seconds == pytest.approx(0.3722)
    assert case.layout.pp == 2


def test_throughput_is_turned_into_a_step_time() -> None:
    case = only(changed(measured={"iteration_time_s": None, "tokens_per_s_per_gpu": 4096}))
    assert isinstance(case, Case)
    assert case.measured_step_seconds == pytest.approx(32 * 1024 / 4096 / 8)


def test_layers_that_recompute_in_part_cost_in_part() -> None:
    def step(**training: Any) -> float:
        case = only(changed(training=training, parallelism={"tp": 1, "pp": 1, "dp": 8}))
        assert isinstance(case, Case)
        return predict(case).step_seconds

    none, full = step(recompute="none"), step(recompute="full")
    half = step(recompute="full for 12 of 24 layers", recompute_layers=12)
    assert half == pytest.approx((none + full) / 2)


def test_a_run_that_did_not_fit_must_be_refused_and_one_that_ran_must_not() -> None:
    huge = {"layers": 96, "hidden": 12288, "heads": 96}
    ran = compare(only(changed(model=huge)))
    failed = compare(only(changed(model=huge, measured={"out_of_memory": True})))
    small = compare(only(changed(measured={"out_of_memory": True})))
    assert (ran.verdict, failed.verdict, small.verdict) == ("wrongly infeasible", "ok", "wrongly feasible")


def test_statistics_are_of_absolute_errors_and_the_bias_is_not() -> None:
    figures = statistics([0.1, -0.3, 0.2])
    assert figures["mean"] == pytest.approx(0.2)
    assert figures["median"] == pytest.approx(0.2)
    assert figures["worst"] == -0.3
    assert figures["bias"] == pytest.approx(0.0)
    assert statistics([]) == {"count": 0}


def test_kendall_tau_counts_pairs() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [1, 1, 1]) == 0
    rng = np.random.default_rng(0)
    assert abs(kendall_tau(rng.random(300), rng.random(300))) < 0.1


def test_the_summary_has_every_group(tmp_path: Path) -> None:
    records = [
        RECORD | {"id": f"r{i}", "parallelism": RECORD["parallelism"] | {"tp": tp, "dp": 4 // tp}}
        for i, tp in enumerate((1, 2, 4))
    ]
    (tmp_path / "a.yaml").write_text(dump_yaml({"records": records}))
    (tmp_path / "b.yaml").write_text(dump_yaml({"records": [changed(training={"precision": "fp8"})]}))
    (tmp_path / "broken.yaml").write_text("records: [")
    rows = validate_records([tmp_path])
    summary = summarise(rows)
    assert summary["count"] == 3
    assert {"mean", "median", "p90", "worst", "bias"} <= set(summary)
    assert set(summary["by_source"]) == {"a"}
    assert summary["by_gpu"]["a100-sxm4-80gb"]["count"] == 3
    assert summary["memory"]["count"] == 3
    assert summary["ranking"]["a"]["contests"] == 1
    assert sum(summary["skipped"].values()) == 2


def test_layouts_compete_within_a_framework(tmp_path: Path) -> None:
    records = [
        changed(training={"framework": name}) | {"id": f"r{i}"}
        for i, name in enumerate(("one", "one", "two"))
    ]
    (tmp_path / "a.yaml").write_text(dump_yaml({"records": records}))
    first, second, other = (row.contest for row in validate_records([tmp_path]))
    assert first == second != other


def test_rows_that_resist_are_named_and_left_out_sources_are_summed_up() -> None:
    def row(name: str, error: float) -> Row:
        return Row(
            id=name, source="a", measured_step_seconds=1.0, predicted_step_seconds=1 + error, error=error
        )

    summary = summarise(
        [row("near", 0.1), row("slow", -0.3), row("quick", 0.26)], {"a": [0.1, -0.3], "b": [0.2]}
    )
    assert summary["resisting"] == {"slow": -0.3, "quick": 0.26}
    assert summary["reasons"] == {}
    left_out = summary["leave_one_source_out"]
    assert left_out["count"] == 3
    assert left_out["mean"] == pytest.approx(0.2)
    assert left_out["mean_of_sources"] == pytest.approx(0.2)
    assert left_out["by_source"]["a"]["bias"] == pytest.approx(-0.1)
    assert summarise([row("near", 0.1)])["leave_one_source_out"] == {}


def test_sizes_have_names() -> None:
    assert [model_class(n) for n in (1e8, 7e9, 7e10, 1e12)] == [
        "under 1B",
        "1B to 10B",
        "10B to 100B",
        "over 100B",
    ]
