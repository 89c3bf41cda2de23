"""Checkpoints by torch.distributed.checkpoint, under global names, written atomically.

checkpoints/
    .step-00000012.partial/    being written; ignored, and removed by the next save
    step-00000012/             renamed once every rank has written
        complete               step, layout and data it was saved with
    .step-00000012.unreadable/ damaged later, so that the run went on from the one before it

Parameters and optimizer state go by the names of the whole model, and tensor-parallel shares say which slice
of the whole they are; so the layout is not part of the data. Random states are kept per rank. The position in
the data is the step.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profiles.documents import write_text
from profiles.errors import ConfigError
from runtime.mesh import Mesh
from runtime.optimizer import SavedOptimizer
from runtime.pipeline import Pipeline
from runtime.tensor_parallel import ShardSpec
from runtime.watchdog import say

MARKER = "complete"
_NAME = re.compile(r"step-(\d{8,})")


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of all complete checkpoints, ascending."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(int(match[1]) for match, path in found if match and (path / MARKER).is_file())


class Checkpointer:
    """Saves and loads the state of one run; all ranks call every method together."""

    def __init__(
        self,
        folder: Path,
        *,
        mesh: Mesh,
        pipeline: Pipeline,
        optimizer: SavedOptimizer,
        keep: int,
        data: str = "",
        warn: Callable[[str], None] = say,
    ) -> None:
        self._folder = folder
        self._mesh = mesh
        self._pipeline = pipeline
        self._optimizer = optimizer
        self._keep = keep
        self._data = data
        self._warn = warn
        self._device_mesh: Any = None

    def save(self, step: int) -> None:
        """Save the state after `step` steps; the older ones beyond `keep` go once it is complete."""
        from torch.distributed.checkpoint import FileSystemWriter, save  # noqa: PLC0415 (2 s)

        target = self._path(step)
        partial = self._folder / f".{target.name}.partial"
        if self._mesh.rank == 0:
            for left in self._folder.glob(".step-*.partial"):
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
        self._agree(0)
        save(self._state(step), storage_writer=FileSystemWriter(partial))
        self._agree(0)
        if self._mesh.rank == 0:
            layout = self._mesh.layout.model_dump(mode="json")
            write_text(
                partial / MARKER, json.dumps({"step": step, "layout": layout, "data": self._data}) + "\n"
            )
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            for old in saved_steps(self._folder)[: -self._keep]:
                shutil.rmtree(self._path(old), ignore_errors=True)

    def load_last(self) -> int:
        """Load the newest checkpoint that can be read into model and optimizer; return its step, or 0.

        Raises:
            ConfigError: when there are checkpoints and none can be read, with the reason for each.
        """
        steps = saved_steps(self._folder) if self._mesh.rank == 0 else []
        reasons: list[str] = []
        for number in range(self._agree(len(steps))):
            step = self._agree(steps[-1 - number] if steps else 0)
            reason = self._try(step)
            if not reason:
                if self._mesh.rank == 0:
                    self._set_aside(steps[len(steps) - number :], reasons)
                return step
            reasons.append(reason)
        if reasons:
            raise ConfigError("no checkpoint can be read:\n  " + "\n  ".join(reasons))
        return 0

    def _try(self, step: int) -> str:
        """Load the checkpoint of `step` on all ranks; return why it cannot be, or nothing."""
        for attempt in (lambda: _marked(self._path(step)), lambda: self.load(step)):
            reason = ""
            try:
                attempt()
            except ConfigError as error:
                reason = str(error)
            if self._agree(1 if reason else 0):  # all ranks go on together, or none
                return reason or f"{self._path(step)}: another rank cannot read it"
        return ""

    def _set_aside(self, steps: Sequence[int], reasons: Sequence[str]) -> None:
        """Keep damaged checkpoints out of the way of those that will follow the one that was loaded."""
        for step, reason in zip(reversed(steps), reasons, strict=True):
            path = self._path(step)
            hidden = self._folder / f".{path.name}.unreadable"
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
            self._warn(f"{reason}; it is kept as {hidden.name}, and the run goes on from the one before")

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def load(self, step: int) -> None:
        """Load the checkpoint of `step`, in place; say so where it was trained on other data.

        Raises:
            ConfigError: when it is not there, damaged, or not of this model.
        """
        from torch.distributed.checkpoint import CheckpointException, load  # noqa: PLC0415

        from runtime.checkpoint_reader import TensorReader  # noqa: PLC0415

        path = self._path(step)
        saved = _marked(path)
        same = saved["layout"] == self._mesh.layout.model_dump(mode="json")
        state = self._state(step, random=same)
        try:
            load(state, storage_reader=TensorReader(path))
            self._optimizer.load_state_dict(self._own(state))
        except CheckpointException as error:
            causes = {rank: cause for rank, (cause, _) in error.failures.items()}
            raise ConfigError(f"{path}: {_reason(causes[min(causes)])}") from None
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(f"{path}: {_reason(error)}") from None
        if same:
            torch.set_rng_state(state[f"random.{self._mesh.rank}"])
        if self._mesh.rank == 0 and saved.get("data", self._data) != self._data:
            self._warn(
                f"data: the text is now {self._data}, {path.name} was trained on {saved['data']};"
                " the run goes on, but not as it would have on the same text"
            )

    def _agree(self, number: int) -> int:
        """Return the sum of all ranks' numbers, once all are here."""
        total = torch.tensor(number, dtype=torch.int64, device=self._mesh.device)
        self._mesh.world.all_reduce(total)
        return int(total.item())

    def _state(self, step: int, *, random: bool = True) -> dict[str, Any]:
        shards = {name: (parameter, shard) for name, parameter, shard in self._pipeline.parameters()}
        state: dict[str, Any] = {"step": torch.tensor(step)}
        for name, (parameter, shard) in shards.items():
            state[f"model.{name}"] = self._global(parameter.detach(), shard)
        for name, tensor in self._optimizer.state_dict().items():
            known = shards.get(name.partition(".")[2])
            state[f"optimizer.{name}"] = self._global(tensor, known[1]) if known else tensor
        if random:
            state[f"random.{self._mesh.rank}"] = torch.get_rng_state()
        return state

    def _global(self, local: Tensor, shard: ShardSpec) -> Any:
        """Return a tensor that says which slice of the whole it is, sharing the memory of `local`."""
        if shard.dim is None or self._mesh.tp.size == 1:
            return local
        from torch.distributed.device_mesh import DeviceMesh  # noqa: PLC0415
        from torch.distributed.tensor import DTensor, Shard  # noqa: PLC0415

        if self._device_mesh is None:
            assert self._mesh.tp.group is not None
            self._device_mesh = DeviceMesh.from_group(
                self._mesh.tp.group, self._mesh.device.type, mesh=list(self._mesh.tp.ranks)
            )
        whole = torch.empty(shard.shape, device="meta")
        return DTensor.from_local(
            local,
            self._device_mesh,
            [Shard(shard.dim)],
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )

    def _own(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the optimizer's part of a loaded state as local tensors."""
        prefix = "optimizer."
        return {
            name.removeprefix(prefix): value.to_local() if hasattr(value, "to_local") else value
            for name, value in state.items()
            if name.startswith(prefix)
        }


def _marked(path: Path) -> dict[str, Any]:
    """Return what the marker of a checkpoint says.

    Raises:
        ConfigError: when it is missing or damaged.
    """
    try:
        saved = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: not a complete checkpoint: {error.strerror}") from None
    except ValueError:
        saved = None
    if not isinstance(saved, dict) or "layout" not in saved:
        raise ConfigError(f"{path}: damaged: the file '{MARKER}' does not say what was saved")
    return saved


def _reason(cause: BaseException) -> str:
    """Say whether a checkpoint is damaged or of another model."""
    words = str(cause).strip().splitlines()
    text = f"{type(cause).__name__}{f': {words[0]}' if words else ''}"
    other = isinstance(cause, RuntimeError | KeyError | ValueError) and any(
        sign in text for sign in ("Missing key", "mismatch", "has shape", "differs in")
    )
    return f"does not hold this model ({text})" if other else f"damaged, cannot be read ({text})"
