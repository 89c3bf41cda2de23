"""The host: processors this process may use, and the memory it may fill, containers' limits included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from planner.probe.files import Files

UNLIMITED_BYTES = 1 << 60  # control groups write "no limit" as a number near 2^63


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the operating system says of processors and memory.

    `usable_cores` counts the physical cores this process may run on, under affinity and CPU quota.
    `origins` tells of each field where it was read; a field that could not be read is None.
    """

    name: str | None
    cpu_model: str | None
    cpu_flags: frozenset[str]
    clock_hertz: float | None
    logical_cpus: int | None
    physical_cores: int | None
    affinity: tuple[int, ...]
    quota_cores: float | None
    usable_cores: int
    memory_bytes: int | None
    memory_limit_bytes: int | None
    available_bytes: int | None
    numa_nodes: int | None
    origins: dict[str, str]
    notes: tuple[str, ...]

    @property
    def usable_memory_bytes(self) -> int | None:
        """Memory of the machine or of the container, whichever is less."""
        known = [n for n in (self.memory_bytes, self.memory_limit_bytes) if n]
        return min(known) if known else None


def read_host(files: Files) -> Host:
    """Read the host's facts; what is missing becomes None and a note."""
    notes: list[str] = []
    info = files.text("/proc/cpuinfo") or ""
    status = files.text("/proc/self/status") or ""
    logical = len(re.findall(r"^processor\s*:", info, re.M)) or None
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.M)
    affinity = parse_cpu_list(allowed.group(1)) if allowed else tuple(range(logical or 0))
    cores = _physical_cores(files)
    quota, quota_origin = _quota(files)
    usable = len({cores.get(cpu, cpu) for cpu in affinity}) or logical or 1
    if quota is not None and quota < usable:
        notes.append(f"a CPU quota of {quota:g} cores limits the {usable} cores of the affinity mask")
        usable = max(1, int(quota))
    if not info:
        notes.append("/proc/cpuinfo could not be read: processor model and core count are unknown")
    memory, available = _meminfo(files)
    limit, limit_origin = _memory_limit(files)
    if memory is None:
        notes.append("/proc/meminfo could not be read: the memory size is unknown")
    numa = [n for n in files.names("/sys/devices/system/node") if re.fullmatch(r"node\d+", n)]
    origins = {
        "cpu": "/proc/cpuinfo",
        "usable_cores": "affinity mask of this process" + (f", {quota_origin}" if quota else ""),
        "memory": limit_origin if limit and (memory is None or limit < memory) else "/proc/meminfo",
    }
    return Host(
        name=files.text("/proc/sys/kernel/hostname"),
        cpu_model=_first(r"^(?:model name|cpu model|Processor|cpu)\s*:\s*(.+)$", info),
        cpu_flags=frozenset((_first(r"^(?:flags|Features)\s*:\s*(.+)$", info) or "").split()),
        clock_hertz=_clock(files, info),
        logical_cpus=logical,
        physical_cores=len(set(cores.values())) or None,
        affinity=affinity,
        quota_cores=quota,
        usable_cores=usable,
        memory_bytes=memory,
        memory_limit_bytes=limit if limit and (memory is None or limit < memory) else None,
        available_bytes=available,
        numa_nodes=len(numa) or None,
        origins=origins,
        notes=tuple(notes),
    )


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the processors of a list as the kernel writes it: `0-3,8` is (0, 1, 2, 3, 8).

    Parts that are not of that form, or absurdly long, are left out.
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        if match:
            first = int(match.group(1))
            cpus.update(range(first, int(match.group(2) or first) + 1))
    return tuple(sorted(cpus))


def format_cpu_list(cpus: tuple[int, ...]) -> str:
    """Write processors the way the kernel does: (0, 1, 2, 8) is `0-2,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.M)
    return match.group(1).strip() if match else None


def _number(text: str | None) -> int | None:
    """Return a whole number of at most 19 digits, or None."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,19}", text) else None


def _clock(files: Files, info: str) -> float | None:
    top = _number(files.text("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))
    if top:
        return top * 1e3
    megahertz = _first(r"^cpu MHz\s*:\s*([\d.]{1,12})$", info)
    try:
        return float(megahertz) * 1e6 if megahertz else None
    except ValueError:
        return None


def _physical_cores(files: Files) -> dict[int, tuple[int, int]]:
    """Return of every logical processor its (package, core)."""
    base = "/sys/devices/system/cpu"
    cores: dict[int, tuple[int, int]] = {}
    for name in files.names(base):
        if re.fullmatch(r"cpu\d{1,6}", name):
            core = _number(files.text(f"{base}/{name}/topology/core_id"))
            package = _number(files.text(f"{base}/{name}/topology/physical_package_id"))
            if core is not None:
                cores[int(name[3:])] = (package or 0, core)
    return cores


def _meminfo(files: Files) -> tuple[int | None, int | None]:
    info = files.text("/proc/meminfo") or ""
    total = _number(_first(r"^MemTotal:\s*(\d+) kB", info))
    available = _number(_first(r"^MemAvailable:\s*(\d+) kB", info))
    return (total or 0) * 1024 or None, (available or 0) * 1024 or None


def _control_group_files(
    files: Files, controller: str, name_v1: str, name_v2: str
) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of a limit in this process's control group and all groups above it."""
    for line in (files.text("/proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        if parts[1] == "":
            base, name = "/sys/fs/cgroup", name_v2
        elif controller in parts[1].split(","):
            base, name = f"/sys/fs/cgroup/{controller}", name_v1
        else:
            continue
        pieces = [p for p in parts[2].split("/") if p not in {"", ".", ".."}]
        # Inside a container the path may be that of the host, so the root of the mount counts too.
        for depth in range(len(pieces), -1, -1):
            path = "/".join([base, *pieces[:depth], name])
            text = files.text(path)
            if text is not None:
                yield path, text


def _memory_limit(files: Files) -> tuple[int | None, str]:
    found: tuple[int | None, str] = (None, "")
    for path, text in _control_group_files(files, "memory", "memory.limit_in_bytes", "memory.max"):
        limit = _number(text)
        if limit and limit < UNLIMITED_BYTES and (found[0] is None or limit < found[0]):
            found = (limit, path)
    return found


def _quota(files: Files) -> tuple[float | None, str]:
    found: tuple[float | None, str] = (None, "")
    for path, text in _control_group_files(files, "cpu", "cpu.cfs_quota_us", "cpu.max"):
        words = text.split()
        quota = _number(words[0]) if words else None
        period = words[1] if len(words) > 1 else files.text(path.replace("cfs_quota_us", "cfs_period_us"))
        cores = quota / (_number(period) or 100_000) if quota else None
        if cores and (found[0] is None or cores < found[0]):
            found = (cores, path)
    return found
