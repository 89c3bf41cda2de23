"""The schedule of a layout: built by its family, or written by the user.

A plan names a file in `layout.schedule`; once resolved, it carries the actions themselves, one row a rank:

    schedule: zigzag.csv      ──►   schedule: custom
                                    actions: ["0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"]

so it no longer depends on where the file lies, and what is priced is what is run. Communication that a file
lists is proved, and then derived anew from the order of the computation. A schedule with optimizer steps (U)
in it is for as many steps as it has microbatches for; they overlap, and a flush follows them.
"""

from __future__ import annotations

from pathlib import Path

from planner.layout import CUSTOM, Layout
from planner.schedules import (
    Kind,
    ParsedSchedule,
    Schedule,
    ScheduleRefused,
    build,
    check_parsed,
    parse_schedule,
    to_csv,
    updates_of,
)
from profiles.errors import ConfigError, FieldError


def schedule_of(layout: Layout, *, steps: int = 1) -> Schedule:
    """Return the schedule of one pipeline of `layout`, for `steps` steps where its family overlaps them.

    A written one is for as many steps as it was written for.

    Raises:
        ScheduleError: when the family has no schedule for these numbers.
        ConfigError: when written actions are none.
    """
    if layout.actions is not None:
        return parse_schedule("\n".join(layout.actions), name=CUSTOM).schedule
    return build(
        layout.schedule, ranks=layout.pp, microbatches=layout.microbatches, chunks=layout.chunks, steps=steps
    )


def read_schedule_file(path: Path) -> Schedule:
    """Read and prove a schedule file, our JSON or torch's CSV.

    Raises:
        ConfigError: when it cannot be read or is no schedule.
        ScheduleRefused: at the first broken rule, with rank, position and cell.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file (UTF-8)") from None
    parsed: ParsedSchedule = parse_schedule(text, name=str(path))
    try:
        check_parsed(parsed)
    except ScheduleRefused as refused:
        raise refused.of(path.name) from None
    return parsed.schedule


def names_file(schedule: str) -> bool:
    """Whether `layout.schedule` names a file rather than a family."""
    return schedule.endswith((".json", ".csv"))


def with_schedule(layout: Layout, schedule: Schedule, *, name: str) -> Layout:
    """Return `layout` with the proved `schedule`, which came from `name`.

    Raises:
        FieldError: when it is for other numbers than the layout's, at the field to change.
    """
    check_match(layout, schedule, name=name)
    return layout.model_copy(
        update={
            "schedule": CUSTOM,
            "actions": tuple(to_csv(schedule).splitlines()),
            # What flushes after every step overlaps none, whatever an asynchronous family was to do.
            "flush_every": None if schedule.flush else schedule.microbatches // layout.microbatches,
        }
    )


def check_match(layout: Layout, schedule: Schedule, *, name: str) -> None:
    """Refuse a schedule that is for other numbers than the layout's.

    Raises:
        FieldError: at the layout field to change.
    """
    if schedule.ranks != layout.pp:
        raise FieldError(
            ("pp",), f"{name} is for {schedule.ranks} pipeline ranks, the layout has pp = {layout.pp}"
        )
    if schedule.chunks != layout.chunks:
        raise FieldError(
            ("chunks",),
            f"{name} has {schedule.stages} stages, {schedule.chunks} on each rank, the layout has"
            f" chunks = {layout.chunks}; set chunks to {schedule.chunks}",
        )
    if not schedule.flush:
        _check_updates(layout, schedule, name=name)
    elif schedule.microbatches != layout.microbatches:
        wanted = layout.dp * layout.microbatch * schedule.microbatches
        raise FieldError(
            ("global_batch",),
            f"{name} runs {schedule.microbatches} microbatches, the layout has {layout.microbatches}"
            f" = global_batch / (dp · microbatch); set global_batch to {wanted}",
        )


def check_steps(layout: Layout, steps: int) -> None:
    """Refuse a number of steps that a written asynchronous schedule cannot end with.

    Raises:
        ConfigError: with the numbers that it can.
    """
    overlapped = layout.flush_every or 1
    if layout.actions is None or steps % overlapped == 0:
        return
    below, above = steps // overlapped * overlapped, -(-steps // overlapped) * overlapped
    raise ConfigError(
        f"steps: {steps} is not a multiple of {overlapped}, the steps that the written schedule overlaps;"
        f" use {f'{below} or ' if below else ''}{above}"
    )


def _check_updates(layout: Layout, schedule: Schedule, *, name: str) -> None:
    """Refuse updates that do not each take the gradients of the next so many microbatches of a step.

    Raises:
        FieldError: at the layout field to change.
    """
    steps, rest = divmod(schedule.microbatches, layout.microbatches)
    if rest:
        raise FieldError(
            ("global_batch",),
            f"{name} runs {schedule.microbatches} microbatches, which is no number of steps of"
            f" {layout.microbatches} = global_batch / (dp · microbatch); change either",
        )
    if layout.flush_every not in {None, steps}:
        raise FieldError(
            ("flush_every",), f"{name} overlaps {steps} steps before a flush; leave flush_every out"
        )
    updates = updates_of(schedule)
    if not updates or updates % steps or schedule.microbatches % updates:
        raise FieldError(
            ("schedule",),
            f"{name} updates stage 0 {updates} times in {steps} steps of {layout.microbatches} microbatches;"
            " every step must have the same number of updates (U), every update the same of microbatches",
        )
    _check_order_of_updates(schedule, schedule.microbatches // updates, name=name)


def _check_order_of_updates(schedule: Schedule, every: int, *, name: str) -> None:
    """Refuse an update of other gradients than those of the next `every` microbatches.

    Raises:
        FieldError: with the cell.
    """
    for rank, row in enumerate(schedule.actions):
        summed: dict[int, set[int]] = {stage: set() for stage in schedule.stages_of(rank)}
        done = dict.fromkeys(summed, 0)
        for position, action in enumerate(row):
            if action.kind in (Kind.B, Kind.W):
                summed[action.stage].add(action.microbatch)
            elif action.kind == Kind.U:
                first = done[action.stage] * every
                if summed[action.stage] != set(range(first, first + every)):
                    raise FieldError(
                        ("schedule",),
                        f"{name}: rank {rank}, position {position}, {action}: must take the gradients of"
                        f" microbatches {first} to {first + every - 1}, no others",
                    )
                summed[action.stage].clear()
                done[action.stage] += 1
        for stage, left in summed.items():
            if left:
                raise FieldError(
                    ("schedule",),
                    f"{name}: rank {rank}: no update (U) of stage {stage} follows microbatch {max(left)}",
                )
