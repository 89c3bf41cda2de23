"""Schedules as text: our JSON, and the CSV that torch.distributed.pipelining reads and writes.

JSON, as `cuboid schedule --json` prints it: `microbatches`, and `actions` with `rank`, `action` (one letter),
`stage`, `microbatch`, in each rank's order. `start` and `end`, when given, must be possible times.

CSV: one row per rank, one cell per action (`3F0` is stage 3, forward, microbatch 0); empty cells are waits.
Rows with communication (`3SEND_F0`, `4RECV_F0`, `3REDUCE_GRAD`) are lowered schedules. Beyond torch's form,
`3U0` is an optimizer step of stage 3, and `3F8@1` a forward with the weights that have seen one.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planner.schedules.action import Action, Kind, Schedule
from planner.schedules.lower import LoweredAction, LoweredSchedule, message_of
from planner.schedules.timeline import Timeline
from planner.schedules.versions import forward_versions, weight_versions
from profiles.documents import Record, validate
from profiles.errors import ConfigError, FieldError

_CELL = re.compile(
    r"([0-9]{1,9})(SEND_F|RECV_F|SEND_B|RECV_B|REDUCE_GRAD|UNSHARD|RESHARD|REDUCE|[FBIWU])([0-9]{0,9})"
    r"(?:(?<=[0-9])@([0-9]{1,9}))?"
)
_MOST = 100_000  # ranks, stages or microbatches: more is a slip, and would only fill the memory
_SHARDING = ("UNSHARD", "RESHARD")  # torch's FSDP hooks: nothing to prove about them


@dataclass(frozen=True, kw_only=True)
class ParsedSchedule:
    """What a file held: the schedule, and its own communication and times where it gave any."""

    schedule: Schedule
    lowered: LoweredSchedule | None = None
    timeline: Timeline | None = None


class _Cell(Record):
    rank: int
    action: str
    stage: int
    microbatch: int = -1
    start: float | None = None
    end: float | None = None
    version: int | None = None


def to_data(timeline: Timeline) -> dict[str, Any]:
    """Return the timeline as the plain data of `cuboid schedule --json`."""
    schedule = timeline.schedule
    versions = forward_versions(schedule)
    actions = []
    for rank, cells in enumerate(schedule.actions):
        for (kind, stage, microbatch), start, end in zip(
            cells, timeline.starts[rank], timeline.ends[rank], strict=True
        ):
            cell = {
                "rank": rank,
                "action": kind.name,
                "stage": stage,
                "microbatch": microbatch,
                "start": _round(start),
                "end": _round(end),
            }
            if versions and kind == Kind.F:
                cell["version"] = versions[stage][microbatch]
            actions.append(cell)
    return {
        "name": schedule.name,
        "ranks": schedule.ranks,
        "stages": schedule.stages,
        "chunks": schedule.chunks,
        "microbatches": schedule.microbatches,
        "placement": list(schedule.placement),
        "flush": schedule.flush,
        "weight_versions": list(weight_versions(schedule)),
        "makespan": _round(timeline.makespan),
        "cycle": _round(timeline.cycle),
        "bubble_fraction": _round(timeline.bubble_fraction),
        "peak_activations": list(timeline.peak_activations),
        "busy": list(map(_round, timeline.busy)),
        "wait": list(map(_round, timeline.wait)),
        "idle": list(map(_round, timeline.idle)),
        "actions": actions,
    }


def _round(value: float) -> float:
    """Drop the digits that are only rounding: thirds of a chunk should sum to one."""
    return float(f"{value:.12g}")


def to_csv(schedule: Schedule) -> str:
    """Return the schedule in torch's compute-only CSV form, one row per rank.

    Forwards name the version of their weights where that is not simply the newest.
    """
    versions = schedule.forward_versions
    if not versions:
        return "".join(",".join(map(str, actions)) + "\n" for actions in schedule.actions)
    return "".join(
        ",".join(
            f"{cell}@{versions[cell.stage][cell.microbatch]}" if cell.kind == Kind.F else str(cell)
            for cell in row
        )
        + "\n"
        for row in schedule.actions
    )


def lowered_to_csv(lowered: LoweredSchedule) -> str:
    """Return a lowered schedule in torch's CSV form with communication."""
    return "".join(
        ",".join(str(action).replace("REDUCE", "REDUCE_GRAD") for action in actions) + "\n"
        for actions in lowered.actions
    )


def parse_schedule(text: str, *, name: str = "<schedule>") -> ParsedSchedule:
    """Read a schedule in either form; it is not yet proved.

    Raises:
        ConfigError: when the text is neither, naming the place.
    """
    text = text.removeprefix("\ufeff")  # as spreadsheets write it
    return _parse_json(text, name) if text.lstrip().startswith("{") else _parse_csv(text, name)


def _parse_csv(text: str, name: str) -> ParsedSchedule:
    rows: list[list[LoweredAction]] = []
    versions: dict[tuple[int, int], int] = {}
    for line, row in enumerate(_csv_rows(text, name), start=1):
        actions: list[LoweredAction] = []
        for column, raw in enumerate(row, start=1):
            where = f"{name}:{line}: cell {column}"
            # A pair that torch overlaps, "(0F1;1B0)OVERLAP_F_B", runs in the order given.
            parts = raw.strip().removesuffix("OVERLAP_F_B").strip("()").split(";")
            for action, version in (cell for part in parts for cell in _parse_cell(part.strip(), where)):
                actions.append(action)
                if version is not None:
                    versions[action.stage, action.microbatch] = version
        rows.append(actions)
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise ConfigError(f"{name}: empty; expected one row of cells like 0F0,0B0 per rank")
    compute = [[action.action for action in row if action.kind.is_compute] for row in rows]
    schedule = _with_versions(_schedule(name, compute, None), versions)
    # torch lists REDUCE_GRAD also where it lists no messages: those then follow from the computation.
    if all(action.kind.is_compute or action.kind == Kind.REDUCE for row in rows for action in row):
        return ParsedSchedule(schedule=schedule)
    lists = tuple(
        tuple(
            message_of(schedule, action, rank=rank, position=position) for position, action in enumerate(row)
        )
        for rank, row in enumerate(rows)
    )
    return ParsedSchedule(schedule=schedule, lowered=LoweredSchedule(schedule=schedule, actions=lists))


def _csv_rows(text: str, name: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text))
    try:
        yield from reader
    except csv.Error as error:
        raise ConfigError(f"{name}:{reader.line_num}: not CSV: {error}") from None


def _parse_cell(text: str, where: str) -> list[tuple[LoweredAction, int | None]]:
    """Return the action of a cell, with the version of weights it names; nothing for a wait."""
    if not text:
        return []
    match = _CELL.fullmatch(text)
    if not match:
        raise ConfigError(
            f"{where}: '{text[:40]}' is not an action;"
            " expected stage, kind, microbatch, as in 0F0 or 3SEND_B1"
        )
    stage, kind, microbatch, version = match.groups()
    if version is not None and kind != "F":
        raise ConfigError(f"{where}: '{text}': only a forward names its version; a backward uses the same")
    if kind in _SHARDING:
        return []
    if not microbatch and not kind.startswith("REDUCE"):
        raise ConfigError(f"{where}: '{text}' names no microbatch; expected for example {stage}{kind}0")
    name = "REDUCE" if kind == "REDUCE_GRAD" else kind
    action = LoweredAction(Kind[name], int(stage), int(microbatch or -1))
    return [(action, None if version is None else int(version))]


def _parse_json(text: str, name: str) -> ParsedSchedule:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise ConfigError(f"{name}: not a schedule: a number too long, or nested too deeply") from None
    several = data.get("schedules") if isinstance(data, dict) else None
    if isinstance(several, list):
        raise ConfigError(f"{name}: holds {len(several)} schedules, expected one; print each to its own file")
    if not isinstance(data, dict) or not isinstance(data.get("actions"), list):
        raise ConfigError(f"{name}: no list 'actions'; expected what `cuboid schedule --json` prints")
    cells = [_read_cell(raw, index, name) for index, raw in enumerate(data["actions"])]
    if not cells:
        raise ConfigError(f"{name}: 'actions' is empty; expected what `cuboid schedule --json` prints")
    ranks = _count(data, "ranks", [cell.rank for cell in cells], name)
    rows: list[list[Action]] = [[] for _ in range(ranks)]
    for index, cell in enumerate(cells):
        if not 0 <= cell.rank < ranks:
            raise ConfigError(f"{name}: actions[{index}].rank: {cell.rank}, of ranks 0 to {ranks - 1}")
        rows[cell.rank].append(Action(Kind[cell.action], cell.stage, cell.microbatch))
    versions = {
        (cell.stage, cell.microbatch): cell.version
        for cell in cells
        if cell.action == "F" and cell.version is not None
    }
    schedule = _with_versions(_schedule(name, rows, data), versions)
    return ParsedSchedule(schedule=schedule, timeline=_times(schedule, cells))


def _read_cell(raw: Any, index: int, name: str) -> _Cell:
    try:
        cell = validate(_Cell, raw)
    except FieldError as error:
        raise ConfigError(f"{name}: actions[{index}]: {error}") from None
    if cell.action not in Kind.__members__ or not Kind[cell.action].is_compute:
        raise ConfigError(f"{name}: actions[{index}].action: '{cell.action}'; use F, B, I, W or U")
    return cell


def _count(data: dict[str, Any], key: str, used: Iterable[int], name: str) -> int:
    """Return how many ranks, stages or microbatches there are: as given, or up to the highest used."""
    value = data.get(key, max(0, *used) + 1)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ConfigError(f"{name}: {key}: must be a whole number from 1 to {_MOST}, not {json.dumps(value)}")
    return value


def _schedule(name: str, rows: Sequence[Sequence[Action]], data: dict[str, Any] | None) -> Schedule:
    """Build the schedule; whatever `data` leaves out follows from the cells."""
    data = data or {}
    cells = [action for row in rows for action in row]
    stages = _count(data, "stages", [0, *(action.stage for action in cells)], name)
    microbatches = _count(data, "microbatches", [0, *(action.microbatch for action in cells)], name)
    placement = data.get("placement")
    if placement is None:
        placement = _infer_placement(rows, stages)
    elif (
        not isinstance(placement, list)
        or len(placement) != stages
        or not all(type(r) is int for r in placement)
    ):
        raise ConfigError(f"{name}: placement: must list the rank of each of the {stages} stages")
    updates = any(action.kind == Kind.U for action in cells)
    return Schedule(
        name=str(data.get("name", name)),
        microbatches=microbatches,
        placement=tuple(placement),
        actions=tuple(map(tuple, rows)),
        flush=not updates,
    )


def _with_versions(schedule: Schedule, versions: Mapping[tuple[int, int], int]) -> Schedule:
    """Add the weight versions (stage, microbatch → version) that the forwards name, if they all do."""
    stages, microbatches = schedule.stages, schedule.microbatches
    # No table of all of them before they are known to be named: there may be far fewer cells than claimed.
    if schedule.flush or len(versions) < stages * microbatches:
        return schedule
    try:
        rows = tuple(
            tuple(versions[stage, microbatch] for microbatch in range(microbatches))
            for stage in range(stages)
        )
    except KeyError:
        return schedule  # some name a stage or microbatch that there is not: the proof finds them
    return replace(schedule, forward_versions=rows)


def _infer_placement(rows: Sequence[Sequence[Action]], stages: int) -> list[int]:
    """Put every stage on the rank that lists most of its cells, so that a stray cell is found as such."""
    votes: list[Counter[int]] = [Counter() for _ in range(stages)]
    for rank, row in enumerate(rows):
        for action in row:
            if 0 <= action.stage < stages:
                votes[action.stage][rank] += 1
    return [vote.most_common(1)[0][0] if vote else 0 for vote in votes]


def _times(schedule: Schedule, cells: Sequence[_Cell]) -> Timeline | None:
    if not cells or any(cell.start is None or cell.end is None for cell in cells):
        return None
    starts: tuple[list[float], ...] = tuple([] for _ in schedule.actions)
    ends: tuple[list[float], ...] = tuple([] for _ in schedule.actions)
    for cell in cells:
        starts[cell.rank].append(cell.start or 0.0)
        ends[cell.rank].append(cell.end or 0.0)
    return Timeline(schedule=schedule, starts=starts, ends=ends)
