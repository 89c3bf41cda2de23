"""Checkpoints: atomic, pruned, safe to read, and independent of the layout they were made in."""

from __future__ import annotations

import json
import os
import pickle
import signal

import pytest

from planner.layout import Layout
from runtime.checkpoint import saved_steps
from runtime.checkpoint_reader import TensorReader

SECONDS = 150.0


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def layout(**fields):
    return Layout(**({"global_batch": 4, "precision": "fp32"} | fields))


def test_only_the_last_ones_are_kept(make_run, train_ranks):
    run = make_run(layout(), steps=5, checkpoint={"every_steps": 1, "keep": 2})
    assert train_ranks(run, 1).wait(SECONDS) == [0]
    assert saved_steps(run / "checkpoints") == [4, 5]


def test_a_kill_while_saving_leaves_the_older_one(make_run, train_ranks):
    def killed_while_saving(rank):
        from runtime import checkpoint

        write, calls = checkpoint.write_text, []

        def die(path, text):
            calls.append(path)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, text)

        checkpoint.write_text = die

    run = make_run(layout(), steps=6, checkpoint={"every_steps": 2})
    assert train_ranks(run, 1, patch=killed_while_saving).wait(SECONDS) == [-signal.SIGKILL]
    assert saved_steps(run / "checkpoints") == [2]
    assert any(path.name.endswith(".partial") for path in (run / "checkpoints").iterdir())
    assert train_ranks(run, 1, resume=True).wait(SECONDS) == [0]
    assert saved_steps(run / "checkpoints") == [4, 6]
    whole = make_run(layout(), name="whole")
    assert train_ranks(whole, 1).wait(SECONDS) == [0]
    assert losses(run)[-4:] == losses(whole)[2:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"tp": 2, "pp": 2}, {"dp": 2}),
        ({"tp": 2}, {}),
        ({"pp": 2, "dp": 2}, {"tp": 2, "pp": 2, "schedule": "gpipe"}),
    ],
    ids=["4 to 2 ranks", "2 to 1 rank", "another 4"],
)
def test_another_layout_goes_on_from_it(make_run, train_ranks, before, after):
    """The losses go on as those of one process that never stopped; in fp64 only the order of sums differs."""
    fp64 = {"precision": "fp64"}
    whole, moved = make_run(layout(**fp64), name="whole"), make_run(layout(**before, **fp64), name="moved")
    together = train_ranks(whole, 1)
    (moved / "STOP").touch()
    assert set(train_ranks(moved, layout(**before).world_size).wait(SECONDS)) == {0}
    other = make_run(layout(**after, **fp64), name="other")
    (moved / "checkpoints").rename(other / "checkpoints")
    assert set(train_ranks(other, layout(**after).world_size, resume=True).wait(SECONDS)) == {0}
    assert together.wait(SECONDS) == [0]
    assert losses(other) == pytest.approx(losses(whole)[1:], rel=1e-12)


def damage(run, step, name, keep_bytes):
    for path in (run / "checkpoints" / f"step-{step:08d}").glob(name):
        os.truncate(path, keep_bytes)


def warnings(run):
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [event["text"] for event in events if event["event"] == "warning"]


@pytest.mark.parametrize(("name", "keep_bytes"), [("*.distcp", 300), (".metadata", 50), ("complete", 3)])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(make_run, train_ranks, name, keep_bytes):
    """The run goes on, bit for bit, and overwrites nothing; with none left it stays down with one message."""
    run = make_run(layout(pp=2), steps=4, checkpoint={"every_steps": 2})
    (run / "metrics.jsonl").write_text('{"step": 0, "lo')  # what a full disk leaves of a line
    assert train_ranks(run, 2).wait(SECONDS) == [0, 0]
    damage(run, 4, name, keep_bytes)
    assert train_ranks(run, 2, resume=True).wait(SECONDS) == [0, 0]
    (text,) = warnings(run)
    assert "step-00000004: damaged" in text
    assert ".step-00000004.unreadable" in text
    assert losses(run)[2:4] == losses(run)[4:]
    assert saved_steps(run / "checkpoints") == [2, 4]
    for step in (2, 4):
        damage(run, step, name, keep_bytes)
    assert 93 in train_ranks(run, 2, resume=True).wait(SECONDS)
    log = "".join((run / "logs" / f"rank-{rank}.log").read_text() for rank in range(2))
    assert "no checkpoint can be read" in log
    assert "Traceback" not in log


def test_other_data_than_the_checkpoint_s_is_said(make_run, train_ranks, tmp_path):
    run = make_run(layout(), steps=2)
    (run / "STOP").touch()
    partial = run / "checkpoints" / ".step-00000007.partial"
    partial.mkdir(parents=True)
    assert train_ranks(run, 1).wait(SECONDS) == [0]
    assert not partial.exists()
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("fox", "cat"))
    assert train_ranks(run, 1, resume=True).wait(SECONDS) == [0]
    (warning,) = warnings(run)
    assert "step-00000001 was trained on" in warning


class Malicious:
    def __reduce__(self):
        return os.system, ("true",)


def test_an_index_that_calls_something_is_refused(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="system, which no checkpoint of tensors needs"):
        TensorReader(tmp_path).read_metadata()
