"""`cuboid probe` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launcher.cli import main
from planner.probe import probe as probe_machine
from profiles.cluster import ClusterSpec
from profiles.documents import validate
from profiles.presets import load_cluster

SMI = """\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV4\tPIX\t0-15\t0
GPU1\tNV4\t X \tSYS\t0-15\t0
NIC0\tPIX\tSYS\t X
"""


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "topo.txt"
    path.write_text(SMI)
    return path


def run(capsys, *words):
    code = main(["probe", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_this_machine_in_a_sentence(capsys):
    code, out, _ = run(capsys, "--ranks", 3)
    assert code == 0
    cluster = probe_machine(ranks=3)
    first = out.splitlines()[0]
    assert first.startswith(f"{cluster.devices_per_node} ")
    # What could not be seen is said, whatever this machine has.
    assert all(note in out for note in cluster.notes)


def test_json_is_one_document_that_plan_reads(capsys, tmp_path):
    code, out, _ = run(capsys, "--json", "-o", tmp_path / "cluster.yaml")
    data = json.loads(out)
    assert code == 0
    assert data["summary"]
    assert validate(ClusterSpec, data) == load_cluster(str(tmp_path / "cluster.yaml"))


def test_import_shows_matrix_and_drawing(capsys, dump):
    code, out, _ = run(capsys, "--import", dump, "--device", "a100-pcie-80gb")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "2 × A100, all-to-all NVLink (4 links), one NIC for 2 GPUs: tp up to 2 inside a node"
    assert "GPU0  X     NV4   PIX" in lines
    assert any(line.startswith("┌ NUMA 0") for line in lines)
    assert "│ GPU0    ──PIX─── NIC0" in lines
    assert "NV4: 0═1" in lines


def test_snapshot_replays_through_files(capsys, tmp_path):
    assert run(capsys, "--record", tmp_path / "s.yaml", "-o", tmp_path / "a.yaml")[0] == 0
    code, _, err = run(capsys, "--import", tmp_path / "s.yaml", "-o", tmp_path / "b.yaml")
    assert (code, "wrote" in err) == (0, True)
    assert (tmp_path / "a.yaml").read_text() == (tmp_path / "b.yaml").read_text()


def test_cluster_file_reads_back(capsys, tmp_path, dump):
    run(capsys, "--import", dump, "-o", tmp_path / "a.yaml")
    code, out, _ = run(capsys, "--import", tmp_path / "a.yaml", "--json")
    assert code == 0
    assert json.loads(out)["devices_per_node"] == 2


def test_difference(capsys, tmp_path, dump):
    other = tmp_path / "other.txt"
    other.write_text(SMI.replace("NV4", "NV3"))
    code, out, _ = run(capsys, "--diff", dump, other)
    assert code == 0
    assert "GPU0–GPU1: NV4 → NV3" in out.splitlines()
    code, out, _ = run(capsys, "--diff", dump, dump)
    assert (code, out) == (0, "no difference\n")
    code, _, err = run(capsys, "--diff", dump, tmp_path / "absent")
    assert (code, err.count("\n")) == (2, 1)
    assert "absent: No such file" in err
    code, out, _ = run(capsys, "--diff", dump, other, "--json")
    assert "GPU0–GPU1: NV4 → NV3" in json.loads(out)["differences"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--import", "absent.xml"], "absent.xml: No such file"),
        (["--import", "DUMP", "--device", "h1000"], "no preset 'h1000'"),
        (["--import", "DUMP", "--on", "slurm", "--nodes", "2"], "--import reads a file"),
        (["--nodes", "2"], "need --on slurm"),
        (["--on", "slurm", "--record", "x"], "for one machine"),
        (["--root", "absent"], "no such folder"),
        (["--ranks", "0"], "--ranks"),
        (["--on", "slurm", "--nodes", "2", "--srun", "main"], "must be an option"),
        (["--on", "slurm", "--nodes", "2", "--srun", "--a=b\nc"], "must be an option"),
        (["--diff", "DUMP", "DUMP"], "--diff compares two files"),  # and writes no -o
        (["--device", "h1000"], "no preset 'h1000'"),
    ],
)
def test_wrong_words_are_one_message(capsys, tmp_path, monkeypatch, dump, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *(str(dump) if word == "DUMP" else word for word in words), "-o", "out.yaml")
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.yaml").exists()


def test_spoilt_file_has_no_traceback(tmp_path):
    path = tmp_path / "topo.xml"
    path.write_text("<system><cpu numaid='0'><pci busid='0000:01:00.0'")
    entry = "from launcher.entry import entry; entry()"
    words = [sys.executable, "-c", entry, "probe", "--import", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cuboid: {path}:1:")
    assert "Traceback" not in done.stderr


def test_torch_is_not_imported():
    code = "import sys; from launcher.cli import main; main(['probe']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
