"""`cuboid bench` and `cuboid calibrate` as their users see them; measuring itself is tested apart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from launcher.cli import main
from launcher.drawing.costs_svg import costs_svg
from launcher.run_directory import create_run
from planner.costs import price
from planner.job import Job
from planner.layout import Layout
from planner.plan import Plan
from profiles.cluster import ClusterSpec, DeviceSpec, LinkSpec
from profiles.costs import CollectiveCost, CostTable, LayerCost
from profiles.documents import dump_yaml, plain, read_document
from profiles.model import ModelSpec

MODEL = ModelSpec(name="tiny <model>", layers=4, hidden=32, heads=4, vocab=256, seq_len=32)

NCCL = """\
#  Rank  0 Group  0 Pid   100 on   node-a device  0 [0x07] NVIDIA Thing
#  Rank  1 Group  0 Pid   100 on   node-a device  1 [0x0f] NVIDIA Thing
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
        1024           256     float     sum      -1    20.50    0.05    0.05      0    20.10    0.05    0.05      0
    67108864      16777216     float     sum      -1    500.0  134.22  134.22      0    498.0  134.76  134.76      0
"""  # noqa: E501 (as printed)


def cluster() -> ClusterSpec:
    device = DeviceSpec(
        name="a processor",
        vendor="cpu",
        memory_bytes=1 << 34,
        memory_bytes_per_second=1e10,
        flops_per_second={"fp32": 1e11},
        sources={"flops_per_second": "a data sheet"},
    )
    link = LinkSpec(
        name="memory", kind="shared_memory", bytes_per_second=1e9, latency_seconds=1e-4, source="a data sheet"
    )
    return ClusterSpec(device=device, devices_per_node=2, cores_per_node=2, links=(link,))


def table(factor: float = 1.0) -> CostTable:
    layers = tuple(
        LayerCost(
            component=component,
            phase=phase,
            microbatch=microbatch,
            seq_len=32,
            seconds=factor * 1e-3 * microbatch,
            spread_seconds=1e-5,
            samples=5,
            activation_bytes=4096,
        )
        for component in ("block", "embedding", "head")
        for phase in ("forward", "backward")
        for microbatch in (1, 2, 4)
    )
    messages = tuple(
        CollectiveCost(
            operation=operation,
            ranks=2,
            message_bytes=size,
            seconds=1e-4 + size / 1e9,
            spread_seconds=1e-6,
            samples=5,
        )
        for operation in ("all_reduce", "send_recv")
        for size in (4096, 1 << 20)
    )
    return CostTable(
        machine="here",
        device="a processor",
        model=MODEL,
        concurrent_ranks=2,
        matmul_flops_per_second=71e9,
        optimizer_seconds_per_parameter=1e-9,
        process_bytes=200 << 20,
        layers=layers,
        collectives=messages,
        notes=("a remark",),
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.bench.measure", lambda *args, **options: table())
    monkeypatch.setattr("planner.probe.probe", lambda **options: cluster())


def test_the_table_for_people(
    measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--model", "bytes-1m"]) == 0
    shown = capsys.readouterr()
    for text in ("tiny <model>", "block", "send_recv", "latency", "reaches 71%", "a remark"):
        assert text in shown.out
    assert "wrote costs.yaml" in shown.err


def test_what_a_message_adds_to_work_is_shown_where_it_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = tuple(
        cost.model_copy(update={"busy_seconds": None if cost.operation == "send_recv" else 3e-4})
        for cost in table().collectives
    )
    monkeypatch.setattr("planner.probe.probe", lambda **options: cluster())
    for costs, shown in ((table(), 0), (table().model_copy(update={"collectives": messages}), 2)):
        monkeypatch.setattr("planner.bench.measure", lambda *args, costs=costs, **options: costs)
        assert main(["bench", "--model", "bytes-1m", "-o", str(tmp_path / "costs.yaml")]) == 0
        out = capsys.readouterr().out
        assert ("amid work" in out) == bool(shown)
        assert out.count("300 µs") == shown


def test_one_document_for_machines(
    measured: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--model", "bytes-1m", "--json", "-o", str(tmp_path / "costs.yaml")]) == 0
    document = json.loads(capsys.readouterr().out)
    fits = {fit["operation"]: fit for fit in document.pop("fits")}
    assert fits["send_recv"]["bytes_per_second"] == pytest.approx(1e9)
    assert document.pop("comparisons")[0]["ratio"] == pytest.approx(0.71)
    assert document == plain(table())


def test_costs_of_messages_alone_leave_no_empty_chart() -> None:
    alone = table().model_copy(update={"layers": ()})
    both, messages = (ElementTree.fromstring(costs_svg(costs)) for costs in (table(), alone))
    assert float(messages.get("height", "")) == float(both.get("height", "")) / 2
    tops = [float(text.get("y", "")) for text in messages.iter("{http://www.w3.org/2000/svg}text")]
    assert max(tops) < float(messages.get("height", ""))


def test_the_picture_is_well_formed_and_names_every_line(measured: None, tmp_path: Path) -> None:
    picture = tmp_path / "costs.svg"
    words = ["bench", "--model", "bytes-1m", "--svg", str(picture), "-o", str(tmp_path / "costs.yaml")]
    assert main(words) == 0
    texts = [element.text for element in ElementTree.fromstring(picture.read_text()).iter() if element.text]
    assert "One block of tiny <model>: time over microbatch" in texts
    for name in ("forward, tp 1, fp32", "backward, tp 1, fp32", "all_reduce, 1 × 2", "send_recv, 1 × 2"):
        assert name in texts
    circles = picture.read_text().count("<circle")
    assert circles == 6 + 4


def test_collectives_of_nccl_tests_replace_those_of_the_same_shape(
    measured: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, text = tmp_path / "costs.yaml", tmp_path / "all_reduce_perf.txt"
    text.write_text(NCCL)
    output.write_text(dump_yaml(plain(table())))
    assert main(["bench", "--model", "bytes-1m", "--import", str(text), "-o", str(output)]) == 0
    costs = read_document(output).read(CostTable)
    sizes = {(c.operation, c.message_bytes): c.seconds for c in costs.collectives}
    assert sizes["all_reduce", 67108864] == pytest.approx(500e-6)
    assert ("all_reduce", 4096) not in sizes
    assert ("send_recv", 4096) in sizes
    assert costs.layers == table().layers
    text.write_text("nothing of the kind")
    assert main(["bench", "--model", "bytes-1m", "--import", str(text), "-o", str(output)]) == 2
    assert "all_reduce_perf.txt" in capsys.readouterr().err


def test_a_new_table_of_nccl_tests_is_of_the_machine_that_the_text_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be imported on a laptop, whose own rates are no yardstick."""
    output, text = tmp_path / "costs.yaml", tmp_path / "all_reduce_perf.txt"
    text.write_text(NCCL)
    words = ["bench", "--model", "bytes-1m", "--import", str(text), "-o", str(output)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "reaches" not in shown
    assert "±" not in shown
    costs = read_document(output).read(CostTable)
    assert (costs.machine, costs.device) == ("node-a", "NVIDIA Thing")
    assert main([*words, "--cluster", "dgx-h100"]) == 0
    assert "of 450 GB/s (nvlink4" in capsys.readouterr().out


def test_an_interrupted_bench_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "costs.yaml"

    def measure(*args: object, **options: object) -> CostTable:
        output.write_text("a part")
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.bench.measure", measure)
    monkeypatch.setattr("planner.probe.probe", lambda **options: cluster())
    assert main(["bench", "--model", "bytes-1m", "-o", str(output)]) == 130
    assert "holds what was measured" in capsys.readouterr().err


def test_a_precision_that_does_not_exist(measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "bytes-1m", "--precision", "fp7"]) == 2
    assert "fp32" in capsys.readouterr().err


def make_runs(folder: Path, truth: CostTable) -> list[str]:
    paths = []
    for microbatch in (1, 2, 4):
        layout = Layout(dp=2, microbatch=microbatch, global_batch=8, precision="fp32")
        plan = Plan(model=MODEL, cluster=cluster(), layout=layout)
        record = price(MODEL, cluster(), layout, costs=truth)
        files = {"costs.yaml": dump_yaml(plain(table())), "record.json": record.model_dump_json()}
        run = create_run(folder, Job(name=f"mb{microbatch}", plan=plan), files=files)
        paths.append(str(run.path))
    return paths


def test_calibrate_shows_by_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_runs(tmp_path, table(1.5))
    output = tmp_path / "costs.yaml"
    assert main(["calibrate", *runs, "-o", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["calibration"]["error_before"] > 0.2
    assert document["calibration"]["error_held_out"] < 0.05
    assert [row["name"] for row in document["runs"]] == runs
    costs = read_document(output).read(CostTable)
    assert costs.calibration is not None
    assert costs.calibration.factors["compute"] == pytest.approx(1.5, rel=0.05)
    # A second time: the output is where it starts from, and nothing is left to mend.
    assert main(["calibrate", *runs, "-o", str(output)]) == 0
    assert "not seen" in capsys.readouterr().out
    again = read_document(output).read(CostTable)
    assert again.calibration is not None
    assert again.calibration.error_before < 0.02


def test_a_run_that_is_named_twice_is_not_held_out_from_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run, *_) = make_runs(tmp_path, table(1.5))
    assert main(["calibrate", run, f"{run}/../{Path(run).name}", "-o", str(tmp_path / "costs.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "with a second run it can be told" in shown


def test_calibrate_needs_costs_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = make_runs(tmp_path, table())
    (Path(run) / "costs.yaml").unlink()
    assert main(["calibrate", run, "-o", str(tmp_path / "none.yaml")]) == 2
    assert "cuboid bench" in capsys.readouterr().err
    (Path(run) / "record.json").unlink()
    (Path(run) / "costs.yaml").write_text(dump_yaml(plain(table())))
    assert main(["calibrate", run, "-o", str(tmp_path / "none.yaml")]) == 2
    assert "record.json" in capsys.readouterr().err
    assert not (tmp_path / "none.yaml").exists()


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(
    measured: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "absent" / "costs.yaml"
    assert main(["bench", "--model", "bytes-1m", "-o", str(output)]) == 2
    assert f"there is no folder {output.parent}" in capsys.readouterr().err
