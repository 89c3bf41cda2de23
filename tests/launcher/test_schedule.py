"""`cuboid schedule` and `cuboid check` from the command line: what they print, write and refuse."""

import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from launcher.cli import main
from launcher.drawing import draw, svg
from launcher.drawing.palette import heat
from launcher.drawing.terminal import column_seconds, legend
from launcher.drawing.ticks import tick_shares
from planner.schedules import StageTimes, build, simulate

SHAPE = ["--stages", "4", "--microbatches", "8"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, _ = run(capsys, *words, "--json")
    assert code == 0
    return json.loads(out)


def test_json_holds_what_design_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "schedule", "1f1b", *SHAPE)
    assert (found["ranks"], found["stages"], found["microbatches"]) == (4, 4, 8)
    assert (found["makespan"], found["cycle"]) == (33.0, 33.0)
    assert found["bubble_fraction"] == pytest.approx(3 / 11)
    assert found["peak_activations"] == [4.0, 3.0, 2.0, 1.0]
    assert len(found["actions"]) == 4 * 8 * 2
    assert set(found["actions"][0]) == {"rank", "action", "stage", "microbatch", "start", "end"}
    for busy, wait, idle in zip(found["busy"], found["wait"], found["idle"], strict=True):
        assert busy + wait + idle == pytest.approx(found["cycle"])


def test_times_are_for_all_layers_of_a_rank(capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "schedule", "interleaved-1f1b", *SHAPE, "--chunks", "2", "--times", "F=2,I=2,W=1")
    assert found["cycle"] == 8 * 5 + 3 * 5 / 2
    first = found["actions"][0]
    assert first["end"] - first["start"] == 1.0
    whole = data(capsys, "schedule", "1f1b", *SHAPE, "--times", "F=1,I=1,W=1,B=3")
    assert whole["cycle"] == 11 * 4
    uneven = data(capsys, "schedule", "gpipe", *SHAPE, "--times", "F=1:3:1:1")
    assert uneven["busy"] == [24.0, 40.0, 24.0, 24.0]


def test_communication_delays_and_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    free, late, blocked = (
        data(capsys, "schedule", "1f1b", *SHAPE, *words)["cycle"]
        for words in ([], ["--comm", "0.5"], ["--comm", "0.5", "--blocking"])
    )
    assert free < late < blocked
    wire = data(capsys, "schedule", "1f1b", *SHAPE, "--comm", "latency=0.25,bytes=1e9,bandwidth=4e9")["cycle"]
    assert free < wire <= late


def test_several_are_compared_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schedule", "gpipe,1f1b", "zb-v", *SHAPE)
    assert code == 0
    for line in ("gpipe 4 33 27.3% 8", "1f1b 4 33 27.3% 4", "zb-v 8 24 0.0% 4"):
        assert line in " ".join(out.split())
    assert out.count("rank 3") == 3
    both = data(capsys, "schedule", "gpipe,1f1b", *SHAPE)
    assert [one["name"] for one in both["schedules"]] == ["gpipe", "1f1b"]


def test_a_timeline_in_plain_characters() -> None:
    timeline = simulate(build("1f1b", ranks=2, microbatches=2), StageTimes.uniform(stages=2))
    lines = [line.plain for line in draw(timeline, width=7 + 9 * 3, colours=False)]
    assert lines == [
        "rank 0 F0 F1 ······B0--- ···B1--- ",
        "rank 1 ···F0 B0--- F1 B1--- ······",
        "       0                         9",
    ]


def test_a_legend_explains_every_cell_and_breaks_none_of_its_entries() -> None:
    timelines = [
        simulate(schedule, StageTimes.uniform(stages=schedule.stages))
        for schedule in (build(name, ranks=2, microbatches=2) for name in ("pipedream", "zb-v"))
    ]
    lines = [line.plain for line in legend(timelines, width=34, colours=False)]
    assert lines == [
        "F forward   B backward",
        "I input gradient",
        "W weight gradient",
        "U weight update",
        "small letters: later chunks",
    ]
    assert len(legend(timelines, width=110, colours=False)) == 1


@pytest.mark.parametrize("columns", ["60", "80"])
def test_a_narrow_table_loses_nothing(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run(capsys, "schedule", "interleaved-1f1b,pipedream,pipedream-2bw", *SHAPE)
    assert "…" not in out and max(map(len, out.splitlines())) <= int(columns)
    # Versions of the weights in the long run, which a single step does not show; then the steady cycle.
    assert "pipedream 4 33 27.3% 4 4 24 pipedream-2bw 4 33 27.3% 4 2 24" in " ".join(out.split())


def test_ticks_of_a_short_timeline_do_not_meet() -> None:
    assert [len(tick_shares(width)) for width in (1060, 200, 70, 30)] == [5, 3, 2, 1]
    timelines = [
        simulate(build(name, ranks=8, microbatches=8), StageTimes.uniform(stages=8))
        for name in ("naive", "1f1b")
    ]
    root = ElementTree.fromstring(svg(timelines))
    labels = [
        (float(text.get("y", 0)), float(text.get("x", 0)))
        for text in root.iter("{http://www.w3.org/2000/svg}text")
        if text.get("class") == "d" and text.get("text-anchor") == "middle"
    ]
    for (y, x), (other_y, other_x) in itertools.pairwise(sorted(labels)):
        assert y != other_y or other_x - x >= 64


def test_several_timelines_share_one_scale() -> None:
    timelines = [
        simulate(build(name, ranks=4, microbatches=8), StageTimes.uniform(stages=4))
        for name in ("naive", "1f1b")
    ]
    scale = column_seconds(timelines, width=110)
    widths = [
        len(draw(timeline, width=110, colours=False, per_column=scale)[0].plain) - len("rank 3 ")
        for timeline in timelines
    ]
    assert widths == [round(96 / scale), round(33 / scale)]
    assert widths[0] <= 110


def test_picture_and_trace_are_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, trace = tmp_path / "s.svg", tmp_path / "t.json"
    code, _, _ = run(capsys, "schedule", "1f1b,zb-v", *SHAPE, "--svg", str(picture), "--trace", str(trace))
    assert code == 0
    root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 4 * 8 * 2 + 8 * 8 * 3
    assert titles[0].startswith("rank 0: 0F0 (forward, stage 0, microbatch 0) 0 to 1")
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    cells = [event for event in events if event["ph"] == "X"]
    assert len(cells) == len(titles)
    assert {event["pid"] for event in cells} == {0, 1}
    arrows = [event for event in events if event["ph"] == "s"]
    # 1f1b crosses 3 boundaries both ways, zb-v 7 less the turn.
    assert len(arrows) == 8 * 2 * 3 + 8 * 2 * 6


def test_a_file_is_checked_shown_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = run(capsys, "schedule", "zb-v", *SHAPE, "--csv")
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    code, out, _ = run(capsys, "check", str(path))
    assert code == 0 and "proved: 4 ranks, 8 stages, 8 microbatches, 192 actions" in out
    assert data(capsys, "schedule", str(path))["cycle"] == 48.0 / 2
    path.write_text(text.replace("0F1,", "0F0,", 1), encoding="utf-8")
    code, out, err = run(capsys, "check", str(path))
    assert (code, out) == (3, "")
    assert err == "cuboid: rank 0, position 1: 0F0: listed a second time [count]\n"
    code, out, _ = run(capsys, "check", str(path), "--json")
    refused = json.loads(out)
    assert code == 3 and refused["valid"] is False
    assert (refused["rule"], refused["rank"], refused["position"], refused["cell"]) == ("count", 0, 1, "0F0")
    code, _, err = run(capsys, "schedule", str(path))
    assert code == 3 and err == f"cuboid: {path}: rank 0, position 1: 0F0: listed a second time [count]\n"


def test_a_file_is_not_for_other_numbers_than_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine, and nobody else's.csv"
    path.write_text(run(capsys, "schedule", "zb-v", *SHAPE, "--csv")[1], encoding="utf-8")
    assert data(capsys, "schedule", str(path), *SHAPE, "--chunks", "2")["cycle"] == 24
    for option, number in (("--stages", "8"), ("--chunks", "1"), ("--microbatches", "4")):
        code, _, err = run(capsys, "schedule", str(path), option, number)
        assert code == 2 and f"not {number}; leave {option} out" in err


def test_auto_is_not_beaten_when_sends_block(capsys: pytest.CaptureFixture[str]) -> None:
    blocking = ["--stages", "3", "--microbatches", "5", "--comm", "0.4", "--blocking"]
    found = {
        name: data(capsys, "schedule", name, *blocking)["cycle"]
        for name in ("auto", "1f1b", "gpipe", "zb-h1")
    }
    assert found["auto"] == min(found.values())


def test_the_unit_of_time_does_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    drawn, cycles = [], []
    for unit in (1.0, 1e-12):
        times = f"F={unit},I={unit},W={unit}"
        drawn.append(run(capsys, "schedule", "zb-h1", *SHAPE, "--times", times)[1].splitlines()[5:9])
        cycles.append(data(capsys, "schedule", "auto", *SHAPE, "--times", times)["cycle"] / unit)
    assert drawn[0] == drawn[1]
    assert cycles[1] == pytest.approx(cycles[0]) == pytest.approx(24)


def test_the_memory_limit_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "schedule", "gpipe", *SHAPE, "--memory-limit", "4")
    assert code == 3 and "rank 0 holds 8 microbatches, the limit is 4" in err
    found = data(capsys, "schedule", "auto", *SHAPE, "--memory-limit", "3")
    assert max(found["peak_activations"]) <= 3.0
    assert found["cycle"] <= data(capsys, "schedule", "v-half", *SHAPE)["cycle"]


def test_frontier_and_heat_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "frontier.svg"
    words = ["schedule", "auto", "--stages", "3", "--microbatches", "4", "--frontier"]
    found = data(capsys, *words, "--svg", str(picture))
    ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    bubbles = [point["bubble_fraction"] for point in found["frontier"]]
    assert bubbles == sorted(bubbles, reverse=True)
    for family in found["families"]:
        within = [point for point in found["frontier"] if point["limit"] <= family["limit"] + 1e-9]
        assert within[-1]["bubble_fraction"] <= family["bubble_fraction"] + 1e-9
    assert run(capsys, *words)[0] == 0
    few = data(capsys, *words, "gpipe,1f1b", "--memory-limit", "3")
    assert [family["name"] for family in few["families"]] == ["1f1b"]
    assert max(point["limit"] for point in few["frontier"]) == 3.0
    cells = data(capsys, "schedule", "1f1b", *SHAPE, "--heatmap")["heatmap"]
    for cell in cells:
        p, m = cell["ranks"], cell["microbatches"]
        assert cell["bubble_fraction"] == pytest.approx((p - 1) / (m + p - 1))
    assert "27%" in run(capsys, "schedule", "1f1b", *SHAPE, "--heatmap")[1]


def test_the_heat_map_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "heat.svg"
    words = ["schedule", "1f1b,v-half", *SHAPE, "--heatmap", "--svg", str(picture)]
    cells = data(capsys, *words)["heatmap"]
    root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [
        f"{cell['schedule']}: {cell['ranks']} ranks, {cell['microbatches']} microbatches: "
        + ("impossible" if cell["bubble_fraction"] is None else f"bubble {cell['bubble_fraction']:.1%}")
        for cell in cells
    ]
    fills = {
        title.text: rect.get("fill")
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if (title := rect.find("{http://www.w3.org/2000/svg}title")) is not None
    }
    # One scale for all maps: equal bubbles have one colour, no bubble another than half of the time.
    assert fills["1f1b: 1 ranks, 8 microbatches: bubble 0.0%"] == heat(0.0)
    assert fills["1f1b: 2 ranks, 1 microbatches: bubble 50.0%"] == heat(0.5) == heat(0.9) != heat(0.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["1f1b", "--stages", "4"], "--microbatches is needed"),
        (["zbv", *SHAPE], "did you mean 'zb-v'?"),
        (["zb-v", *SHAPE, "--chunks", "3"], "use chunks = 2"),
        (["1f1b", *SHAPE, "--times", "F=1,X=2"], "--times X: unknown"),
        (["1f1b", *SHAPE, "--times", "F=-1"], "not a number of at least 0"),
        (["1f1b", *SHAPE, "--times", "F=1:2:3"], "3 values; give 1, or one for each of 4 ranks"),
        (["1f1b", *SHAPE, "--comm", "fast"], "--comm: 'fast' is not a number"),
        (["1f1b", *SHAPE, "--comm", "bytes=4"], "bytes and bandwidth"),
        (["1f1b,gpipe", *SHAPE, "--csv"], "--csv takes one schedule, not 2"),
        (["missing.csv"], "No such file"),
        ([",", *SHAPE], "which schedule?"),
        (["1f1b", *SHAPE, "--times", "F=9,I=9,W=9", "--measure"], "too long to measure"),
        (["1f1b", *SHAPE, "--times", ""], "--times '': expected something like F=1,I=1,W=1"),
        (["1f1b", *SHAPE, "--times", "F=1,F=2"], "--times F: given twice"),
        (["1f1b", *SHAPE, "--times", "F=1e308"], "'1e308' is more than 1e+15"),
        (["1f1b", *SHAPE, "--comm", "bytes=1e9,bandwidth=1e-9"], "1e+18 seconds, more than 1e+15"),
        (["auto", *SHAPE, "--memory-limit", "nan"], "--memory-limit: nan is not a number above 0"),
        (["auto", *SHAPE, "--memory-limit", "inf"], "leave it out for no limit"),
        (["1f1b", *SHAPE, "--steps", "3"], "leave --steps out, or name pipedream or pipedream-2bw"),
        (["1f1b", *SHAPE, "--measure", "--blocking"], "leave --blocking out"),
        (["1f1b", *SHAPE, "--json", "--csv"], "--json and --csv exclude each other"),
        (["1f1b", *SHAPE, "--frontier", "--heatmap"], "--frontier and --heatmap exclude"),
        (["1f1b", *SHAPE, "--heatmap", "--trace", "t.json"], "--trace and --heatmap exclude"),
        (["1f1b", *SHAPE, "--heatmap", "--times", "F=1:1:1:2"], "one value for F, I and W each"),
        (["zbv", *SHAPE, "--frontier"], "did you mean 'zb-v'?"),
        (["pipedream", *SHAPE, "--frontier"], "steps of pipedream overlap"),
        (["mine.csv", *SHAPE, "--heatmap"], "mine.csv has one; name a family"),
    ],
)
def test_a_wrong_request_is_one_message(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "schedule", *words)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize("columns", ["80", "110"])
def test_no_bar_of_the_frontier_is_cut(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["schedule", "auto", "--stages", "2", "--microbatches", "2", "--frontier"]) == 0
    shown = capsys.readouterr().out
    assert "█" in shown and "…" not in shown
