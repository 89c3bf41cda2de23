"""The device of a cluster: preset, driver and assumption, told apart."""

from __future__ import annotations

import pytest

from planner.probe.device import join_device
from profiles.errors import FieldError
from profiles.presets import device_preset
from profiles.topology import NodeDevice, NodeTopology


def node_of(count, cell="SYS", *, switched=False, **fields):
    matrix = tuple(tuple("X" if a == b else cell for b in range(count)) for a in range(count))
    devices = tuple(NodeDevice(index=i, **fields) for i in range(count))
    return NodeTopology(devices=devices, matrix=matrix, switched=switched, origins={"devices": "NVML"})


def test_drivers_word_goes_before_the_presets():
    known = {
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 84 << 30,
        "power_watts": 650,
        "multiprocessors": 130,
    }
    joined = join_device(node_of(2, **known))
    preset = device_preset("h100-sxm5-80gb")
    assert (joined.spec.memory_bytes, joined.spec.power_watts, joined.spec.multiprocessors) == (
        84 << 30,
        650,
        130,
    )
    assert joined.spec.flops_per_second == preset.flops_per_second
    assert {joined.spec.sources[field] for field in ("memory_bytes", "power_watts", "multiprocessors")} == {
        "NVML"
    }
    assert joined.spec.sources["flops_per_second"].startswith("preset h100-sxm5-80gb: ")


def test_users_word_goes_before_everything():
    joined = join_device(node_of(2, name="NVIDIA H100 80GB HBM3"), preset="a100-pcie-80gb")
    assert (joined.spec.name, joined.origin) == ("a100-pcie-80gb", "asked for")
    with pytest.raises(FieldError, match="no preset"):
        join_device(node_of(1), preset="h1000")


@pytest.mark.parametrize(
    ("node", "preset"),
    [
        (node_of(8, "NV18", switched=True), "h100-sxm5-80gb"),
        (node_of(8, "NV12", switched=True), "a100-sxm4-40gb"),
        (node_of(16, "NV6", switched=True), "v100-sxm2-16gb"),
        (node_of(2, compute_capability="9.0"), "h100-sxm5-80gb"),
        (node_of(2, compute_capability="7.0"), "v100-sxm2-16gb"),
        (node_of(8, "XGMI", vendor="amd"), "mi300x"),
        (node_of(2), "a100-sxm4-40gb"),
    ],
)
def test_unnamed_devices_are_assumed_and_it_is_said(node, preset):
    joined = join_device(node)
    assert joined.spec.name == preset
    assert joined.origin == f"assumed: {preset}"
    assert [problem.name for problem in joined.problems] == ["device-unknown"]
    assert "--device" in joined.problems[0].remedy


@pytest.mark.parametrize(
    ("capability", "units", "clock", "peak"),
    [("8.0", 56, 1440e6, 165e12), ("8.9", 142, 2490e6, 181e12), ("9.0", 132, 1755e6, 949e12)],
)
def test_peaks_from_clocks(capability, units, clock, peak):
    """A30: 165 TFLOP/s at 16 bits; the others by the same rule of operations a clock."""
    device = {"name": "NVIDIA New Thing", "compute_capability": capability, "multiprocessors": units}
    joined = join_device(node_of(1, clock_hertz=clock, memory_bytes=24 << 30, **device))
    assert joined.spec.flops_per_second["bf16"] == pytest.approx(peak, rel=0.01)
    assert joined.problems == ()
