"""A run directory: everything one run leaves behind, in one place.

runs/NAME/
    plan.yaml  job.yaml          what is run; job.yaml names plan.yaml
    schedule.csv                 the actions of a plan with a schedule of its own
    cluster.yaml  costs.yaml     what the plan was made from, where known
    launch/                      the command, the scripts and the environment it was started with;
                                 attempts.jsonl: every attempt, how it ended, and why
    logs/rank-3.log              standard output and error of each rank
    metrics.jsonl                one line a step; steps done again after a failure stand again, further down
    events.jsonl                 started, resumed, checkpoint, warning, stopped, failed, finished
    trace.json  record.json      the measured timeline of one step; what was measured, as an estimate
    checkpoints/step-00000100/
    STOP  SAVE                   create one to stop after the running step, or to save
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.estimate import Estimate
from planner.job import Job, load_job
from planner.plan import Plan, load_plan, save_plan
from profiles.documents import cannot_write, dump_yaml, plain, validate, write_text
from profiles.errors import ConfigError, FieldError

CHECKPOINT_MARKER = "complete"  # the file that a checkpoint gets last
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """One run directory that exists."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def job_path(self) -> Path:
        """The job this run executes."""
        return self.path / "job.yaml"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.path / "logs"

    @property
    def metrics_path(self) -> Path:
        """One JSON line a step."""
        return self.path / "metrics.jsonl"

    @property
    def events_path(self) -> Path:
        """One JSON line an event."""
        return self.path / "events.jsonl"

    @property
    def worker_path(self) -> Path:
        """The script that starts every rank."""
        return self.path / "launch" / "worker.sh"

    @property
    def stop_path(self) -> Path:
        """Its presence asks the run to stop after the running step."""
        return self.path / "STOP"

    def job(self) -> Job:
        """Read the job."""
        return load_job(self.job_path)

    def plan(self) -> Plan:
        """Read the plan."""
        return load_plan(self.path / "plan.yaml")

    def record(self) -> Estimate | None:
        """Return what the run measured, or None while there is no record."""
        path = self.path / "record.json"
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            fields = {key: value for key, value in data.items() if key in Estimate.model_fields}
            return validate(Estimate, fields)
        except (json.JSONDecodeError, AttributeError, FieldError) as error:
            raise ConfigError(f"{path}: not a record: {error}") from None

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of every step that was written in full, steps done again as often as done."""
        return list(read_json_lines(self.metrics_path))

    def trajectory(self) -> list[dict[str, Any]]:
        """Return the metrics of every step as it was done last, in order of the steps."""
        kept: list[dict[str, Any]] = []
        for line in self.metrics():
            while kept and kept[-1].get("step", 0) >= line.get("step", 0):
                kept.pop()
            kept.append(line)
        return kept

    def newest_checkpoint(self) -> int:
        """Return the step of the newest complete checkpoint, 0 when there is none."""
        folders = (path.parent for path in self.path.glob(f"checkpoints/step-*/{CHECKPOINT_MARKER}"))
        steps = (folder.name.removeprefix("step-") for folder in folders)
        return max((int(step) for step in steps if step.isdigit()), default=0)

    def events(self) -> list[dict[str, Any]]:
        """Return all events that were written in full."""
        return list(read_json_lines(self.events_path))


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a JSON-lines file; a last line still being written is left out."""
    yield from NewLines(path).read()


@dataclass
class NewLines:
    """The complete lines of a growing JSON-lines file, each one once."""

    path: Path
    _offset: int = field(default=0, init=False)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were completed since the last call; what is no JSON object is left out."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    value = json.loads(line.decode(errors="replace"))
                except json.JSONDecodeError:
                    continue
                if isinstance(value, dict):
                    yield value


def open_run(path: Path) -> RunDirectory:
    """Return the run directory at `path`.

    Raises:
        ConfigError: when there is no job.yaml in it.
    """
    if not (path / "job.yaml").is_file():
        raise ConfigError(f"{path}: not a run directory (it has no job.yaml)")
    return RunDirectory(path=path)


def check_name(name: str) -> str:
    """Return `name` if it can name a run.

    Raises:
        ConfigError: for anything but letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"run name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    return name


def create_run(root: Path, job: Job, *, files: Mapping[str, str] | None = None) -> RunDirectory:
    """Create `root`/`job.name` with plan.yaml and job.yaml in it, all or nothing.

    `files` are further texts to lay beside them, by name.

    Raises:
        ConfigError: when the name cannot be used or is taken.
        DependencyError: when this user may not write in the folder.
    """
    path = root / check_name(job.name)
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another --name, or continue it with --resume")
    try:
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=root, prefix=f".{job.name}."))
    except OSError as error:
        raise cannot_write(root, error) from None
    try:
        for folder in ("launch", "logs", "checkpoints"):
            (draft / folder).mkdir()
        save_plan(draft / "plan.yaml", job.plan)
        write_text(draft / "job.yaml", dump_yaml(plain(job) | {"plan": "plan.yaml"}))
        if job.plan.layout.actions is not None:
            write_text(draft / "schedule.csv", "\n".join(job.plan.layout.actions) + "\n")
        for name, text in (files or {}).items():
            write_text(draft / name, text)
        draft.chmod(0o755)
        draft.rename(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot create the run: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return RunDirectory(path=path)


def forget_ending(run: Path) -> None:
    """Forget how earlier launches of the run ended, and what it was asked to do meanwhile."""
    for name in ("verdict", "budget", "running", "jobs"):
        (run / "launch" / name).unlink(missing_ok=True)
    for switch in ("STOP", "SAVE"):
        (run / switch).unlink(missing_ok=True)


def free_name(root: Path, stem: str) -> str:
    """Return `stem`, or `stem-2`, `stem-3` … : the first that is not taken in `root`."""
    name, number = stem, 1
    while (root / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name
