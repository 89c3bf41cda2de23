"""Presets: nothing in them is without a source."""

import pytest

from profiles.cluster import DeviceSpec
from profiles.presets import cluster_preset, device_preset, preset_names

NAMES = {"name", "vendor", "sources"}


@pytest.mark.parametrize("name", preset_names("devices"))
def test_every_constant_of_a_device_stands_in_its_preset_with_a_source(name: str) -> None:
    device = device_preset(name)
    fields = {field for field in DeviceSpec.model_fields if getattr(device, field) is not None} - NAMES
    assert fields == set(device.sources)
    assert fields <= device.model_fields_set


@pytest.mark.parametrize("name", preset_names("clusters"))
def test_every_link_says_where_its_rate_is_from(name: str) -> None:
    for link in cluster_preset(name).links:
        assert link.source
        assert link.source != "assumed"
        assert link.latency_source
