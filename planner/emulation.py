"""Run a schedule on local ranks whose stages wait instead of computing, and measure its cycle.

Waiting ranks do not compete for processor cores, so that 8 or 16 of them on 2 cores behave like accelerators.
`runtime.emulate` does it, as a process; this is its request, its answer, and the one that starts it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveInt

from planner.schedules import Schedule, StageTimes, simulate, to_data
from profiles.documents import Record, read_document, write_yaml
from profiles.errors import DependencyError, RunError

LAST_LINES = 20


class EmulationRequest(Record):
    """A schedule as `cuboid schedule --json` prints it, seconds per stage, and how often to run it.

    `latency` and `wire` are those of `StageTimes`: the data of a message is held back at the receiver until
    an interconnect of that speed had delivered it.
    """

    kind: Literal["emulation"] = "emulation"
    version: Literal[1] = 1
    schedule: dict[str, Any]
    forward: tuple[NonNegativeFloat, ...]
    input_gradient: tuple[NonNegativeFloat, ...]
    weight_gradient: tuple[NonNegativeFloat, ...]
    backward: tuple[NonNegativeFloat, ...]
    update: tuple[NonNegativeFloat, ...]
    latency: NonNegativeFloat = 0.0
    wire: tuple[NonNegativeFloat, ...] = ()
    repeats: PositiveInt = 5

    @property
    def times(self) -> StageTimes:
        """The durations for the simulator."""
        return StageTimes(
            forward=self.forward,
            input_gradient=self.input_gradient,
            weight_gradient=self.weight_gradient,
            backward=self.backward,
            update=self.update,
            latency=self.latency,
            wire=self.wire,
        )


class RankCycle(Record):
    """One rank's median over the repeats, in seconds."""

    rank: int
    span: NonNegativeFloat  # first action's start to last action's end
    busy: NonNegativeFloat
    wait: NonNegativeFloat
    simulated_span: NonNegativeFloat


class EmulatedCell(Record):
    """One action of the median repeat, in seconds from its first start."""

    rank: int
    action: str
    stage: int
    microbatch: int
    start: float
    end: float


class Emulation(Record):
    """What was measured. `cycle` is the longest span of a rank; `samples` that of every repeat."""

    kind: Literal["emulated"] = "emulated"
    version: Literal[1] = 1
    schedule: str
    cycle: NonNegativeFloat
    simulated_cycle: NonNegativeFloat
    bubble_fraction: NonNegativeFloat
    simulated_bubble_fraction: NonNegativeFloat
    samples: tuple[NonNegativeFloat, ...]
    ranks: tuple[RankCycle, ...]
    actions: tuple[EmulatedCell, ...] = ()

    @property
    def error(self) -> float:
        """(measured − simulated) / simulated."""
        return (self.cycle - self.simulated_cycle) / self.simulated_cycle


def emulation_request(schedule: Schedule, times: StageTimes, *, repeats: int = 5) -> EmulationRequest:
    """Return the request that runs `schedule` with `times`."""
    return EmulationRequest(
        schedule=to_data(simulate(schedule, times)),
        forward=times.forward,
        input_gradient=times.input_gradient,
        weight_gradient=times.weight_gradient,
        backward=times.backward,
        update=times.update,
        latency=times.latency,
        wire=times.wire,
        repeats=repeats,
    )


def emulate(schedule: Schedule, times: StageTimes, *, repeats: int = 5) -> Emulation:
    """Run `schedule` on local ranks; with zero latency and wire nothing but loopback delays the messages.

    Raises:
        DependencyError: without torch.
        RunError: when a rank fails.
    """
    if find_spec("torch") is None:
        raise DependencyError("--measure needs torch; in Cuboid's folder: pip install '.[runtime]'")
    with tempfile.TemporaryDirectory(prefix="cuboid-emulate-") as folder:
        request, output = Path(folder) / "request.yaml", Path(folder) / "emulation.yaml"
        write_yaml(request, emulation_request(schedule, times, repeats=repeats))
        words = [sys.executable, "-m", "runtime.emulate", "--request", str(request), "--output", str(output)]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode or not output.exists():
            tail = "\n".join((result.stdout + result.stderr).splitlines()[-LAST_LINES:])
            raise RunError(f"the emulation of {schedule.name} failed:\n{tail}")
        return read_document(output).read(Emulation)
