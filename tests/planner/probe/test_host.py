"""Processors and memory, under affinity masks, control groups, and with nothing readable."""

from __future__ import annotations

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.probe.files import LiveFiles
from planner.probe.host import format_cpu_list, parse_cpu_list, read_host


def host_of(tree):
    return read_host(LiveFiles(root=tree.root))


def threads(tree, *, cores, per_core=2):
    """Lay out processors so that the second threads come after all first ones, as kernels number them."""
    for cpu in range(cores * per_core):
        base = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        tree.write(f"{base}/core_id", cpu % cores)
        tree.write(f"{base}/physical_package_id", 0)


def test_this_machine_as_psutil_sees_it():
    host = read_host(LiveFiles())
    assert host.memory_bytes == psutil.virtual_memory().total
    assert host.logical_cpus == psutil.cpu_count(logical=True)
    assert host.physical_cores == psutil.cpu_count(logical=False)
    assert list(host.affinity) == psutil.Process().cpu_affinity()


def test_two_threads_of_a_core_are_one_core(tree):
    tree.host(numa_nodes=2, cpus=16)
    threads(tree, cores=8)
    host = host_of(tree)
    assert (host.logical_cpus, host.physical_cores, host.usable_cores, host.numa_nodes) == (16, 8, 8, 2)


def test_affinity_limits_the_cores(tree):
    tree.host(numa_nodes=1, cpus=16)
    threads(tree, cores=8)
    tree.write("/proc/self/status", "Cpus_allowed_list:\t0-2,8")
    assert host_of(tree).usable_cores == 3


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        (
            "0::/jobs/7",
            {"/sys/fs/cgroup/jobs/memory.max": 8 << 30, "/sys/fs/cgroup/jobs/7/memory.max": "max"},
        ),
        ("0::/jobs/7", {"/sys/fs/cgroup/jobs/7/memory.max": 8 << 30, "/sys/fs/cgroup/memory.max": 9 << 30}),
        ("4:memory:/jobs/7", {"/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": 8 << 30}),
        # In a container the path is the host's, and the limit stands at the root of the mount.
        ("4:memory:/docker/ab", {"/sys/fs/cgroup/memory/memory.limit_in_bytes": 8 << 30}),
    ],
)
def test_memory_limit_of_any_group_above(tree, groups, limits):
    tree.host(numa_nodes=1)
    tree.write("/proc/self/cgroup", groups)
    for path, value in limits.items():
        tree.write(path, value)
    host = host_of(tree)
    assert host.usable_memory_bytes == 8 << 30
    assert "cgroup" in host.origins["memory"]


def test_no_limit_is_a_huge_number_in_old_groups(tree):
    tree.host(numa_nodes=1)
    tree.write("/proc/self/cgroup", "4:memory:/")
    tree.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    assert host_of(tree).memory_limit_bytes is None


@pytest.mark.parametrize(
    ("groups", "path", "text", "period"),
    [
        ("0::/", "/sys/fs/cgroup/cpu.max", "250000 100000", None),
        ("3:cpu,cpuacct:/", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000", "100000"),
    ],
)
def test_quota_limits_the_cores(tree, groups, path, text, period):
    tree.host(numa_nodes=1)
    tree.write("/proc/self/cgroup", groups)
    tree.write(path, text)
    if period:
        tree.write(path.replace("quota", "period"), period)
    host = host_of(tree)
    assert host.quota_cores == 2.5
    assert host.usable_cores == 2
    assert any("quota" in note for note in host.notes)


def test_quota_without_limit(tree):
    tree.host(numa_nodes=1)
    tree.write("/proc/self/cgroup", "0::/\n3:cpu:/")
    tree.write("/sys/fs/cgroup/cpu.max", "max 100000")
    tree.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert host_of(tree).quota_cores is None


def test_nothing_readable_still_is_a_host(tree):
    host = host_of(tree)
    assert host.usable_cores == 1
    assert host.usable_memory_bytes is None
    assert len(host.notes) == 2


@given(cpus=st.sets(st.integers(0, 500), max_size=60))
def test_cpu_lists_read_back(cpus):
    assert set(parse_cpu_list(format_cpu_list(tuple(cpus)))) == cpus


@given(text=st.text(max_size=40))
def test_any_text_is_no_trap_for_cpu_lists(text):
    assert all(cpu >= 0 for cpu in parse_cpu_list(text))
