"""Property tests: no deadlines, since machines are shared; in CI the same examples every time.

Tests of real clusters and of jobs of several processes wait for other processes with a time limit. On a
machine that something else keeps busy such a limit can pass, so these tests, and only these, are tried again.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

OTHER_PROCESSES = (
    "tests/launcher/slurm/test_cluster",
    "tests/launcher/slurm/test_faults",
    "tests/launcher/test_launch",
    "tests/launcher/test_probe_slurm",
    "tests/launcher/test_schedule_measure",
    "tests/planner/test_bench",
    "tests/runtime/",
)

settings.register_profile(
    "cuboid",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("cuboid")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(OTHER_PROCESSES):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=5))
