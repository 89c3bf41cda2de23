"""plan.yaml: by hand, by preset, resolved, and refused with the line to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.plan import load_plan, save_plan
from profiles.errors import ConfigError

BY_HAND = """\
kind: plan
version: 1
model: {preset: gpt3-175b}
cluster: {preset: selene, nodes: 8}
layout:
  tp: 8
  pp: 8
  dp: 1
  chunks: 3
  microbatch: 1
  global_batch: 64
  schedule: interleaved-1f1b
  sequence_parallel: true
  recompute: selective
  zero: 0
  precision: bf16
  layers_per_stage: null
  overlap: {dp: true, tp: false, pp: true}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "plan.yaml"
    file.write_text(text)
    return file


def test_a_plan_by_hand_needs_no_estimate(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, BY_HAND))
    assert plan.estimate is None
    assert plan.model.name == "gpt3-175b"
    assert plan.cluster.devices == 64
    assert plan.layout.stages == 24
    assert plan.layout.microbatches == 64


def test_a_resolved_plan_reads_back_equal_wherever_it_lies(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, BY_HAND))
    elsewhere = tmp_path / "elsewhere.yaml"
    save_plan(elsewhere, plan)
    assert load_plan(elsewhere) == plan


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  tp: 8", "  tp: 7", "plan.yaml:6:3: layout.tp: 7 does not divide 96 heads; use 1, 2, 3, 4, 6, 8,"),
        ("  dp: 1", "  dp: 2", "layout: tp · pp · dp = 8 · 8 · 2 = 128 ranks, the cluster has 64 devices"),
        ("  zero: 0", "  zeroo: 0", "plan.yaml:15:3: layout.zeroo: unknown key; did you mean 'zero'?"),
        ("gpt3-175b", "gpt3-176b", "plan.yaml:3:9: model.preset: no preset 'gpt3-176b' in models; try gpt3-"),
        ("selene", "selenee", "plan.yaml:4:11: cluster.preset: no preset 'selenee' in clusters; try selene"),
        ("  pp: 8", "  pp: eight", 'plan.yaml:7:3: layout.pp: must be a valid integer, not "eight"'),
        (
            ": interleaved-1f1b",
            ": interleaved",
            "layout.schedule: there is no schedule 'interleaved'; did you",
        ),
        (
            "schedule: interleaved-1f1b",
            "schedule: zb-v",
            "layout.chunks: zb-v holds exactly 2 stages per rank, not 3; use chunks = 2",
        ),
        ("kind: plan", "kind: job", "plan.yaml:1:1: kind: must be 'plan'"),
        ("version: 1", "version: 2", "plan.yaml:2:1: version: must be 1, not 2"),
        ("{preset: gpt3-175b}", "gpt3-175b", "plan.yaml:3:1: model: "),
    ],
)
def test_a_mistake_is_refused_with_file_line_and_column(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in BY_HAND
    with pytest.raises(ConfigError) as caught:
        load_plan(write(tmp_path, BY_HAND.replace(old, new)))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "plan.yaml"))


def test_a_model_may_be_a_config_beside_the_plan(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "n_layer": 8, "n_embd": 64, "n_head": 8,'
        ' "vocab_size": 100, "n_positions": 32}'
    )
    text = BY_HAND.replace("{preset: gpt3-175b}", "{config: config.json, seq_len: 16}").replace(
        "chunks: 3", "chunks: 1"
    )
    plan = load_plan(write(tmp_path, text))
    assert (plan.model.layers, plan.model.seq_len, plan.model.vocab) == (8, 16, 100)
