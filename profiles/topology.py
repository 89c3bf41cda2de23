"""What joins what: the devices and NICs of one node, the matrix of relations, and the switches between nodes.

A cell of the matrix is written as people know it from the vendors' tools:

    X      the device itself
    NV4    4 NVLinks (through NVSwitch: all links of a device)
    XGMI   an xGMI link (AMD); XGMI4: 4 of them                     HOP2   over xGMI in 2 hops: others forward
    C2C    chip-to-chip link                                        MIG    another slice of the same device
    PIX    at most one PCIe bridge          PXB   several PCIe bridges, no host bridge
    PHB    a PCIe host bridge               NODE  several host bridges of one NUMA node
    SYS    across NUMA nodes                ?     not known
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_serializer,
    field_validator,
    model_validator,
)

from profiles.documents import Record
from profiles.errors import FieldError

Vendor = Literal["nvidia", "amd", "cpu", "other"]
NicKind = Literal["infiniband", "roce", "efa", "ethernet", "unknown"]
NicState = Literal["active", "down", "unknown"]


class Problem(Record):
    """Something that is wrong with a machine, by its name, and what to do about it."""

    name: str
    message: str
    remedy: str = ""


class NodeDevice(Record):
    """One accelerator of a node, as far as it could be seen."""

    index: NonNegativeInt
    vendor: Vendor = "nvidia"
    name: str | None = None
    uuid: str | None = None
    bus_id: str | None = None  # domain:bus:device.function in lower case, domain of four digits
    pci_id: str | None = None  # vendor:device
    compute_capability: str | None = None
    memory_bytes: PositiveInt | None = None
    memory_bytes_per_second: PositiveFloat | None = None
    multiprocessors: PositiveInt | None = None
    clock_hertz: PositiveFloat | None = None
    power_watts: PositiveFloat | None = None  # the limit in force
    power_default_watts: PositiveFloat | None = None
    pcie_bytes_per_second: PositiveFloat | None = None  # one direction
    numa_node: NonNegativeInt | None = None
    cpus: str | None = None
    links: NonNegativeInt | None = None  # NVLink or xGMI links that are up
    link_bytes_per_second: PositiveFloat | None = None  # one link, one direction
    host_links: NonNegativeInt | None = None  # NVLinks or chip-to-chip links to the processor
    fabric: str | None = None  # NVLink domain across nodes: cluster UUID/clique
    slice: str | None = None  # MIG profile; a slice is a device of its own
    virtual: bool = False
    complaints: tuple[str, ...] = ()


class NodeNic(Record):
    """One network port of a node."""

    name: str
    kind: NicKind = "unknown"
    state: NicState = "unknown"
    bytes_per_second: NonNegativeFloat | None = None  # one direction
    bus_id: str | None = None
    numa_node: NonNegativeInt | None = None
    compute: bool = True  # False: for storage or management, as far as can be told
    gpu_direct: bool | None = None


class NodeTopology(Record):
    """One node: devices, NICs and their relations (rows and columns: the devices, then the NICs)."""

    host: str | None = None
    system: str | None = None  # product name of the machine
    devices: tuple[NodeDevice, ...] = ()
    nics: tuple[NodeNic, ...] = ()
    matrix: tuple[tuple[str, ...], ...] = ()
    numa_nodes: PositiveInt | None = None
    nvswitches: NonNegativeInt | None = None  # None: not known
    switched: bool = False  # devices reach each other through switches, not by links of their own
    links: Literal["seen", "assumed", "unknown"] = "seen"  # whether the source could show NVLink or xGMI
    device_order: tuple[NonNegativeInt, ...] | None = None  # an order in which joined devices are neighbours
    cpu_model: str | None = None
    cores: PositiveInt | None = None
    memory_bytes: PositiveInt | None = None
    driver: str | None = None
    gpu_direct: str | None = None  # how NICs reach device memory, when it was seen
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    origins: dict[str, str] = Field(default_factory=dict)

    @field_validator("matrix", mode="before")
    @classmethod
    def _split_rows(cls, rows: object) -> object:
        """Take rows as text (`X NV4 PIX`), which is how they are written."""
        if isinstance(rows, list | tuple) and all(isinstance(row, str) for row in rows):
            return tuple(tuple(row.split()) for row in rows)
        return rows

    @field_serializer("matrix")
    def _join_rows(self, rows: tuple[tuple[str, ...], ...]) -> list[str]:
        return [" ".join(row) for row in rows]

    @model_validator(mode="after")
    def _check(self) -> Self:
        size = len(self.devices) + len(self.nics)
        if len(self.matrix) not in {0, size} or any(len(row) != size for row in self.matrix):
            raise FieldError(("matrix",), f"must have {size} rows and columns: devices, then NICs")
        if self.device_order is not None and sorted(self.device_order) != list(range(len(self.devices))):
            raise FieldError(("device_order",), "must name every device once")
        return self

    def relation(self, first: int, second: int) -> str:
        """Return the cell of two rows of the matrix; `?` when there is no matrix."""
        return self.matrix[first][second] if self.matrix else "?"


class SwitchSpec(Record):
    """One network switch: the hosts or the switches below it."""

    name: str
    level: NonNegativeInt = 0
    hosts: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


class ClusterTopology(Record):
    """The node that stands for all, the hosts that were seen, and the switches between them."""

    node: NodeTopology
    hosts: tuple[str, ...] = ()
    switches: tuple[SwitchSpec, ...] = ()
    odd: tuple[str, ...] = ()  # "host: what differs", one line a difference
