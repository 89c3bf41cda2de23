"""Read the text that NVIDIA's nccl-tests print (`all_reduce_perf` and its siblings) as collective costs.

The columns are found by their names in the header, since they changed over the years (`error` became
`#wrong`, `root` was added). The out-of-place time is taken. What nccl-tests call `size` of an all-gather is
the whole gathered tensor; a cost's `message_bytes` is one rank's part of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from profiles.costs import Collective, CollectiveCost
from profiles.errors import ConfigError

_PROGRAMS: dict[str, Collective] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "sendrecv": "send_recv",
}
_PROGRAM = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|sendrecv)_perf")
_OTHER_PROGRAM = re.compile(r"\b(alltoall|broadcast|reduce|gather|scatter|hypercube)_perf")
_RANK = re.compile(r"^#\s+Rank\s+(\d+)\b(?:\s+Group\s+(\d+)\b)?")
_PLACE = re.compile(r"^#\s+Rank\s+\d+.*?\son\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(\S.*?)\s*$", re.M)
_TAG = re.compile(r"^\s*(?:\[\d+,\d+\]<std(?:out|err)>: ?|\d+:\s)")  # of mpirun --tag-output, srun --label
_ITERATIONS = re.compile(r"(?<!warmup )\biters:\s*(\d+)")
_MICROSECOND = 1e-6
_EXPECTED = "all_reduce_perf, all_gather_perf, reduce_scatter_perf, sendrecv_perf"


def parse_nccl_tests(text: str, *, name: str, operation: Collective | None = None) -> list[CollectiveCost]:
    """Return the rows of one output.

    Args:
        text: what the program printed; other lines in between (NCCL_DEBUG) are passed over.
        name: of the file, for messages.
        operation: which program it was, where neither the text nor the bandwidths tell.

    Raises:
        ConfigError: when there is no table in it, or no telling of which operation or how many ranks.
    """
    lines = [_TAG.sub("", line) for line in text.splitlines()]
    rows = _rows(lines)
    if not rows:
        raise ConfigError(f"{name}: no table of size, time and bandwidth found; is it output of nccl-tests?")
    ranks, groups, stride = _groups(lines, name)
    other = _OTHER_PROGRAM.search(f"{name}\n{text}")
    told = operation or (None if other else _operation(text, rows, ranks))
    if told is None and other:
        raise ConfigError(f"{name}: is of {other[0]}, a collective that no plan uses; expected {_EXPECTED}")
    if told is None:
        raise ConfigError(
            f"{name}: cannot tell which collective this is; name the file after its program"
            f" ({_EXPECTED}), as all_gather_perf.txt"
        )
    pairs = told == "send_recv"
    found = _ITERATIONS.search(text)
    return [
        CollectiveCost(
            operation=told,
            ranks=2 if pairs else ranks,
            groups=max(1, ranks * groups // 2) if pairs else groups,
            stride=stride,
            message_bytes=max(1, size // ranks if told == "all_gather" else size),
            seconds=microseconds * _MICROSECOND,
            spread_seconds=0.0,
            samples=max(1, int(found[1])) if found else 1,
        )
        for size, microseconds, _, _ in rows
        if size > 0 and microseconds > 0
    ]


def _groups(lines: Sequence[str], name: str) -> tuple[int, int, int]:
    """Return ranks of a group, groups at once (NCCL_TESTS_SPLIT), and how far apart the ranks of one are.

    Raises:
        ConfigError: when there are fewer than two ranks, or groups of unlike sizes.
    """
    members: dict[str, set[int]] = {}
    for line in lines:
        if match := _RANK.match(line):
            members.setdefault(match[2] or "0", set()).add(int(match[1]))
    sizes = {len(ranks) for ranks in members.values()}
    if len(sizes) > 1:
        raise ConfigError(
            f"{name}: its groups have unlike numbers of ranks: {', '.join(map(str, sorted(sizes)))}"
        )
    size = sizes.pop() if sizes else 0
    if size < 2:
        raise ConfigError(f"{name}: lists {size} ranks; the output must show at least two '# Rank' lines")
    first = sorted(next(iter(members.values())))
    return size, len(members), first[1] - first[0]


def measured_on(text: str) -> tuple[str | None, str | None]:
    """Return the host and the device that the output names first, as far as it does."""
    match = _PLACE.search("\n".join(_TAG.sub("", line) for line in text.splitlines()))
    return (match[1], match[2]) if match else (None, None)


def operation_of(name: str) -> Collective | None:
    """Return the collective whose program a file is named after, if any."""
    match = _PROGRAM.search(name)
    return _PROGRAMS[match[1]] if match else None


def _rows(lines: Sequence[str]) -> list[tuple[int, float, float, float]]:
    """(size, microseconds, algorithm bandwidth, bus bandwidth) of every row below a header."""
    columns: list[str] = []
    rows = []
    for line in lines:
        words = line.lstrip("# ").split()
        if line.startswith("#"):
            if words[:2] == ["size", "count"] and "time" in words:
                columns = words
            continue
        if not columns or len(words) < len(columns):
            continue
        try:
            values = [words[columns.index(column)] for column in ("size", "time", "algbw", "busbw")]
            rows.append((int(values[0]), float(values[1]), float(values[2]), float(values[3])))
        except ValueError:
            continue  # a line of another program in between
    return rows


def _operation(text: str, rows: Sequence[tuple[int, float, float, float]], ranks: int) -> Collective | None:
    """Take the program's name if the text has it, else what the ratio of the bandwidths allows.

    Bus over algorithm bandwidth is 2(n−1)/n for all-reduce and 1 for send/recv (nccl-tests, PERFORMANCE.md);
    (n−1)/n leaves gather and scatter open.
    """
    match = _PROGRAM.search(text)
    if match:
        return _PROGRAMS[match[1]]
    ratios = [bus / algorithm for _, _, algorithm, bus in rows if algorithm >= 1.0]
    if not ratios:
        return None
    ratio = sorted(ratios)[len(ratios) // 2]
    candidates: dict[Collective, float] = {"all_reduce": 2 * (ranks - 1) / ranks, "send_recv": 1.0}
    fitting = [name for name, expected in candidates.items() if abs(ratio / expected - 1) < 0.02]
    return fitting[0] if len(fitting) == 1 else None
