"""Where the probe reads system files: this machine, a folder that stands in for `/`, or a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MAX_FILE_BYTES = 1 << 20


class Files(Protocol):
    """Read-only view of a file tree. Every method answers even when the path is missing or forbidden."""

    def text(self, path: str) -> str | None:
        """Return the stripped text of a file, or None."""

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; empty when there is none."""

    def target(self, path: str) -> str | None:
        """Return where a link leads, all links resolved, as an absolute path of the tree; or None."""


@dataclass(frozen=True, kw_only=True)
class LiveFiles:
    """The file tree below `root`; a folder of the same shape can stand in for `/`."""

    root: Path = Path("/")

    def text(self, path: str) -> str | None:
        """Return the stripped text of a file, or None."""
        try:
            with self._path(path).open("rb") as stream:
                return stream.read(MAX_FILE_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names in a folder, sorted; empty when there is none."""
        try:
            return tuple(sorted(entry.name for entry in self._path(folder).iterdir()))
        except OSError:
            return ()

    def target(self, path: str) -> str | None:
        """Return where a link leads, all links resolved, as an absolute path of the tree; or None."""
        try:
            resolved = self._path(path).resolve(strict=True)
            return "/" + str(resolved.relative_to(self.root.resolve())).lstrip("/")
        except (OSError, ValueError, RuntimeError):
            return None

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/")


@dataclass(frozen=True, kw_only=True)
class RecordedFiles:
    """Answers as `RecordingFiles` kept them; whatever was not asked then is missing now."""

    texts: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        """Return the recorded text of a file, or None."""
        return self.texts.get(path)

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the recorded names in a folder."""
        return tuple(self.folders.get(folder, ()))

    def target(self, path: str) -> str | None:
        """Return the recorded target of a link, or None."""
        return self.targets.get(path)


@dataclass(frozen=True, kw_only=True)
class RecordingFiles:
    """Passes questions on to `source` and keeps the answers that were not empty."""

    source: Files
    texts: dict[str, str] = field(default_factory=dict)
    folders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        """Return and keep the text of a file."""
        answer = self.source.text(path)
        if answer is not None:
            self.texts[path] = answer
        return answer

    def names(self, folder: str) -> tuple[str, ...]:
        """Return and keep the names in a folder."""
        answer = self.source.names(folder)
        if answer:
            self.folders[folder] = answer
        return answer

    def target(self, path: str) -> str | None:
        """Return and keep where a link leads."""
        answer = self.source.target(path)
        if answer is not None:
            self.targets[path] = answer
        return answer
