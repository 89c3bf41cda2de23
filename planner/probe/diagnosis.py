"""Named diagnoses: what an answer of the driver means to a person, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from planner.probe.nvlink import P2P_SWITCHED_OFF
from planner.probe.nvml import Answer, Gpu, Nvml
from profiles.topology import Problem

FIELD_RECOVERY_ACTION = 230
UNCORRECTED, VOLATILE = 1, 0
Pair = tuple[int, int]

RECOVERY_ACTIONS = {
    1: "needs a reset",
    2: "needs a reboot of the node",
    3: "is to be drained of peer-to-peer traffic",
    4: "is to be drained and reset",
    5: "waits for its IMEX domain to recover",
    6: "needs a reset of its bus",
    7: "needs a reboot of the system",
}
CLOCK_EVENTS = {
    0x08: "clocks held down by hardware (heat or power)",
    0x20: "clocks held down by software (heat)",
    0x40: "clocks held down by hardware (heat)",
    0x80: "clocks held down by the power brake",
}
# Two-bit answers of the fabric health mask: shift → meaning of the value 1 ("true").
FABRIC_HEALTH = {
    0: "NVLink fabric runs at degraded bandwidth",
    2: "NVLink fabric recovers a route",
    4: "NVLink fabric has an unhealthy route",
    6: "NVLink fabric recovers from an access time-out",
}
FABRIC_CONFIGURATION = {
    2: "wrong system GUID",
    3: "wrong chassis serial number",
    4: "no partition",
    5: "too few NVLinks",
    6: "incompatible firmware",
    7: "invalid location",
    8: "invalid GPU state",
}

_START = {
    "LibraryNotFound": Problem(
        name="nvml-library-missing",
        message="NVIDIA devices are on the PCI bus, but libnvidia-ml.so.1 is not installed",
        remedy="install the NVIDIA driver, or start the container with the NVIDIA runtime (--gpus all)",
    ),
    "DriverNotLoaded": Problem(
        name="driver-not-loaded",
        message="the NVIDIA library is installed, but its kernel driver is not loaded",
        remedy="load it (modprobe nvidia) and look at dmesg for why it was not",
    ),
    "LibRmVersionMismatch": Problem(
        name="driver-version-mismatch",
        message="the NVIDIA library and the loaded kernel driver have different versions",
        remedy="reboot, or unload and reload the driver: it was upgraded while it was in use",
    ),
    "NoPermission": Problem(
        name="no-permission",
        message="this user may not talk to the NVIDIA driver",
        remedy="check the permissions of /dev/nvidia* and the container's device list",
    ),
    "Timeout": Problem(
        name="driver-hangs",
        message="the NVIDIA driver does not answer",
        remedy="look for Xid messages in dmesg; a reboot of the node is the usual way out",
    ),
    "GpuIsLost": Problem(
        name="device-lost",
        message="a GPU has fallen off the bus",
        remedy="reboot the node; look for Xid 79 in dmesg",
    ),
}


def start_problem(answer: Answer, *, on_bus: int, driver_file: bool) -> Problem | None:
    """Return what a failed start of NVML means; None when it only means that there is no NVIDIA device.

    `on_bus` is the number of NVIDIA GPUs that the PCI bus shows; `driver_file`: /proc/driver/nvidia exists.
    """
    reason = answer.reason or ""
    if reason == "LibraryNotFound" and not on_bus and not driver_file:
        return None
    if reason in _START:
        found = _START[reason]
        count = f" ({on_bus} NVIDIA device(s) on the PCI bus)" if on_bus else ""
        return found.model_copy(update={"message": found.message + count})
    return Problem(name="nvml-failed", message=f"NVML does not start: {reason}", remedy="see dmesg")


def fabric_manager_problem(state: str) -> Problem:
    """Return the diagnosis for NVSwitches that no fabric manager has set up."""
    return Problem(
        name="fabric-manager",
        message=f"the NVSwitch fabric is not ready ({state}): GPUs cannot reach each other over NVLink,"
        " and CUDA fails with error 802 (system not yet initialized)",
        remedy="start nvidia-fabricmanager, of the same version as the driver",
    )


def denied_problem(denied: Mapping[Pair, int], *, of_pairs: int, on_switches: bool) -> Problem:
    """Return the diagnosis for links that are up while the driver denies pairs NVLink, with a status each."""
    if set(denied.values()) == {P2P_SWITCHED_OFF}:
        return Problem(
            name="p2p-disabled",
            message="NVLinks are up, but peer-to-peer access is switched off in the driver's settings",
            remedy="look for NVreg_RegistryDwords in /etc/modprobe.d and reload the driver",
        )
    if len(denied) == of_pairs and on_switches:
        return fabric_manager_problem("no pair has peer-to-peer access over NVLink")
    shown = ", ".join(f"GPU{a}–GPU{b}" for a, b in list(denied)[:4]) + (" …" if len(denied) > 4 else "")
    return Problem(
        name="nvlink-denied",
        message=f"NVLinks are up, but the driver gives no path over them to {len(denied)} pair(s): {shown}",
        remedy="check the fabric partition and the virtual machine's device assignment",
    )


def nothing_shown_problem(count: Answer, *, on_bus: int) -> Problem:
    """Return the diagnosis for devices on the PCI bus of which the driver shows none."""
    return Problem(
        name="devices-hidden",
        message=f"{on_bus} NVIDIA device(s) are on the PCI bus, but the driver shows none"
        + (f" ({count.reason})" if count.reason else ""),
        remedy="check the container's device list, other virtual machines' assignments, and dmesg",
    )


def complaints(nvml: Nvml, gpu: Gpu) -> tuple[str, ...]:
    """Return what one device says is wrong with it; a question without an answer is no complaint."""
    found: list[str] = []
    action = nvml.ask("nvmlDeviceGetFieldValues", gpu, ((FIELD_RECOVERY_ACTION, 0),)).numbers()
    if action and action[0] in RECOVERY_ACTIONS:
        found.append(f"the driver says it {RECOVERY_ACTIONS[action[0]]}")
    errors = nvml.ask("nvmlDeviceGetTotalEccErrors", gpu, UNCORRECTED, VOLATILE).number()
    if errors:
        found.append(f"{errors} uncorrected memory error(s) since the driver was loaded")
    rows = nvml.ask("nvmlDeviceGetRemappedRows", gpu).numbers()
    if len(rows) == 4 and rows[2]:
        found.append("memory rows wait to be remapped: reset it")
    if len(rows) == 4 and rows[3]:
        found.append("remapping of memory rows has failed: replace it")
    if nvml.ask("nvmlDeviceGetRetiredPagesPendingStatus", gpu).number() == 1:
        found.append("memory pages wait to be retired: reset it")
    events = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", gpu).number() or 0
    found += [meaning for bit, meaning in CLOCK_EVENTS.items() if events & bit]
    width = nvml.ask("nvmlDeviceGetCurrPcieLinkWidth", gpu).number()
    most = nvml.ask("nvmlDeviceGetMaxPcieLinkWidth", gpu).number()
    if width and most and width < most:
        found.append(f"PCIe runs with {width} of {most} lanes")
    return tuple(found)


def fabric_complaints(mask: int) -> tuple[str, ...]:
    """Return what a fabric health mask complains of (two bits an answer, then four for configuration)."""
    found = [meaning for shift, meaning in FABRIC_HEALTH.items() if (mask >> shift) & 3 == 1]
    configuration = FABRIC_CONFIGURATION.get((mask >> 8) & 0xF)
    if configuration:
        found.append(f"NVLink fabric is configured wrongly: {configuration}")
    return tuple(found)
