"""Every node of an allocation in one step: the command, what comes home in pieces, and a real SLURM."""

from __future__ import annotations

import base64
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest

from launcher.probe_node import MARK, PIECE_CHARACTERS, encode
from launcher.probe_slurm import collect, probe_nodes, step_command
from planner.probe import probe
from profiles.errors import ConfigError, DependencyError, RunError
from profiles.presets import load_cluster

ROOT = Path(__file__).parents[2]
MINI_CLUSTER = ROOT.parent / "shared" / "slurm" / "mini-cluster"


@pytest.fixture(scope="module")
def cluster():
    return probe(ranks=2)


@pytest.fixture
def outside(monkeypatch):
    """Not inside a job, whatever runs these tests."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def test_one_task_on_every_node_that_may_fail_alone(outside):
    words = step_command(nodes=3, device="h100-sxm5-80gb", ranks=8, options=["--partition=main"])
    assert words[:4] == ["srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1"]
    assert {"--kill-on-bad-exit=0", "--label", "--partition=main"} <= set(words)
    assert "--overlap" not in words
    assert words[-5:] == [sys.executable, "-m", "launcher.probe_node", "--device=h100-sxm5-80gb", "--ranks=8"]


def test_inside_a_job_all_its_nodes_are_meant(outside, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "16")
    assert {"--nodes=16", "--overlap"} <= set(step_command(nodes=None, device=None, ranks=None))
    assert "--nodes=4" in step_command(nodes=4, device=None, ranks=None)


def test_outside_a_job_the_number_is_needed(outside):
    with pytest.raises(ConfigError, match="--nodes N"):
        step_command(nodes=None, device=None, ranks=None)


def test_pieces_in_any_order_come_together(cluster):
    lines = [f"{i}: {line}" for i in range(3) for line in encode(f"n{i}", cluster)]
    lines += [f"{i}: {MARK} n{i} begin" for i in range(3)]
    assert all(len(line) < PIECE_CHARACTERS + 60 for line in lines)
    random.Random(1).shuffle(lines)
    answers = collect("\n".join(["a banner of the site", *lines, "2: a warning"]))
    assert set(answers.clusters) == {"n0", "n1", "n2"}
    assert all(found == cluster for found in answers.clusters.values())
    assert answers.failed == {}


def test_lost_pieces_are_a_failed_node(cluster):
    lines = encode("n1", cluster)
    assert collect("\n".join(lines[:-1])).failed == {"n1": "the probe did not finish there"}
    assert collect(f"{MARK} n1 begin").failed == {"n1": "the probe did not finish there"}


@pytest.mark.parametrize(
    "data", [b"no zlib", zlib.compress(b"[]"), zlib.compress(b"{}"), zlib.compress(b'{"cluster": 1}')]
)
def test_answers_that_cannot_be_read_are_a_failed_node(data):
    text = f"{MARK} n1 1/1 {base64.b64encode(data).decode()}"
    assert "cannot be read" in collect(text).failed["n1"]


def test_without_slurm_it_says_so(outside, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="srun is not installed"):
        probe_nodes(nodes=2, device=None, ranks=None)


def fake_srun(tmp_path, monkeypatch, *, output, errors="", code=0):
    """An srun that says what it is told to."""
    (tmp_path / "output").write_text(output)
    (tmp_path / "errors").write_text(errors)
    script = tmp_path / "srun"
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/output\ncat {tmp_path}/errors >&2\nexit {code}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_node_that_fails_is_named(outside, cluster, tmp_path, monkeypatch):
    lines = [line for i in (1, 2) for line in encode(f"n{i}", cluster)] + [f"{MARK} n3 begin"]
    errors = "srun: error: n4: task 3: Exited with exit code 1\n"
    fake_srun(tmp_path, monkeypatch, output="\n".join(lines) + "\n", errors=errors, code=1)
    merged = probe_nodes(nodes=4, device=None, ranks=None)
    assert merged.nodes == 2
    assert merged.notes[:2] == (
        "n3 did not answer: the probe did not finish there",
        "n4 did not answer: its task failed",
    )


def test_no_answer_at_all_gives_slurms_words(outside, tmp_path, monkeypatch):
    fake_srun(
        tmp_path, monkeypatch, output="", errors="srun: error: invalid partition specified: x\n", code=1
    )
    with pytest.raises(RunError, match="invalid partition"):
        probe_nodes(nodes=2, device=None, ranks=None)


@pytest.fixture
def mini_cluster():
    """Four nodes below two switches, on a SLURM of their own."""
    if not MINI_CLUSTER.exists():
        pytest.skip(f"{MINI_CLUSTER} is not here")
    if os.geteuid() != 0 or not all(
        shutil.which(c, path="/usr/sbin:/sbin:/usr/bin:/bin") for c in ("slurmctld", "munged")
    ):
        pytest.skip("needs root and the Debian packages slurm-wlm and munge")
    # Daemons with other users run below it, which pytest's own folders do not allow.
    folder = Path(tempfile.mkdtemp(prefix="cuboid-probe-"))
    folder.chmod(0o755)
    conf = folder / "conf"
    conf.mkdir()
    (conf / "topology.conf").write_text(
        "SwitchName=leaf1 Nodes=n[1-2]\nSwitchName=leaf2 Nodes=n[3-4]\nSwitchName=spine Switches=leaf[1-2]\n"
    )
    (conf / "extra.conf").write_text("TopologyPlugin=topology/tree\n")

    def verb(*words):
        command = [str(MINI_CLUSTER), "--dir", str(folder), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    try:
        exports = verb("up", 4, "--gpus", 0, "--conf-dir", conf)
        yield verb, exports
    finally:
        verb("down")
        shutil.rmtree(folder, ignore_errors=True)


def test_odd_node_of_four_is_named_on_a_real_slurm(mini_cluster, tmp_path):
    """One node has less memory than its equals: its /proc/meminfo says so."""
    verb, exports = mini_cluster
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        8388608 kB\nMemAvailable:    8000000 kB\n")
    meminfo.chmod(0o644)
    verb("exec", "n3", "mount", "--bind", meminfo, "/proc/meminfo")
    output = tmp_path / "cluster.yaml"
    entry = "from launcher.entry import entry; entry()"
    words = f"'{sys.executable}' -c '{entry}' probe --on slurm --nodes 4 --ranks 2 -o '{output}'"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", "-c", f"{exports}\n{words}"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    cluster = load_cluster(str(output))
    assert (cluster.nodes, cluster.devices_per_node) == (4, 2)
    assert cluster.topology.hosts == ("n1", "n2", "n3", "n4")
    assert cluster.device.memory_bytes == 4 << 30  # the poorest node sets the limit
    assert {text.split(":")[0] for text in cluster.topology.odd} == {"n3"}
    assert any("host memory: 8 GiB" in text for text in cluster.topology.odd)
    assert "n3 is odd" in done.stdout
    assert [(s.name, s.hosts, s.switches) for s in cluster.topology.switches] == [
        ("leaf1", ("n1", "n2"), ()),
        ("leaf2", ("n3", "n4"), ()),
        ("spine", (), ("leaf1", "leaf2")),
    ]
