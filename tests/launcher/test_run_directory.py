"""Run directories: made whole or not at all, and read while they are being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.run_directory import (
    NewLines,
    RunDirectory,
    create_run,
    free_name,
    open_run,
    read_json_lines,
)
from planner.job import Job
from planner.layout import Layout
from planner.plan import Plan
from profiles.documents import validate
from profiles.errors import ConfigError
from profiles.presets import cluster_preset, model_preset


def job(name: str = "first") -> Job:
    layout = validate(Layout, {"tp": 2, "global_batch": 4, "precision": "fp32"})
    cluster = cluster_preset("cpu-2")
    return Job(name=name, plan=Plan(model=model_preset("bytes-1m"), cluster=cluster, layout=layout), steps=7)


def test_a_run_reads_back_the_job_it_was_made_from(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", job(), files={"costs.yaml": "kind: costs\n"})
    assert open_run(run.path).job() == job()
    assert run.plan() == job().plan
    assert (run.path / "costs.yaml").read_text() == "kind: costs\n"


def test_a_taken_name_is_refused_and_nothing_is_left_over(tmp_path: Path) -> None:
    create_run(tmp_path, job())
    with pytest.raises(ConfigError, match="exists already"):
        create_run(tmp_path, job())
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert free_name(tmp_path, "first") == "first-2"


@pytest.mark.parametrize("name", ["", "..", "a/b", "-rf", "a b", "x\ny", "$(ls)", "é", "a" * 65])
def test_a_name_that_could_be_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="run name"):
        create_run(tmp_path, job(name))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        create_run(tmp_path / "file", job())


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        open_run(tmp_path)


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\nnoise\n{"step": 3')
    assert list(read_json_lines(file)) == [{"step": 1}, {"step": 2}]
    assert list(read_json_lines(tmp_path / "absent")) == []


def test_a_broken_record_names_its_file(tmp_path: Path) -> None:
    run = create_run(tmp_path, job())
    assert run.record() is None
    (run.path / "record.json").write_text(json.dumps({"step_seconds": -1}))
    with pytest.raises(ConfigError, match=r"record\.json: not a record"):
        run.record()


def test_lines_are_read_once_when_they_are_complete(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = NewLines(file)
    assert list(lines.read()) == []
    file.write_text('{"step": 1}\nno JSON\n{"st')
    assert list(lines.read()) == [{"step": 1}]
    with file.open("a") as stream:
        stream.write('ep": 2}\n')
    assert list(lines.read()) == [{"step": 2}]
    assert list(lines.read()) == []


def test_steps_done_again_count_once_in_the_trajectory(tmp_path: Path) -> None:
    run = RunDirectory(path=tmp_path)
    done = [1, 2, 3, 4, 3, 4, 5, 2]
    lines = [json.dumps({"step": step, "loss": place}) for place, step in enumerate(done)]
    run.metrics_path.write_text("\n".join(lines) + "\n")
    assert [(line["step"], line["loss"]) for line in run.trajectory()] == [(1, 0), (2, 7)]
