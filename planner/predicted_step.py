"""The timeline that a plan predicts for a step, in the form of the measured one.

rank 0   F0 F1 ··· B0 ··· B1 ·············  optimizer      the schedule as it is priced, then the wait for
rank 1   ··· F0 B0 F1 B1  gradients ······  optimizer      the last sum of gradients, then the optimizer
"""

from __future__ import annotations

from dataclasses import replace

from planner.costs.price import Assessment, assess, cores_per_rank
from planner.costs.stages import stage_times
from planner.layout_schedule import schedule_of
from planner.plan import Plan
from planner.schedules import Cell, StepTimeline, Timeline, simulate, simulate_shared, step_cells
from profiles.costs import CostTable


def predicted_step(plan: Plan, *, costs: CostTable | None = None, steps: int = 1) -> StepTimeline:
    """Return what one step of `plan` is expected to look like, or `steps` that overlap.

    Raises:
        ConfigError: when the plan cannot be priced.
    """
    layout = plan.layout
    assessment = assess(plan.model, plan.cluster, layout, costs=costs)
    timeline = _simulated(plan, assessment, steps)
    cells = step_cells(timeline, waits=True)
    time = assessment.estimate.time
    seconds = assessment.estimate.step_seconds
    if not timeline.schedule.flush:
        seconds = max(timeline.makespan, seconds * steps)
        return StepTimeline(title="predicted", cells=tuple(cells), seconds=seconds, steps=steps)
    reduced = timeline.makespan + time.dp_comm
    ends = [max((cell.end for cell in cells if cell.rank == rank), default=0.0) for rank in range(layout.pp)]
    for rank, end in enumerate(ends):
        if reduced > end:
            cells.append(_phase(rank, "gradients", end, reduced, reduced))
        cells.append(_phase(rank, "optimizer", reduced, reduced, reduced + time.optimizer))
    return StepTimeline(title="predicted", cells=tuple(cells), seconds=max(seconds, reduced + time.optimizer))


def _simulated(plan: Plan, assessment: Assessment, steps: int) -> Timeline:
    layout = plan.layout
    schedule = schedule_of(layout, steps=steps)
    times = stage_times(layout, assessment.pieces, assessment.stages)
    if not schedule.flush:
        time = assessment.estimate.time
        update = (time.optimizer + time.dp_comm) / max(1, assessment.pipeline.updates)
        times = replace(times, update=(update,) * schedule.stages)
    cores = cores_per_rank(plan.cluster, layout)
    return simulate(schedule, times) if cores is None else simulate_shared(schedule, times, cores=cores)


def _phase(rank: int, name: str, start: float, ready: float, end: float) -> Cell:
    return Cell(rank, name, name, -1, -1, start, ready, end)
