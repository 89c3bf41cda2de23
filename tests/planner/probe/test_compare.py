"""Two clusters, and nodes against their majority."""

from __future__ import annotations

import pytest

from planner.probe.compare import difference, odd_nodes
from planner.probe.imports.cluster import import_cluster
from planner.probe.snapshot import record_probe, replay
from profiles.presets import cluster_preset


@pytest.fixture
def good(boxes):
    """A snapshot of a sound node; changes of its answers make other nodes."""
    return record_probe(sources=boxes.hgx_h100().sources())[1]


def changed(snapshot, question, value):
    return replay(snapshot.model_copy(update={"nvml": {**snapshot.nvml, question: {"value": value}}}))


def test_equal_clusters_do_not_differ(good):
    assert difference(replay(good), replay(good)) == []
    assert odd_nodes({f"n{i}": replay(good) for i in range(4)}) == {}


def test_dead_link_is_found_and_summed_up(good):
    bad = changed(good, "nvmlDeviceGetFieldValues(gpu5, ((165, 3),))", [0])
    assert "GPU0–GPU5 and 6 pairs more: NV18 → NV17" in difference(replay(good), bad)
    odd = odd_nodes({"n1": replay(good), "n2": replay(good), "n3": bad, "n4": replay(good)})
    assert list(odd) == ["n3"]
    told = " ".join(odd["n3"])
    assert "GPU5 has 17 of 18 NVLinks up" in told
    assert "NV17 (others: NV18) and 6 pairs more" in told


@pytest.mark.parametrize(
    ("question", "value", "told"),
    [
        ("nvmlSystemGetDriverVersion()", "535.1", "driver: 535.1 (others: 550.54.15)"),
        ("nvmlDeviceGetCount()", 7, "devices: 7 (others: 8)"),
        ("nvmlDeviceGetTotalEccErrors(gpu2, 1, 0)", 5, "GPU2: 5 uncorrected memory error(s)"),
    ],
)
def test_differences_are_named(good, question, value, told):
    odd = odd_nodes({"n1": replay(good), "n2": changed(good, question, value), "n3": replay(good)})
    assert list(odd) == ["n2"]
    assert any(text.startswith(told) for text in odd["n2"])


def test_presets_compare(tmp_path):
    lines = difference(cluster_preset("dgx-h100"), cluster_preset("dgx-a100-40gb"))
    assert any(line.startswith("device: h100-sxm5-80gb → a100-sxm4-40gb") for line in lines)


def test_import_of_a_preset_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    assert import_cluster(Path("dgx-h100")) == cluster_preset("dgx-h100")
