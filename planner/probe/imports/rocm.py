"""`rocm-smi --showtopo`: tables of weight, hops, link type and NUMA nodes, as text or JSON."""

from __future__ import annotations

import json
import re

from planner.probe.imports.finish import finish
from planner.probe.order import xgmi_cell
from profiles.errors import ConfigError
from profiles.topology import NodeDevice, NodeTopology

_TITLE = re.compile(r"=+\s*(.*?)\s*=+\s*$")
_NUMA = re.compile(r"GPU(?:\[| )(\d{1,3})\]?\s*: \(Topology\) Numa Node: (\d{1,3})")
_GPU = re.compile(r"GPU\d{1,3}")
_PAIR = re.compile(r"\(topology\) (link type|hops|weight) between drm devices (\d{1,3}) and (\d{1,3})")
MAX_DEVICES = 256
XGMI_WEIGHT = 15  # of one xGMI link, in the kernel's measure of distance
ORIGIN = "rocm-smi --showtopo"
Table = dict[tuple[int, int], str]


def looks_like_rocm(text: str) -> bool:
    """Tell whether the text has a table of this tool, or is its JSON."""
    return (
        '"(Topology) ' in text
        or re.search(r"^=+\s*(?:Link Type|Weight|Hops) between two GPUs", text, re.M) is not None
    )


def read_rocm(text: str, *, name: str) -> NodeTopology:
    """Return the node that the tables show.

    Raises:
        ConfigError: when the table of link types is missing or empty.
    """
    if '"(Topology) ' in text:
        text = _tables_of_json(text, name)
    types, count = _table(text, "Link Type between two GPUs")
    if not count:
        raise ConfigError(
            f"{name}: no table `Link Type between two GPUs`; save the whole output of `rocm-smi --showtopo`"
        )
    hops, _ = _table(text, "Hops between two GPUs")
    weights, _ = _table(text, "Weight between two GPUs")
    numa = {int(gpu): int(node) for gpu, node in _NUMA.findall(text)}
    notes = [f"the tables name neither devices nor NICs (source: {ORIGIN})"]
    if not numa:
        notes.append("the table of NUMA nodes is missing")
    missing = [(a, b) for a in range(count) for b in range(count) if a != b and (a, b) not in types]
    if missing:
        notes.append(f"the table of link types is cut off: {len(missing)} cell(s) are missing")

    def cell(a: int, b: int) -> str:
        if a == b:
            return "X"
        kind = types.get((a, b)) or types.get((b, a)) or "?"
        if kind == "XGMI":
            return xgmi_cell(hops=max(_xgmi_hops(hops, weights, pair) for pair in ((a, b), (b, a))))
        if kind != "PCIE":
            return "?"
        if a in numa and b in numa:
            return "NODE" if numa[a] == numa[b] else "SYS"
        return "PHB" if hops.get((a, b)) in {"1", "2"} else "SYS"

    node = NodeTopology(
        devices=tuple(NodeDevice(index=i, vendor="amd", numa_node=numa.get(i)) for i in range(count)),
        matrix=tuple(tuple(cell(a, b) for b in range(count)) for a in range(count)),
        numa_nodes=len(set(numa.values())) or None,
        nvswitches=0,
        notes=tuple(notes),
        origins={"devices": ORIGIN, "matrix": ORIGIN},
    )
    return finish(node)


def _xgmi_hops(hops: Table, weights: Table, pair: tuple[int, int]) -> int:
    """Return the xGMI links in a row: as told, or by weight, since older tools tell one hop for all."""
    told, weight = hops.get(pair, "1"), weights.get(pair, "15")
    by_weight = int(weight) // XGMI_WEIGHT if weight in {"30", "45", "60"} else 1
    return max(int(told) if re.fullmatch(r"[1-9]", told) else 1, by_weight)


def _tables_of_json(text: str, name: str) -> str:
    """Return the JSON output (`--json`) in the form of the tables.

    Raises:
        ConfigError: when it is not a mapping of mappings.
    """
    try:
        data = json.loads(text[text.index("{") :])
        system = data.get("system", {}) if isinstance(data, dict) else {}
        pairs = {m.groups(): str(v) for k, v in system.items() if (m := _PAIR.fullmatch(str(k).lower()))}
        cards = [c for c in data if re.fullmatch(r"card\d{1,3}", c) and isinstance(data[c], dict)]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{name}: not the JSON of `rocm-smi --showtopo --json`: {error}") from None
    ends = [int(end) for _, a, b in pairs for end in (a, b)] + [int(card[4:]) for card in cards]
    count = min(max(ends, default=-1) + 1, MAX_DEVICES)
    lines = []
    for kind, title in (("link type", "Link Type"), ("hops", "Hops"), ("weight", "Weight")):
        lines += [f"= {title} between two GPUs =", " ".join(f"GPU{i}" for i in range(count))]
        for a in range(count):
            cells = [
                pairs.get((kind, str(a), str(b)), pairs.get((kind, str(b), str(a)), "?"))
                for b in range(count)
            ]
            lines.append(f"GPU{a} " + " ".join(cell.split()[0] if cell.split() else "?" for cell in cells))
    for card in cards:
        lines.append(f"GPU[{card[4:]}] : (Topology) Numa Node: {data[card].get('(Topology) Numa Node', '')}")
    return "\n".join(lines)


def _table(text: str, title: str) -> tuple[Table, int]:
    """Return the cells of one table by (row, column), and the number of its columns."""
    cells: Table = {}
    columns: list[int] = []
    inside = False
    for line in text.splitlines():
        heading = _TITLE.match(line.strip())
        if heading:
            inside = heading.group(1) == title
            continue
        words = line.split()
        if not inside or not words or not _GPU.fullmatch(words[0]):
            continue
        if all(_GPU.fullmatch(word) for word in words) and not columns:
            columns = [int(word[3:]) for word in words][:MAX_DEVICES]
        else:
            row = int(words[0][3:])
            cells |= {(row, column): word for column, word in zip(columns, words[1:], strict=False)}
    if columns != list(range(len(columns))):
        return {}, 0
    return cells, len(columns)
