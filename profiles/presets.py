"""Presets: models, devices and clusters by name, and references that may name one.

A reference is plain data: `{preset: NAME}`, `{config: FILE}` or the fields themselves; `preset` may be
joined by fields that replace the preset's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from profiles.cluster import ClusterSpec, DeviceSpec
from profiles.documents import Document, parse_yaml, read_document, validate
from profiles.errors import FieldError
from profiles.huggingface import is_huggingface, model_from_huggingface
from profiles.model import ModelSpec

Shelf = Literal["models", "devices", "clusters"]


def preset_names(shelf: Shelf) -> list[str]:
    """Return the names of all presets on a shelf, sorted."""
    folder = resources.files("profiles") / shelf
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_preset(shelf: Shelf, name: str) -> Document:
    """Read one preset.

    Raises:
        FieldError: when there is no preset of that name; names the nearest ones.
    """
    names = preset_names(shelf)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise FieldError((), f"no preset '{name}' in {shelf}; try {', '.join(near)}")
    file = resources.files("profiles") / shelf / f"{name}.yaml"
    return parse_yaml(file.read_text(encoding="utf-8"), name=f"{shelf}/{name}.yaml")


def model_preset(name: str) -> ModelSpec:
    """Return the model preset `name`."""
    return validate(ModelSpec, _named(name, read_preset("models", name).data))


def device_preset(name: str) -> DeviceSpec:
    """Return the device preset `name`."""
    return validate(DeviceSpec, _named(name, read_preset("devices", name).data))


def cluster_preset(name: str) -> ClusterSpec:
    """Return the cluster preset `name`."""
    return resolve_cluster(_named(name, read_preset("clusters", name).data), Path())


def resolve_model(reference: Mapping[str, Any], folder: Path) -> ModelSpec:
    """Return the model that a reference names: `preset`, `config`, or inline fields.

    Raises:
        FieldError: at the key that is wrong.
    """
    if "config" in reference:
        path = folder / _text(reference, "config")
        if path.is_dir():
            path = path / "config.json"
        document = read_document(path)
        spec = document.check(lambda: _model_from_data(document.data))
        return _override(spec, reference, "config")
    if "preset" in reference:
        try:
            spec = model_preset(_text(reference, "preset"))
        except FieldError as error:
            raise FieldError(("preset",), error.message) from None
        return _override(spec, reference, "preset")
    return validate(ModelSpec, dict(reference))


def load_model(name: str) -> ModelSpec:
    """Return the model a command line names: a preset, a config.json or its folder, or our own YAML.

    Raises:
        ConfigError: when there is neither a file nor a preset of that name, or the file is wrong.
    """
    path = Path(name)
    if path.exists() or path.suffix in {".json", ".yaml", ".yml"}:
        return resolve_model({"config": name}, Path())
    return model_preset(name)


def load_cluster(name: str) -> ClusterSpec:
    """Return the cluster a command line names: a preset, or a cluster.yaml.

    Raises:
        ConfigError: when there is neither a file nor a preset of that name, or the file is wrong.
    """
    path = Path(name)
    if path.exists() or path.suffix in {".yaml", ".yml"}:
        document = read_document(path)
        return document.check(lambda: resolve_cluster(_mapping(document.data), path.parent))
    return cluster_preset(name)


def resolve_cluster(reference: Mapping[str, Any], folder: Path) -> ClusterSpec:
    """Return the cluster that a reference names: `preset`, `config`, or inline fields.

    `device` may be a preset name. `nodes` joins a preset to say how many of its nodes are used.

    Raises:
        FieldError: at the key that is wrong.
    """
    data = dict(reference)
    base: dict[str, Any] = {}
    if "config" in data:
        document = read_document(folder / _text(data, "config"))
        spec = document.check(lambda: resolve_cluster(_mapping(document.data), document.folder))
        base = spec.model_dump(mode="json", exclude_none=True)
        del data["config"]
    elif "preset" in data:
        try:
            base = cluster_preset(_text(data, "preset")).model_dump(mode="json", exclude_none=True)
        except FieldError as error:
            raise FieldError(("preset",), error.message) from None
        del data["preset"]
    device = data.get("device")
    if isinstance(device, str):
        device = {"preset": device}
    if isinstance(device, dict) and "preset" in device:
        try:
            named = device_preset(_text(device, "preset"))
        except FieldError as error:
            raise FieldError(("device",), error.message) from None
        fields = {k: v for k, v in device.items() if k != "preset"}
        data["device"] = named.model_dump(mode="json", exclude_none=True) | fields
    return validate(ClusterSpec, base | data)


def _model_from_data(data: Any) -> ModelSpec:
    mapping = _mapping(data)
    if is_huggingface(mapping):
        return model_from_huggingface(mapping)
    fields = {k: v for k, v in mapping.items() if k not in {"kind", "version"}}
    return validate(ModelSpec, fields)


def _override(spec: ModelSpec, reference: Mapping[str, Any], source: str) -> ModelSpec:
    fields = {k: v for k, v in reference.items() if k != source}
    if not fields:
        return spec
    return validate(ModelSpec, spec.model_dump(mode="json", exclude_none=True) | fields)


def _named(name: str, data: Any) -> dict[str, Any]:
    return {"name": name} | _mapping(data)


def _mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise FieldError((), "expected a mapping of keys to values")
    return data


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise FieldError((key,), f"must be text, not {value!r}")
    return value
