"""The predicted and the measured timeline of a run: read back, printed, drawn, and in the page."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from launcher.cli import main
from launcher.drawing.step_svg import step_svg
from launcher.drawing.step_terminal import draw_steps
from launcher.run_directory import create_run, open_run
from launcher.run_timelines import step_timelines
from planner.costs import price
from planner.job import Job
from planner.layout import Layout
from planner.plan import Plan
from planner.predicted_step import predicted_step
from planner.schedules import Cell, StepTimeline, chrome_trace
from profiles.model import ModelSpec
from profiles.presets import cluster_preset

MODEL = ModelSpec(layers=4, hidden=64, heads=4, vocab=256, seq_len=32)


def slower(step: StepTimeline) -> StepTimeline:
    """The same step at half the speed, as a run might have measured it."""
    cells = tuple(Cell(*cell[:5], *(2 * seconds for seconds in cell[5:])) for cell in step.cells)
    return StepTimeline(title="demo, step 5", cells=cells, seconds=2.5 * step.seconds)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    layout = Layout(pp=2, chunks=2, global_batch=4, schedule="zb-v", precision="fp32")
    plan = Plan(model=MODEL, cluster=cluster_preset("cpu-2"), layout=layout)
    plan = plan.model_copy(update={"estimate": price(plan.model, plan.cluster, plan.layout)})
    path = create_run(tmp_path, Job(name="demo", plan=plan)).path
    trace = chrome_trace([slower(predicted_step(plan))])
    (path / "trace.json").write_text(json.dumps(trace))
    return path


def test_both_are_of_the_same_step(run: Path) -> None:
    opened = open_run(run)
    predicted, measured = step_timelines(opened.plan(), opened)
    assert (predicted.title, measured.title) == ("predicted", "measured: demo, step 5")
    assert [cell.name for cell in predicted.rows[0]] == [cell.name for cell in measured.rows[0]]
    for ours, theirs in zip(predicted.shares, measured.shares, strict=True):
        assert theirs.busy == pytest.approx(2 * ours.busy)
        assert theirs.busy + theirs.wait + theirs.idle == pytest.approx(measured.seconds)
        assert theirs.idle == pytest.approx(0.5 * predicted.seconds, rel=0.01)


def test_a_prediction_made_anew_says_so(run: Path) -> None:
    opened = open_run(run)
    plan = opened.plan()
    assert plan.estimate is not None
    faster = plan.estimate.model_copy(update={"step_seconds": plan.estimate.step_seconds / 2})
    predicted, _ = step_timelines(plan.model_copy(update={"estimate": faster}), opened)
    assert predicted.title == "predicted anew, not as in the plan"


def test_the_picture_draws_every_cell_to_scale(run: Path) -> None:
    opened = open_run(run)
    timelines = step_timelines(opened.plan(), opened)
    picture = ElementTree.fromstring(step_svg(timelines))
    drawn = [
        (rect.findtext("{*}title"), float(rect.get("x", "")), float(rect.get("width", "")))
        for rect in picture.iter("{http://www.w3.org/2000/svg}rect")
        if rect.find("{*}title") is not None
    ]
    cells = [(title, x, width) for title, x, width in drawn if title and "waits" not in title]
    forward = [(x, width) for title, x, width in cells if title.startswith("rank 0: 0F0 ")]
    assert len(forward) == 2  # predicted and measured
    (before, first), (after, second) = forward
    assert before == after  # both steps start at the left edge
    assert second + 0.5 == pytest.approx(2 * (first + 0.5), rel=0.02)
    names = {title.split()[2] for title, *_ in cells if title}
    assert {f"{s}{k}{m}" for s in range(4) for k in "FIW" for m in range(4)} <= names


def test_the_terminal_draws_waits_and_shares(run: Path) -> None:
    opened = open_run(run)
    timelines = step_timelines(opened.plan(), opened)
    lines = [line.plain for line in draw_steps(timelines, width=120, colours=False)]
    assert all(len(line) <= 120 for line in lines)
    ranks = [line for line in lines if line.startswith("rank ")]
    assert len(ranks) == 4
    assert any("·" in line for line in ranks)
    for line, share in zip(ranks, (s for t in timelines for s in t.shares), strict=True):
        assert line.split()[-3] == f"{share.busy / share.step:.0%}"
        assert line.split()[-1] == f"{share.idle / share.step:.0%}"
    assert len(ranks[2]) > len(ranks[0])  # one scale: the measured step is longer


def test_report_prints_draws_and_embeds_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    svg, html = run / "step.svg", run / "report.html"
    assert main(["report", str(run), "--timeline", "--svg", str(svg), "--html", str(html)]) == 0
    printed = capsys.readouterr().out
    assert "predicted" in printed
    assert "measured: demo, step 5" in printed
    assert svg.read_text().startswith('<svg class="cuboid-steps"')
    page = html.read_text()
    assert "A step, predicted and measured" in page
    assert page.count('<svg class="cuboid-steps"') == 1
    assert "http" not in page.replace("http-equiv", "")  # it needs no network
    assert main(["report", str(run), "--timeline", "--json"]) == 0
    timelines = json.loads(capsys.readouterr().out)["timelines"]
    for timeline in timelines:
        for rank in timeline["ranks"]:
            assert rank["busy"] + rank["wait"] + rank["idle"] == pytest.approx(timeline["seconds"])


def test_a_broken_trace_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "trace.json").write_text("{")
    assert main(["report", str(run), "--timeline"]) == 2
    assert "trace.json: not a trace of a step" in capsys.readouterr().err
