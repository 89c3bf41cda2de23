"""A real SLURM on this machine, and jobs for it.

Nodes are namespaces of this machine (see the head of `mini-cluster`); the tests skip, with the reason, where
that script or the right to install Debian's packages is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from launcher.run_directory import RunDirectory, create_run, read_json_lines
from launcher.slurm import prepare, submit
from launcher.slurm.client import job_info
from planner.job import CheckpointSpec, Job
from planner.plan import Plan, plan_from_data
from profiles.documents import plain
from profiles.site import SlurmOptions

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT.parent / "shared" / "slurm" / "mini-cluster"
PACKAGES = {"sbatch": "slurm-wlm", "munged": "munge", "ip": "iproute2", "shellcheck": "shellcheck"}
HELPFUL = ("bubblewrap",)  # tests do without it
NODES = 11
TINY = {
    "layers": 4,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 4,
    "ffn_hidden": 64,
    "gated_mlp": False,
    "vocab": 256,
    "seq_len": 32,
    "tied_embeddings": True,
    "position": "learned",
    "norm": "layernorm",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of faults take a `turn`: how often each runs."""
    if "turn" in metafunc.fixturenames:
        rounds = int(os.environ.get("CUBOID_FAULT_ROUNDS", "1"))
        metafunc.parametrize("turn", range(rounds), scope="module")


@pytest.fixture
def within(record_property: Any) -> Callable[[str, float, float], None]:
    """Check what a fault took against its stated limit, and put it into the report."""

    def check(what: str, seconds: float, limit_seconds: float) -> None:
        record_property("seconds", seconds)
        record_property("limit_seconds", limit_seconds)
        assert seconds <= limit_seconds, f"{what} took {seconds:.1f} s, the limit is {limit_seconds:.0f} s"

    return check


def missing_packages() -> list[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [package for command, package in PACKAGES.items() if shutil.which(command, path=path) is None]


@pytest.fixture(scope="session")
def debian_packages() -> None:
    """Installs SLURM, munge, iproute2 and ShellCheck where that is possible."""
    missing = missing_packages()
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [
            "apt-get",
            "-qq",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=120",
            "install",
            "--no-install-recommends",
        ]
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False, timeout=600)
        subprocess.run(
            [*install, *missing, *HELPFUL], env=environment, capture_output=True, check=False, timeout=600
        )
        missing = missing_packages()
    if missing:
        pytest.skip(f"needs the Debian packages {', '.join(missing)}, and root to install them")


@dataclass
class Cluster:
    """The verbs of the mini-cluster, and what tests do with jobs on it."""

    folder: Path
    path: str
    jobs: list[str] = field(default_factory=list)

    def verb(self, *words: str, check: bool = True) -> str:
        command = [str(SCRIPT), "--dir", str(self.folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def on(self, host: str, *words: str, check: bool = True) -> str:
        return self.verb("exec", host, *words, check=check)

    def processes(self, host: str, pattern: str) -> list[int]:
        """Ids, in the host's own process table, of the processes whose command line matches."""
        return [int(pid) for pid in self.on(host, "pgrep", "-f", pattern, check=False).split()]

    def launch(self, run: RunDirectory, **options: Any) -> tuple[str, ...]:
        options.setdefault("time_limit", "10:00")
        options.setdefault("exclusive", False)
        options.setdefault("preflight", "off")
        submission = prepare(run.job(), run.path, options=SlurmOptions(**options))
        jobs = submit(submission)
        self.jobs += jobs
        return jobs

    @property
    def hosts(self) -> set[str]:
        """Names of all nodes."""
        return {f"n{number}" for number in range(1, NODES + 1)}

    def ended(self, job: str) -> float:
        """When a job ended, in seconds since the epoch."""
        info = job_info(job)
        assert info
        return datetime.fromisoformat(info.fields["EndTime"]).timestamp()

    def state(self, job: str) -> str:
        info = job_info(job)
        return info.state if info else "UNKNOWN"

    def wait(self, until: Callable[[], Any], seconds: float, what: str = "") -> Any:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            value = until()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.verb('status', check=False)}")

    def settle(self, run: RunDirectory, seconds: float = 60.0) -> str:
        """Wait until the run has a verdict, and return it."""
        path = run.path / "launch" / "verdict"
        return self.wait(lambda: path.exists() and path.read_text().strip(), seconds, f"verdict\n{tail(run)}")


def tail(run: RunDirectory) -> str:
    texts = [
        f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(run.logs.glob("*.log"))
    ]
    return "\n".join(texts)


def attempts(run: RunDirectory, event: str = "end") -> list[dict[str, Any]]:
    return [
        line for line in read_json_lines(run.path / "launch" / "attempts.jsonl") if line["event"] == event
    ]


@pytest.fixture(scope="session")
def cluster_process(debian_packages: None) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("the nodes of the mini-cluster are namespaces, which need root")
    if not SCRIPT.exists():
        pytest.skip(f"{SCRIPT} is not here")
    folder = Path(tempfile.mkdtemp(prefix="cuboid-mc-"))
    folder.chmod(0o755)
    cluster = Cluster(folder=folder, path=os.environ["PATH"])
    # What a test mounts below `disks` later is seen by every node.
    (folder / "disks").mkdir()
    subprocess.run(["mount", "--bind", str(folder / "disks"), str(folder / "disks")], check=True)
    subprocess.run(["mount", "--make-shared", str(folder / "disks")], check=True)
    try:
        cluster.verb("up", str(NODES), "--cpus", "16", "--gpus", "0")
        yield cluster
    finally:
        cluster.verb("down", check=False)
        subprocess.run(["umount", "-l", str(folder / "disks")], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def in_use(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster for some tests: every node up, and no job left in it afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.folder / "run" / "slurm.conf"))
        patch.setenv("PATH", f"{cluster.folder}/run/bin:{os.environ['PATH']}")
        yield cluster
        if cluster.jobs:
            subprocess.run(["scancel", "--quiet", *cluster.jobs], check=False)
        idle = ["squeue", "--noheader"]
        cluster.wait(
            lambda: not subprocess.run(idle, capture_output=True, check=True).stdout.strip(),
            30,
            "an empty queue",
        )
        cluster.jobs.clear()


@pytest.fixture
def cluster(cluster_process: Cluster) -> Iterator[Cluster]:
    """The cluster for one test."""
    with in_use(cluster_process) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_cluster(cluster_process: Cluster) -> Iterator[Cluster]:
    """The cluster for all tests of a module, whose jobs run at the same time."""
    with in_use(cluster_process) as cluster:
        yield cluster


def small_plan(*, nodes: int = 2, devices_per_node: int = 2, **layout: Any) -> Plan:
    cluster = {
        "name": "mini",
        "device": {
            "name": "cpu",
            "vendor": "cpu",
            "memory_bytes": 1 << 30,
            "memory_bytes_per_second": 1e10,
            "flops_per_second": {"fp32": 1e10},
        },
        "devices_per_node": devices_per_node,
        "nodes": nodes,
        "cores_per_node": 2,
        "links": [
            {
                "name": "memory",
                "kind": "shared_memory",
                "span": devices_per_node,
                "bytes_per_second": 1e9,
                "latency_seconds": 1e-5,
            },
            {"name": "wire", "kind": "ethernet", "bytes_per_second": 1e9, "latency_seconds": 1e-5},
        ],
    }
    layout = {"tp": devices_per_node, "pp": nodes, "global_batch": 4, "precision": "fp32", **layout}
    data = {"kind": "plan", "model": {"preset": "bytes-1m"}, "cluster": cluster, "layout": layout}
    return plan_from_data(data, Path())


@dataclass(frozen=True)
class Runs:
    """Makes run directories; `stand_in` replaces the trainer by one without torch."""

    root: Path
    stand_in_path: Path

    def below(self, name: str) -> Runs:
        """The same in a folder of its own."""
        return Runs(root=self.root / name, stand_in_path=self.stand_in_path)

    def plan(self, **changes: Any) -> Plan:
        """A plan for the nodes of the mini-cluster."""
        return small_plan(**changes)

    def tiny_plan(self, **changes: Any) -> Plan:
        """A plan that the real trainer runs in a few milliseconds a step."""
        return plan_from_data({**plain(small_plan(**changes)), "model": TINY}, Path())

    def gpu_plan(self, *, nodes: int = 2, **layout: Any) -> Plan:
        """A plan for nodes with eight devices, which no test here has."""
        layout = {"tp": 8, "pp": nodes, "global_batch": 16, "microbatch": 1, **layout}
        model, cluster = {"preset": "llama3.1-8b"}, {"preset": "dgx-h100", "nodes": nodes}
        return plan_from_data({"kind": "plan", "model": model, "cluster": cluster, "layout": layout}, Path())

    def create(
        self,
        name: str = "run",
        *,
        plan: Plan | None = None,
        steps: int = 5,
        every: int | None = None,
        stand_in: bool = True,
        environment: dict[str, str] | None = None,
        root: Path | None = None,
        **job: Any,
    ) -> RunDirectory:
        variables = dict(environment or {})
        if stand_in:
            variables["PYTHONPATH"] = str(self.stand_in_path)
        return create_run(
            root or self.root,
            Job(
                name=name,
                plan=plan or small_plan(),
                steps=steps,
                checkpoint=CheckpointSpec(every_steps=every),
                environment=variables,
                **job,
            ),
        )


def runs_in(folder: Path) -> Runs:
    package = folder / "stand-in" / "runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copy(Path(__file__).with_name("stand_in_train.py"), package / "train.py")
    folder.chmod(0o755)
    return Runs(root=folder / "runs", stand_in_path=package.parent)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return runs_in(tmp_path)


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return runs_in(tmp_path_factory.mktemp("shared"))
