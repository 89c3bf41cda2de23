"""Many nodes as one cluster."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.probe import probe
from planner.probe.cpu import cpu_cluster
from planner.probe.merge import expand_hosts, merge_nodes, parse_switches
from profiles.errors import ConfigError

TOPOLOGY = """SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[1-2]
SwitchName=leaf2 Level=0 LinkSpeed=1 Nodes=n[3-4]
SwitchName=spine Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=leaf[1-2]
"""


@pytest.fixture
def gb200(boxes):
    return probe(sources=boxes.nvl72().sources())


def in_domain(cluster, name):
    node = cluster.topology.node
    devices = tuple(device.model_copy(update={"fabric": name}) for device in node.devices)
    topology = cluster.topology.model_copy(update={"node": node.model_copy(update={"devices": devices})})
    return cluster.model_copy(update={"topology": topology})


@pytest.mark.parametrize(
    ("domains", "nodes_a_domain"),
    [("AAAA", 4), ("AABB", 2), ("ABAB", 2), ("AAAB", 1), ("AAAABB", 2), ("AAABBB", 3), ("ABCD", 1)],
)
def test_nvlink_domains_span_nodes(gb200, domains, nodes_a_domain):
    """A run of devices may not cross domains, so its length divides every domain; hosts come by domain."""
    merged = merge_nodes({f"n{i}": in_domain(gb200, name) for i, name in enumerate(domains)})
    assert merged.nodes == len(domains)
    link = merged.links[0]
    assert (link.kind, link.span) == ("nvswitch", 4 * nodes_a_domain)
    by_host = dict(zip((f"n{i}" for i in range(len(domains))), domains, strict=True))
    assert "".join(by_host[host] for host in merged.topology.hosts) == "".join(sorted(domains))


def test_domains_are_no_oddity(gb200):
    merged = merge_nodes(
        {"n1": in_domain(gb200, "A"), "n2": in_domain(gb200, "B"), "n3": in_domain(gb200, "A")}
    )
    assert merged.topology.odd == ()


def test_node_with_fewer_devices_is_left_out_and_named(boxes):
    box = boxes.hgx_h100()
    good = probe(sources=box.sources())
    box.overrides["nvmlDeviceGetCount"] = "7"
    bad = probe(sources=box.sources())
    merged = merge_nodes({"n1": good, "n2": bad, "n3": good})
    assert (merged.nodes, merged.devices_per_node) == (2, 8)
    assert merged.topology.hosts == ("n1", "n3")
    assert any("left out" in note and "n2" in note for note in merged.notes)
    assert any(text.startswith("n2: devices: 7") for text in merged.topology.odd)


def test_slowest_node_sets_the_rates(boxes):
    box = boxes.hgx_h100()
    good = probe(sources=box.sources())
    box.overrides["nvmlDeviceGetFieldValues gpu0 165 0"] = "0"
    merged = merge_nodes({"n1": good, "n2": probe(sources=box.sources())})
    assert merged.links[0].bytes_per_second == 17 * 25e9
    assert any("--exclude=n2" in note for note in merged.notes)


def test_nodes_without_accelerators_get_a_network(tree):
    from planner.probe.files import LiveFiles
    from planner.probe.machine import Sources
    from planner.probe.nvml import RecordedNvml

    tree.host(numa_nodes=1, cpus=4)
    one = probe(ranks=2, sources=Sources(nvml=RecordedNvml(), files=LiveFiles(root=tree.root)))
    merged = merge_nodes({"n1": one, "n2": one})
    assert [(link.kind, link.span) for link in merged.links] == [("shared_memory", 2), ("ethernet", None)]
    assert merged.devices == 4


def test_no_node_is_an_error():
    with pytest.raises(ConfigError, match="no node"):
        merge_nodes({})


def test_switches():
    leaf1, leaf2, spine = parse_switches(TOPOLOGY)
    assert (leaf1.name, leaf1.level, leaf1.hosts) == ("leaf1", 0, ("n1", "n2"))
    assert leaf2.hosts == ("n3", "n4")
    assert (spine.level, spine.hosts, spine.switches) == (1, (), ("leaf1", "leaf2"))
    assert parse_switches("No topology information available\n") == ()


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n[1-3,7],login", ("n1", "n2", "n3", "n7", "login")),
        ("gpu[008-011]", ("gpu008", "gpu009", "gpu010", "gpu011")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("n1", ("n1",)),
        ("", ()),
        ("(null)", ()),
        ("n[1-", ()),
    ],
)
def test_host_lists(text, hosts):
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize("text", ["n[1-3,7],login", "gpu[008-011]", "r[1-2]n[1-2]", "a-b[9-11]"])
def test_host_lists_as_slurm_expands_them(text, tmp_path):
    if shutil.which("scontrol") is None:  # the launcher's tests may have installed it since the collection
        pytest.skip("SLURM is not installed")
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=test\nSlurmctldHost=localhost\n")
    words = ["scontrol", "show", "hostnames", text]
    environment = {"SLURM_CONF": str(conf), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert expand_hosts(text) == tuple(done.stdout.split())


@given(text=st.text(alphabet="n0123456789-,[]()", max_size=20))
def test_any_text_is_a_list_of_hosts(text):
    assert all(expand_hosts(text))


def test_ranks_of_a_processor_are_no_devices(tree):
    """cpu_cluster alone, without topology, merges too."""
    from planner.probe.files import LiveFiles
    from planner.probe.host import read_host

    tree.host(numa_nodes=1)
    cluster = cpu_cluster(read_host(LiveFiles(root=tree.root)))
    assert merge_nodes({"n1": cluster}).nodes == 1
