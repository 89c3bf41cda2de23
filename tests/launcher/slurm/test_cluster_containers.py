"""Jobs in containers on a real SLURM, the container programs replaced by ones that take the documented words.

Neither enroot with pyxis nor Apptainer can be installed where these tests run. What stands in for them knows
only options that their manuals have (`srun --help` with pyxis; apptainer-exec(1)). For Apptainer, where
bubblewrap is installed, it then gives the command a root of its own, in which it sees the system, this source
tree and what is bound; otherwise, and for pyxis, it runs the command as it is, so that words, order and
quoting are under test, isolation is not.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from profiles.site import ContainerSpec

APPTAINER = """#!{python}
import argparse, os, pathlib
parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("verb", choices=["exec"])
parser.add_argument("--nv", action="store_true")
parser.add_argument("-B", "--bind", action="append", default=[])
parser.add_argument("--pwd", "--cwd")
parser.add_argument("image")
parser.add_argument("command", nargs=argparse.REMAINDER)
given = parser.parse_args()
for bind in given.bind:
    source, target, *rest = bind.split(":")
    assert pathlib.Path(source).exists() and target.startswith("/") and rest in ([], ["ro"], ["rw"]), bind
assert pathlib.Path(given.image).is_file(), given.image
os.environ["TEST_CONTAINER"] = " ".join([given.image, given.pwd, *given.bind])
inside = ["bwrap", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--chdir", given.pwd]
for folder in ("/usr", "/etc", "/sys", "/bin", "/lib", "/lib64", {base!r}, {venv!r}, {root!r}):
    if pathlib.Path(folder).is_symlink():
        inside += ["--symlink", os.readlink(folder), folder]
    elif pathlib.Path(folder).exists():
        inside += ["--ro-bind", folder, folder]
for bind in given.bind:
    source, target, *flags = bind.split(":")
    inside += ["--ro-bind" if flags == ["ro"] else "--bind", source, target]
inside += ["sh", "-c", 'test ! -e "$0" && exec "$@"', given.image]  # which is not bound
os.chdir(given.pwd)
command = [*inside, *given.command] if {isolate} else given.command
os.execvp(command[0], command)
"""
PYXIS = """#!{python}
import argparse, os
parser = argparse.ArgumentParser(allow_abbrev=False, prefix_chars="-", add_help=False)
for name in ("image", "mounts", "workdir", "name", "save", "env"):
    parser.add_argument("--container-" + name)
parser.add_argument("--no-container-mount-home", action="store_true")
given, rest = parser.parse_known_args()
assert not any(word.startswith("--container") for word in rest[: rest.index("bash")]), rest
for mount in given.container_mounts.split(","):
    source, target, *flags = mount.split(":")
    assert source.startswith("/") and target.startswith("/") and len(flags) < 2, mount
shown = [given.container_image, given.container_workdir, given.container_mounts]
os.environ["TEST_CONTAINER"] = " ".join(shown)
os.execv("/usr/bin/srun", ["srun", *rest])
"""


def with_program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of that name first in the path that a job sent from here inherits."""
    folder.mkdir()
    (folder / name).write_text(
        text.format(
            python=sys.executable,
            base=sys.base_prefix,
            venv=sys.prefix,
            root=str(Path(__file__).parents[3]),
            isolate=shutil.which("bwrap") is not None,
        )
    )
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_every_task_runs_in_the_container(cluster: Any, runs: Any, tmp_path: Path) -> None:
    image, data = tmp_path / "it's an image.sif", tmp_path / "some data"
    image.write_text("")
    data.mkdir()
    sent, mounts = {}, (f"{data}:{data}:ro", f"{runs.stand_in_path}:{runs.stand_in_path}")
    for runtime, name, text in (("apptainer", "apptainer", APPTAINER), ("pyxis", "srun", PYXIS)):
        with pytest.MonkeyPatch.context() as patch:
            with_program(tmp_path / runtime, name, text, patch)
            container = ContainerSpec(
                image=str(image),
                runtime=runtime,
                mounts=mounts,
                workdir=str(data),
                python=sys.executable,
            )
            sent[runtime] = runs.create(runtime)
            cluster.launch(sent[runtime], process_model="srun", preflight="strict", container=container)
    for runtime, run in sent.items():
        assert cluster.settle(run, 60) == "finished"
        (folder,) = (run.path / "preflight").iterdir()
        assert len(list(folder.glob("*.json"))) == 2  # one of each node
        shown = (" " if runtime == "apptainer" else ",").join([*mounts, f"{run.path}:{run.path}"])
        for rank in range(4):
            assert f"TEST_CONTAINER={image} {data} {shown}" in (run.logs / f"rank-{rank}.log").read_text()
