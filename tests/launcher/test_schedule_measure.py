"""`cuboid schedule --measure`: a real run of waiting stages, beside the simulation."""

import json
from pathlib import Path

import pytest

from launcher.cli import main


def test_both_cycles_are_told_and_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    trace = tmp_path / "trace.json"
    words = ["schedule", "zb-h1", "--stages", "2", "--microbatches", "3", "--times", "F=0.01,I=0.01,W=0.01"]
    assert main([*words, "--measure", "--json", "--trace", str(trace)]) == 0
    measured = json.loads(capsys.readouterr().out)["measured"][0]
    assert measured["simulated_cycle"] == pytest.approx(0.1)
    # Waiting cannot end early, whatever else the machine does.
    assert measured["cycle"] >= measured["simulated_cycle"] * 0.999
    for rank in measured["ranks"]:
        assert rank["busy"] >= 0.09 * 0.999
        assert rank["busy"] + rank["wait"] >= rank["simulated_span"] * 0.999
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {0: "zb-h1", 1: "zb-h1, measured"}
    cells = [sorted(e["name"] for e in events if e["ph"] == "X" and e["pid"] == pid) for pid in (0, 1)]
    assert cells[0] == cells[1]
