"""What the options of `cuboid schedule` mean: times, communication, names and files."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.schedules import ParsedSchedule, StageTimes, parse_schedule
from profiles.errors import ConfigError

_KINDS = ("F", "I", "W", "B", "U")
_MOST = 1e15  # sums of so many seconds, or bytes, still fit a float with room to spare


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Times as given: per kind, one value for all ranks, or one per rank, or one per stage.

    Values per rank are for all of its stages together. `latency` and `wire` are seconds of one transfer.
    """

    kinds: dict[str, tuple[float, ...]]
    latency: float = 0.0
    wire: float = 0.0

    def of(self, placement: Sequence[int]) -> StageTimes:
        """Return the times of every stage of `placement`.

        Raises:
            ConfigError: when there is neither one value, nor one per rank, nor one per stage.
        """
        rows = {kind: self._row(kind, placement) for kind in _KINDS if kind in self.kinds}
        return StageTimes(
            forward=rows["F"],
            input_gradient=rows["I"],
            weight_gradient=rows["W"],
            backward=rows.get("B", ()),
            update=rows.get("U", ()),
            latency=self.latency,
            wire=(self.wire,) * (len(placement) - 1),
        )

    def chunks(self, ranks: int) -> int | None:
        """Return the stages per rank that lists of times imply; None where all are given per rank."""
        counts = {len(values) for values in self.kinds.values()} - {1, ranks}
        return max(counts) // ranks if counts and max(counts) % ranks == 0 else None

    def _row(self, kind: str, placement: Sequence[int]) -> tuple[float, ...]:
        values = self.kinds[kind]
        ranks = max(placement) + 1
        if len(values) == len(placement) and len(placement) != ranks:
            return values
        if len(values) not in (1, ranks):
            stages = f" or {len(placement)} (stages)" if len(placement) != ranks else ""
            raise ConfigError(
                f"--times {kind}: {len(values)} values; give 1, or one for each of {ranks} ranks{stages}"
            )
        return tuple(values[rank if len(values) > 1 else 0] / placement.count(rank) for rank in placement)


def parse_durations(times: str, comm: str) -> Durations:
    """Read `F=1,I=1,W=1` (lists with colons: `F=1:2:1:1`) and `0.1` or `latency=…,bytes=…,bandwidth=…`.

    Raises:
        ConfigError: naming the option and what it takes.
    """
    kinds: dict[str, tuple[float, ...]] = {"F": (1.0,), "I": (1.0,), "W": (1.0,)}
    for key, text in _pairs(times, "--times", "F=1,I=1,W=1").items():
        if key not in _KINDS:
            raise ConfigError(f"--times {key}: unknown; use F, I, W, and B or U where they differ")
        kinds[key] = tuple(_number(part, f"--times {key}") for part in text.split(":"))
    if "=" not in comm:
        return Durations(kinds=kinds, latency=_number(comm, "--comm"))
    given = {key: _number(text, f"--comm {key}") for key, text in _pairs(comm, "--comm", "0.1").items()}
    unknown = sorted(set(given) - {"latency", "bytes", "bandwidth"})
    if unknown:
        raise ConfigError(f"--comm {unknown[0]}: unknown; use latency, bytes and bandwidth, or one number")
    if ("bytes" in given) != ("bandwidth" in given) or given.get("bandwidth") == 0:
        raise ConfigError("--comm: bytes and bandwidth (not 0) go together")
    wire = given["bytes"] / given["bandwidth"] if "bytes" in given else 0.0
    if wire > _MOST:
        raise ConfigError(f"--comm: bytes / bandwidth are {wire:.4g} seconds, more than {_MOST:.4g}")
    return Durations(kinds=kinds, latency=given.get("latency", 0.0), wire=wire)


def _pairs(text: str, option: str, example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{option} '{part}': expected something like {example}")
        if key.strip() in pairs:
            raise ConfigError(f"{option} {key.strip()}: given twice; lists have colons, as in F=1:2:1:1")
        pairs[key.strip()] = value.strip()
    if not pairs:
        raise ConfigError(f"{option} '{text}': expected something like {example}")
    return pairs


def _number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{option}: '{text}' is not a number of at least 0")
    if value > _MOST:
        raise ConfigError(f"{option}: '{text}' is more than {_MOST:.4g}")
    return value


def parse_names(arguments: Sequence[str]) -> list[str]:
    """Return the families and files named, several in one argument with commas between them.

    Raises:
        ConfigError: when there is none.
    """
    names: list[str] = []
    for argument in arguments:
        # A file's name may contain commas.
        whole = looks_like_file(argument) and Path(argument).exists()
        names += [argument] if whole else filter(None, map(str.strip, argument.split(",")))
    if not names:
        raise ConfigError("which schedule? for example: cuboid schedule 1f1b --stages 4 --microbatches 8")
    return names


def looks_like_file(name: str) -> bool:
    """Whether the argument names a file rather than a family."""
    return name == "-" or name.endswith((".json", ".csv")) or "/" in name


def read_schedule(name: str) -> ParsedSchedule:
    """Read a schedule file; `-` is the standard input.

    Raises:
        ConfigError: when it cannot be read, or is no schedule.
    """
    if name == "-":
        return parse_schedule(sys.stdin.read(), name="<stdin>")
    try:
        return parse_schedule(Path(name).read_text(encoding="utf-8"), name=name)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not a text file (UTF-8)") from None
