"""Every exporter against files checked by hand, and against what its framework's formats allow."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.export import EXPORTERS
from launcher.export.megatron import layout_string
from planner.layout import Layout
from planner.plan import Plan, save_plan
from planner.schedules import check_parsed, parse_schedule
from profiles.documents import parse_yaml
from profiles.errors import InfeasibleError
from profiles.presets import cluster_preset, model_preset

GOLDEN = Path(__file__).parent / "golden"
BY_NAME = {exporter.name: exporter for exporter in EXPORTERS}


def plan(model: str = "gpt3-175b", **layout: Any) -> Plan:
    return Plan(
        model=model_preset(model),
        cluster=cluster_preset("selene").with_nodes(8),
        layout=Layout(global_batch=64, **layout),
    )


PLANS = {
    "interleaved": plan(
        tp=8, pp=8, chunks=3, schedule="interleaved-1f1b", sequence_parallel=True, recompute="selective"
    ),
    "uneven": plan(
        "llama3.1-70b",
        tp=4,
        pp=4,
        dp=4,
        zero=1,
        recompute=("full", "full", "none", "none"),
        layers_per_stage=(20, 21, 21, 18),
        rank_order="tp-pp-dp",
    ),
    "data": plan("llama3.1-8b", dp=32, microbatch=2, zero=1, recompute="full"),
}

REFUSED = {
    ("interleaved", "deepspeed"): "1f1b with one stage per rank",
    ("interleaved", "nanotron"): "1f1b or gpipe, not 'interleaved-1f1b'",
    ("interleaved", "accelerate"): "runs 1f1b, not 'interleaved-1f1b'",
}


@pytest.mark.parametrize("target", BY_NAME)
@pytest.mark.parametrize("name", PLANS)
def test_files_are_those_checked_by_hand(name: str, target: str) -> None:
    if (name, target) in REFUSED:
        with pytest.raises(InfeasibleError, match=REFUSED[name, target]):
            BY_NAME[target].export(PLANS[name])
        return
    result = BY_NAME[target].export(PLANS[name])
    text = "".join(f"=== {file}\n{content}" for file, content in result.files.items())
    text += f"=== {result.status}\n" + "".join(f"{loss}\n" for loss in result.losses)
    assert text == (GOLDEN / f"{name}-{target}.txt").read_text(encoding="utf-8")


def test_megatron_batch_and_degrees_multiply_up() -> None:
    text = BY_NAME["megatron"].export(PLANS["uneven"]).files["megatron.sh"]
    words = shlex.split(text[text.index("(") + 1 : text.rindex(")")])
    value = {key: words[i + 1] for i, key in enumerate(words[:-1]) if key.startswith("--")}
    assert int(value["--tensor-model-parallel-size"]) * int(value["--pipeline-model-parallel-size"]) == 16
    stages = value["--pipeline-model-parallel-layout"].split("|")
    assert [int(re.sub(r"\D", "", stage)) for stage in stages] == [20, 21, 21, 18]
    assert stages[0].startswith("E") and stages[-1].endswith("L")


def test_megatron_layout_counts_every_layer() -> None:
    def count(text: str) -> int:
        return sum(int(n or 1) for n in re.findall(r"t(?:\*(\d+))?", text))

    layers = (3, 0, 1, 2, 2, 1)
    text = layout_string(layers)
    assert [count(stage) for stage in text.split("|")] == list(layers)


def test_torchtitan_runs_the_very_schedule_where_it_has_no_name_for_it() -> None:
    result = BY_NAME["torchtitan"].export(plan(tp=8, pp=8, schedule="zb-h1", sequence_parallel=True))
    section = tomllib.loads(result.files["torchtitan.toml"])["parallelism"]
    assert section["pipeline_parallel_schedule_csv"] == "schedule.csv"
    check_parsed(parse_schedule(result.files["schedule.csv"]))
    modules = section["module_fqns_per_model_part"]
    assert len(modules) == 8
    assert [m for part in modules for m in part if m.startswith("layers.")] == [
        f"layers.{i}" for i in range(96)
    ]


def test_formats_parse() -> None:
    data = PLANS["data"]
    assert json.loads(BY_NAME["deepspeed"].export(data).files["deepspeed.json"])["train_batch_size"] == 64
    for target in ("nanotron", "accelerate"):
        text = next(iter(BY_NAME[target].export(data).files.values()))
        assert isinstance(parse_yaml(text).data, dict)
    section = tomllib.loads(BY_NAME["torchtitan"].export(data).files["torchtitan.toml"])
    assert section["training"]["global_batch_size"] == 64


def test_a_name_cannot_leave_its_comment() -> None:
    model = model_preset("llama3.1-8b").model_copy(update={"name": "x\nrm -rf ~ #"})
    text = BY_NAME["megatron"].export(PLANS["data"].model_copy(update={"model": model})).files["megatron.sh"]
    assert all(line.startswith(("#", "    --", "MEGATRON_ARGUMENTS=(", ")")) for line in text.splitlines())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.yaml"
    save_plan(path, PLANS["data"])
    assert main(["export", str(path), "--to", "megatron", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "lossless" and list(answer["files"]) == ["megatron.sh"]
    assert main(["export", str(path), "--to", "deepspeed", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "deepspeed.json").exists()
    assert main(["export", str(path), "--to", "horovod"]) == 2
    assert "use megatron, torchtitan" in capsys.readouterr().err
    save_plan(path, PLANS["interleaved"])
    assert main(["export", str(path), "--to", "nanotron"]) == 3
    assert capsys.readouterr().out == ""
