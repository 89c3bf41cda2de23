"""Snapshots: every question that a probe asked of a machine, and the answer, to be replayed elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from planner.probe.files import RecordedFiles, RecordingFiles
from planner.probe.machine import Sources, live_sources, probe
from planner.probe.nvml import RecordedNvml, RecordingNvml
from profiles.cluster import ClusterSpec
from profiles.documents import Record


class Snapshot(Record):
    """Raw answers of one machine: NVML by question, files by path. It holds host names and device UUIDs."""

    kind: Literal["snapshot"] = "snapshot"
    version: Literal[1] = 1
    time: str = ""
    variables: dict[str, str] = Field(default_factory=dict)  # those that hide devices
    nvml: dict[str, dict[str, Any]] = Field(default_factory=dict)
    texts: dict[str, str] = Field(default_factory=dict)
    folders: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    targets: dict[str, str] = Field(default_factory=dict)


def record_probe(
    *, ranks: int | None = None, device: str | None = None, sources: Sources | None = None
) -> tuple[ClusterSpec, Snapshot]:
    """Probe a machine and keep all it answered."""
    sources = sources or live_sources()
    nvml, files = RecordingNvml(source=sources.nvml), RecordingFiles(source=sources.files)
    cluster = probe(ranks=ranks, device=device, sources=replace(sources, nvml=nvml, files=files))
    snapshot = Snapshot(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        variables=dict(sources.variables),
        nvml=nvml.answers,
        texts=files.texts,
        folders=files.folders,
        targets=files.targets,
    )
    return cluster, snapshot


def replay(snapshot: Snapshot, *, ranks: int | None = None, device: str | None = None) -> ClusterSpec:
    """Return what a probe of the recorded machine says."""
    files = RecordedFiles(texts=snapshot.texts, folders=snapshot.folders, targets=snapshot.targets)
    nvml = RecordedNvml(answers=snapshot.nvml)
    sources = Sources(nvml=nvml, files=files, variables=snapshot.variables)
    return probe(ranks=ranks, device=device, sources=sources)
