"""`--import FILE`: find out what kind of file it is, and read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from planner.probe.imports.hwloc import read_hwloc
from planner.probe.imports.nccl import read_nccl
from planner.probe.imports.rocm import looks_like_rocm, read_rocm
from planner.probe.imports.smi import looks_like_smi, read_smi
from planner.probe.imports.xml import parse_xml
from profiles.documents import parse_yaml
from profiles.errors import ConfigError
from profiles.topology import NodeTopology

MAX_BYTES = 32 << 20
KINDS = (
    "an NCCL topology XML, hwloc XML, the output of `nvidia-smi topo -m` or `rocm-smi --showtopo`,"
    " a cluster.yaml or a snapshot"
)


@dataclass(frozen=True, kw_only=True)
class ImportedText:
    """A file that was read: its text, and its name for messages."""

    name: str
    text: str

    @property
    def is_document(self) -> bool:
        """Whether it is YAML or JSON of our own (`kind: cluster`, `kind: snapshot`)."""
        return document_kind(self) is not None


def read_import(path: Path) -> ImportedText:
    """Read a file of any of the kinds.

    Raises:
        ConfigError: when it is missing, unreadable, empty, binary or too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected {KINDS}")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    if not data.strip():
        raise ConfigError(f"{path}: is empty; expected {KINDS}")
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path}: is a binary file; expected {KINDS}")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return ImportedText(name=str(path), text=data.decode(encoding, "replace"))


def document_kind(file: ImportedText) -> str | None:
    """Return the `kind` of a YAML or JSON document; None for anything else."""
    start = file.text.lstrip()[:4096]
    if "kind" not in start or start.startswith("<"):
        return None
    try:
        data = parse_yaml(file.text, name=file.name).data
    except ConfigError:
        if start.startswith(("kind:", "{")) or "\nkind:" in start:
            raise
        return None
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else None


def read_topology(file: ImportedText) -> NodeTopology:
    """Return the node that a foreign file describes.

    Raises:
        ConfigError: when the file is of no known kind, or is damaged beyond use.
    """
    if file.text.lstrip().startswith("<"):
        root = parse_xml(file.text.lstrip(), name=file.name)
        if root.tag == "system":
            return read_nccl(root, name=file.name)
        if root.tag == "topology":
            return read_hwloc(root, name=file.name)
        raise ConfigError(f"{file.name}: XML with the root <{root.tag[:40]}>; expected {KINDS}")
    if looks_like_rocm(file.text):
        return read_rocm(file.text, name=file.name)
    if looks_like_smi(file.text):
        return read_smi(file.text, name=file.name)
    raise ConfigError(f"{file.name}: not recognised; expected {KINDS}")
