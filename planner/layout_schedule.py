"""The schedule of a layout: built by its family, or written by the user.

A plan names a file in `layout.schedule`; once resolved, it carries the actions themselves, one row a rank:

    schedule: zigzag.csv      ──►   schedule: custom
                                    actions: ["0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"]

so it no longer depends on where the file lies, and what is priced is what is run. Communication that a file
lists is proved, and then derived anew from the order of the computation.
"""

from __future__ import annotations

from pathlib import Path

from planner.layout import CUSTOM, Layout
from planner.schedules import (
    ParsedSchedule,
    Schedule,
    ScheduleRefused,
    build,
    check_parsed,
    parse_schedule,
    to_csv,
)
from profiles.errors import ConfigError, FieldError


def schedule_of(layout: Layout, *, steps: int = 1) -> Schedule:
    """Return the schedule of one pipeline of `layout`, for `steps` steps where its family overlaps them.

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
    rows = tuple(to_csv(schedule).splitlines())
    return layout.model_copy(update={"schedule": CUSTOM, "actions": rows})


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
    if schedule.microbatches != layout.microbatches:
        wanted = layout.dp * layout.microbatch * schedule.microbatches
        raise FieldError(
            ("global_batch",),
            f"{name} runs {schedule.microbatches} microbatches, the layout has {layout.microbatches}"
            f" = global_batch / (dp · microbatch); set global_batch to {wanted}",
        )
    if not schedule.flush:
        raise FieldError(
            ("schedule",),
            f"{name} updates weights within the step (U); leave the updates out, or train with pipedream or"
            " pipedream-2bw, which overlap any number of steps",
        )
