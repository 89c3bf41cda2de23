"""The launcher of a run is found by another process, and never mistaken for one that got its id since."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.launcher_process import launcher_file, launcher_of
from launcher.run_directory import RunDirectory


def test_found_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    run = RunDirectory(path=tmp_path)
    assert launcher_of(run) is None
    with launcher_file(run):
        found = launcher_of(run)
        assert found and found.pid == os.getpid()
        path = tmp_path / "launch" / "launcher"
        path.write_text(f"{os.getpid()} 12.5\n")  # as left by a process of the same id, long ago
        assert launcher_of(run) is None
    assert not path.exists()
