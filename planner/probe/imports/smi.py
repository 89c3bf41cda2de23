"""`nvidia-smi topo -m`: the matrix as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from planner.probe.host import format_cpu_list, parse_cpu_list
from planner.probe.identify import kind_of_nic
from planner.probe.imports.finish import finish, is_switched
from planner.probe.order import link_count
from profiles.errors import ConfigError
from profiles.topology import NodeDevice, NodeNic, NodeTopology

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CELL = re.compile(r"X|NV[1-9]\d?|C2C|PIX|PXB|PHB|NODE|SYS")
_OLD_NAMES = {"SOC": "SYS", "PSB": "PIX", "N/A": "?"}
_END_OF_NAMES = frozenset({"CPU", "NUMA", "Affinity"})
MAX_COLUMNS = 256
MOST_NAMED = 5  # unknown cells in a message
ORIGIN = "nvidia-smi topo -m"


def looks_like_smi(text: str) -> bool:
    """Tell whether a line of the text is the head of such a table."""
    return _header(_lines(text)) is not None


def _lines(text: str) -> list[str]:
    """Return the lines without colours; the marks of quotations and comments before a table are cut off."""
    lines = _ANSI.sub("", text).splitlines()
    return lines if _header(lines) else [line.lstrip("#>|") for line in lines]


def read_smi(text: str, *, name: str) -> NodeTopology:
    """Return the node that the table shows.

    Raises:
        ConfigError: when there is no table, or its rows are so short that nothing can be said.
    """
    lines = _lines(text)
    head = _header(lines)
    if head is None:
        raise ConfigError(f"{name}: no line `GPU0 GPU1 …`; save the whole output of `nvidia-smi topo -m`")
    at, columns = head
    rows: dict[str, tuple[list[str], list[str]]] = {}
    for line in lines[at + 1 :]:
        words = line.split()
        if words and words[0] in columns and words[0] not in rows:
            rows[words[0]] = (words[1 : 1 + len(columns)], _affinities(line, words, len(columns)))
    gpus = [column for column in columns if re.fullmatch(r"GPU\d+", column)]
    nics = [column for column in columns if column not in gpus]
    order = gpus + nics
    if not any(gpu in rows for gpu in gpus):
        raise ConfigError(f"{name}:{at + 1}: the table has a head and no row `{gpus[0]} …`; is it cut off?")
    cells, notes, strange = _cells(order, columns, rows)
    if strange and {cell for row in cells for cell in row} <= {"X", "?"}:
        raise ConfigError(
            f"{name}:{at + 1}: no cell of the table tells how devices are joined ({', '.join(strange)});"
            " save the output of `nvidia-smi topo -m`"
        )
    affinity = {gpu: rows[gpu][1] if gpu in rows else [] for gpu in gpus}
    numa, numa_nodes = _numa(affinity)
    if numa_nodes is None:
        notes.append("the table tells no NUMA nodes")
    legend = dict(re.findall(r"^\s*(NIC\d+):\s*(\S{1,64})\s*$", "\n".join(lines), re.M))
    node = NodeTopology(
        devices=tuple(
            NodeDevice(
                index=index,
                numa_node=numa.get(gpu),
                cpus=affinity[gpu][0] if affinity[gpu] and parse_cpu_list(affinity[gpu][0]) else None,
            )
            for index, gpu in enumerate(gpus)
        ),
        nics=tuple(
            NodeNic(name=legend.get(nic, nic), kind=kind_of_nic(legend.get(nic, nic))) for nic in nics
        ),
        matrix=cells,
        numa_nodes=numa_nodes,
        nvswitches=None,
        origins={"devices": ORIGIN, "matrix": ORIGIN, "nics": ORIGIN},
    )
    switched = is_switched(node)
    if not nics:
        notes.append("no NIC in the table; EFA and Ethernet devices never show there")
    if any(link_count(cell) for row in cells for cell in row):
        notes.append("the table does not tell the version of NVLink: the rate of a link is assumed")
    return finish(
        node.model_copy(
            update={"switched": switched, "nvswitches": None if switched else 0, "notes": tuple(notes)}
        )
    )


def _affinities(line: str, words: Sequence[str], columns: int) -> list[str]:
    """Return what follows the cells: the processors (perhaps empty) and the NUMA node, if they are told."""
    if "\t" not in line:
        return list(words[1 + columns :])
    rest = [word.strip() for word in line.strip("\n").lstrip().split("\t")][1 + columns :]
    # Newer drivers leave a field empty, older ones put an empty one between the two.
    return [*rest[:1], *[word for word in rest[1:] if word]]


def _header(lines: Sequence[str]) -> tuple[int, list[str]] | None:
    """Return the line number of the head of the table and its column names up to the affinities."""
    for at, line in enumerate(lines):
        words = line.split()
        if not words or words[0] != "GPU0":
            continue
        names: list[str] = []
        for i, word in enumerate(words):
            # The last columns are `CPU Affinity`, `NUMA Affinity` and `GPU NUMA ID`.
            if word in _END_OF_NAMES or (word == "GPU" and words[i + 1 : i + 2] == ["NUMA"]):
                break
            names.append(word)
        if len(set(names)) == len(names) <= MAX_COLUMNS and not any(_CELL.fullmatch(n) for n in names):
            return at, names
    return None


def _cells(
    order: Sequence[str], columns: Sequence[str], rows: dict[str, tuple[list[str], list[str]]]
) -> tuple[tuple[tuple[str, ...], ...], list[str], list[str]]:
    """Return the matrix in the given order, notes, and words that are no cells.

    A cell that is missing is taken from its mirror image.
    """
    notes: list[str] = []
    known: dict[tuple[str, str], str] = {}
    strange: set[str] = set()
    for row, (cells, _) in rows.items():
        for column, word in zip(columns, cells, strict=False):
            text = _OLD_NAMES.get(word, word)
            if text == "?" or not _CELL.fullmatch(text):
                strange.add(word)
                continue
            known[row, column] = text
    short = [row for row in order if row not in rows or len(rows[row][0]) < len(columns)]
    if short:
        notes.append(f"the table is cut off: no full row of {', '.join(short)}")
    if strange:
        notes.append(f"unknown cell(s): {', '.join(sorted(strange)[:MOST_NAMED])}")

    def cell(a: str, b: str) -> str:
        if a == b:
            return "X"
        found = known.get((a, b), known.get((b, a), "?"))
        return "?" if found == "X" else found

    return tuple(tuple(cell(a, b) for b in order) for a in order), notes, sorted(strange)[:MOST_NAMED]


def _numa(affinity: dict[str, list[str]]) -> tuple[dict[str, int], int | None]:
    """Return the NUMA node of every GPU and their number: as told, else one for each set of processors."""
    told: dict[str, int] = {}
    for gpu, words in affinity.items():
        numbers = [word for word in words[1:2] if re.fullmatch(r"\d{1,3}", word)]
        if numbers:
            told[gpu] = int(numbers[0])
    if told:
        return told, len(set(told.values()))
    sets = {gpu: format_cpu_list(parse_cpu_list(words[0])) for gpu, words in affinity.items() if words}
    kinds = sorted({text for text in sets.values() if text}, key=parse_cpu_list)
    if len(kinds) < 2:
        return {}, None
    return {gpu: kinds.index(text) for gpu, text in sets.items() if text}, len(kinds)
