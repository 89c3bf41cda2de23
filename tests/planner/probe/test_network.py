"""NICs in a stand-in for /sys: InfiniBand, RoCE, EFA, virtual functions, ports that are down, Ethernet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.probe.files import LiveFiles
from planner.probe.network import parse_rate, read_nics


def card(tree, number, *, vendor="15b3", numa=0):
    bus = f"0000:{number:02x}:00.0"
    return tree.pci(
        f"pci0000:00/0000:00:{number:02x}.0/{bus}", vendor=vendor, device="1021", kind="020700", numa=numa
    )


def nics_of(tree):
    return read_nics(LiveFiles(root=tree.root))


def test_infiniband_roce_and_efa(tree):
    tree.nic("mlx5_0", card(tree, 1), rate="400 Gb/sec (4X NDR)")
    tree.nic("mlx5_1", card(tree, 2, numa=1), rate="100 Gb/sec (4X EDR)", layer="Ethernet")
    tree.nic("rdmap16s27", card(tree, 3, vendor="1d0f"), rate="100 Gb/sec (4X EDR)", layer="Unknown")
    nics, places, notes = nics_of(tree)
    assert [(n.name, n.kind, n.bytes_per_second, n.numa_node) for n in nics] == [
        ("mlx5_0", "infiniband", 50e9, 0),
        ("mlx5_1", "roce", 12.5e9, 1),
        ("rdmap16s27", "efa", 12.5e9, 0),
    ]
    assert places["mlx5_1"].bus_id == "0000:02:00.0"
    assert notes == ()


@pytest.mark.parametrize(
    ("text", "state"), [("4: ACTIVE", "active"), ("1: DOWN", "down"), ("2: INIT", "down"), ("", "unknown")]
)
def test_states(tree, text, state):
    tree.nic("mlx5_0", card(tree, 1), rate="200 Gb/sec (4X HDR)", state=text)
    assert nics_of(tree)[0][0].state == state


def test_ports_of_one_card(tree):
    tree.nic("mlx5_0", card(tree, 1), rate="100 Gb/sec (4X EDR)")
    base = "/sys/class/infiniband/mlx5_0/ports/2"
    tree.write(f"{base}/rate", "100 Gb/sec (4X EDR)")
    tree.write(f"{base}/state", "1: DOWN")
    assert [(nic.name, nic.state) for nic in nics_of(tree)[0]] == [
        ("mlx5_0:1", "active"),
        ("mlx5_0:2", "down"),
    ]


def test_virtual_functions_are_left_out(tree):
    whole, part = card(tree, 1), card(tree, 2)
    tree.nic("mlx5_0", whole, rate="100 Gb/sec (4X EDR)")
    tree.nic("mlx5_1", part, rate="100 Gb/sec (4X EDR)")
    tree.link(f"{part}/physfn", whole)
    nics, _, notes = nics_of(tree)
    assert [nic.name for nic in nics] == ["mlx5_0"]
    assert "1 virtual function" in notes[0]


def test_ethernet_stands_in_when_there_is_no_rdma(tree):
    place = card(tree, 1)
    tree.link("/sys/class/net/eth0/device", place)
    tree.write("/sys/class/net/eth0/operstate", "up")
    tree.write("/sys/class/net/eth0/speed", "25000")
    tree.link("/sys/class/net/eth1/device", card(tree, 2))
    tree.write("/sys/class/net/eth1/operstate", "down")
    tree.write("/sys/class/net/lo/operstate", "unknown")
    nics, places, notes = nics_of(tree)
    assert [(n.name, n.kind, n.bytes_per_second) for n in nics] == [("eth0", "ethernet", 3.125e9)]
    assert places["eth0"].bus_id == "0000:01:00.0"
    assert "Ethernet is used" in notes[0]


def test_function_above_a_virtio_level_is_found(tree):
    place = card(tree, 1)
    tree.link("/sys/class/net/eth0/device", f"{place}/virtio2")
    tree.write(f"{place}/virtio2/vendor", "0x1af4")
    tree.write("/sys/class/net/eth0/operstate", "up")
    nics, _, _ = nics_of(tree)
    assert (nics[0].bus_id, nics[0].bytes_per_second) == ("0000:01:00.0", None)


def test_nothing_there(tree):
    nics, places, notes = nics_of(tree)
    assert (nics, places) == ((), {})
    assert notes == ("no RDMA NIC in /sys/class/infiniband",)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("400 Gb/sec (4X NDR)", 50e9),
        ("2.5 Gb/sec (1X SDR)", 0.3125e9),
        ("0 Gb/sec", None),
        ("", None),
        (None, None),
    ],
)
def test_rates(text, rate):
    assert parse_rate(text) == rate


@given(text=st.text(max_size=30))
def test_any_text_is_a_rate_or_none(text):
    rate = parse_rate(text)
    assert rate is None or rate > 0
