"""ClusterSpec: devices, how many, and the classes of links that join them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from profiles.documents import Record
from profiles.errors import FieldError
from profiles.topology import ClusterTopology

Precision = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8"]

LinkKind = Literal[
    "nvlink", "nvswitch", "xgmi", "pcie", "shared_memory", "infiniband", "roce", "efa", "ethernet", "unknown"
]


class DeviceSpec(Record):
    """One accelerator (or, on a machine without, one process's share of the CPU).

    `flops_per_second` is the dense peak by precision. `sources` says of each field where its value is from:
    a publication, `driver`, `measured` or `assumed`.
    """

    name: str
    vendor: Literal["nvidia", "amd", "cpu", "other"] = "nvidia"
    memory_bytes: PositiveInt
    memory_bytes_per_second: PositiveFloat
    flops_per_second: dict[Precision, PositiveFloat]
    multiprocessors: PositiveInt | None = None
    gemm_efficiency: PositiveFloat = 0.8  # fraction of the peak that a large matrix product sustains
    attention_efficiency: PositiveFloat = (
        0.5  # fraction of the peak of a flash attention kernel, causal FLOPs
    )
    memory_efficiency: PositiveFloat = 0.85  # fraction of the bandwidth that a streaming kernel sustains
    launch_seconds: NonNegativeFloat = 5e-6  # host time to start one kernel
    context_bytes: NonNegativeFloat = 0  # driver and library memory before the first tensor
    power_watts: PositiveFloat | None = None
    sources: dict[str, str] = Field(default_factory=dict)


class LinkSpec(Record):
    """One class of links.

    Devices are joined in runs of `span` consecutive devices (null: the whole cluster). Each port carries
    `bytes_per_second` in each direction and serves `shared_by` devices: 2 means two devices to one NIC, 0.5
    means two NICs to one device.
    """

    name: str
    kind: LinkKind
    span: PositiveInt | None = None
    bytes_per_second: PositiveFloat
    latency_seconds: NonNegativeFloat
    shared_by: PositiveFloat = 1.0
    source: str = "assumed"
    latency_source: str = "assumed"

    @property
    def device_bytes_per_second(self) -> float:
        """Bandwidth of one device and direction when all devices that share the port use it at once."""
        return self.bytes_per_second / self.shared_by


class ClusterSpec(Record):
    """`nodes` equal nodes of `devices_per_node` equal devices, and their links from the inside out."""

    kind: Literal["cluster"] = "cluster"
    version: Literal[1] = 1
    name: str = "cluster"
    summary: str | None = None  # what it is, in a sentence
    device: DeviceSpec
    devices_per_node: PositiveInt
    nodes: PositiveInt = 1
    links: tuple[LinkSpec, ...] = Field(min_length=1)
    cores_per_node: PositiveInt | None = None
    origins: dict[str, str] = Field(default_factory=dict)  # field → how it became known
    notes: tuple[str, ...] = ()  # what could not be seen, in sentences
    topology: ClusterTopology | None = None  # what probe saw in detail

    @model_validator(mode="after")
    def _check(self) -> Self:
        spans = [link.span or self.devices for link in self.links]
        if spans != sorted(spans):
            raise FieldError(("links",), "list the links from the innermost (smallest span) to the outermost")
        if spans[-1] < self.devices:
            raise FieldError(
                ("links",), f"the last link spans {spans[-1]} devices of {self.devices}; set span: null"
            )
        return self

    @property
    def devices(self) -> int:
        """Devices of the whole cluster."""
        return self.nodes * self.devices_per_node

    def with_nodes(self, nodes: int) -> ClusterSpec:
        """Return the same cluster with another number of nodes."""
        return self.model_copy(update={"nodes": nodes})
