"""What answers of the driver mean."""

from __future__ import annotations

import pytest

from planner.probe.diagnosis import complaints, fabric_complaints, fabric_manager_problem, start_problem
from planner.probe.nvml import Answer, Gpu, RecordedNvml


def test_missing_library_is_no_problem_without_devices():
    assert start_problem(Answer(reason="LibraryNotFound"), on_bus=0, driver_file=False) is None


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("LibraryNotFound", "nvml-library-missing"),
        ("DriverNotLoaded", "driver-not-loaded"),
        ("LibRmVersionMismatch", "driver-version-mismatch"),
        ("NoPermission", "no-permission"),
        ("GpuIsLost", "device-lost"),
        ("Timeout", "driver-hangs"),
        ("Unknown", "nvml-failed"),
        ("ImportError: no module", "nvml-failed"),
    ],
)
def test_every_failed_start_has_a_name_and_a_remedy(reason, name):
    problem = start_problem(Answer(reason=reason), on_bus=4, driver_file=True)
    assert (problem.name, bool(problem.remedy)) == (name, True)


def test_library_that_a_container_lacks_is_a_problem():
    """The driver's folder in /proc shows through, though no device and no library does."""
    assert start_problem(Answer(reason="LibraryNotFound"), on_bus=0, driver_file=True) is not None


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (0x1AA, 0),  # every answer "false", configuration "none"
        (0x000, 0),  # nothing supported
        (0x1A9, 1),  # degraded bandwidth
        (0x19A, 1),  # a route unhealthy
        (0x5AA, 1),  # too few NVLinks
        (0x555, 5),
    ],
)
def test_health_of_a_fabric(mask, told):
    """Two bits an answer: 0 not supported, 1 true, 2 false; then four bits of configuration, 1 for none."""
    assert len(fabric_complaints(mask)) == told


def test_device_that_answers_nothing_has_no_complaints():
    assert complaints(RecordedNvml(), Gpu(index=0)) == ()


def test_fabric_manager_names_the_error_of_cuda():
    assert "802" in fabric_manager_problem("in progress").message
