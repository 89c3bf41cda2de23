"""The text a run trains on, as bytes: one token is one byte."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiles.errors import ConfigError
from profiles.units import format_bytes

Tokens = npt.NDArray[np.uint8]

VOCABULARY = 256
MAX_FOLDER_BYTES = 8 * 1024**3
_SAMPLE_BYTES = 8192
_PIECES, _PIECE_BYTES = 64, 1 << 16


def load_corpus(path: Path | None) -> Tokens:
    """Return the bytes of a text file, of all text files under a folder, or of the built-in text.

    A file is mapped, not read. The files of a folder are joined in the order of their relative paths; hidden
    ones and those that are not text (a NUL byte near the start) are passed over. The built-in text is
    Python's language reference, which every CPython carries.

    Raises:
        ConfigError: when the path is missing or unreadable, or holds no text.
    """
    if path is None:
        return _builtin()
    try:
        if path.is_dir():
            return _folder(path)
        if not path.exists():
            raise ConfigError(f"data: {path} does not exist; give a text file or a folder of text files")
        if not path.is_file():
            raise ConfigError(f"data: {path} is neither a file nor a folder; give text that lies on a disk")
        if path.stat().st_size == 0:
            raise ConfigError(f"data: {path} is empty")
        return np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise ConfigError(f"data: {path}: {error.strerror or error}") from None


def trained_on(size: int, holdout: float) -> int:
    """Return how many of `size` tokens, from the first, are left for training; the rest is held out."""
    return size - int(size * holdout)


def fingerprint(tokens: Tokens) -> str:
    """Return how many bytes `tokens` are, and a checksum of up to 64 pieces spread evenly over them."""
    pieces = np.linspace(0, max(0, len(tokens) - _PIECE_BYTES), _PIECES).astype(np.int64)
    checksum = 0
    for start in np.unique(pieces):
        checksum = zlib.crc32(tokens[start : start + _PIECE_BYTES].tobytes(), checksum)
    return f"{len(tokens)} bytes, checksum {checksum:08x}"


def _builtin() -> Tokens:
    from pydoc_data.topics import topics  # noqa: PLC0415 (700 kB that only the default corpus needs)

    text = "\n\n".join(topics[name].strip() for name in sorted(topics))
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _folder(folder: Path) -> Tokens:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent) / name for name in files if not name.startswith(".")]
    found = sorted(file for file in found if file.is_file() and _is_text(file))
    total = sum(file.stat().st_size for file in found)
    if total == 0:
        raise ConfigError(f"data: no text file under {folder}")
    if total > MAX_FOLDER_BYTES:
        raise ConfigError(
            f"data: {folder} holds {format_bytes(total)} of text, more than {format_bytes(MAX_FOLDER_BYTES)};"
            " join the files into one, which is read in place"
        )
    return np.frombuffer(b"\n".join(file.read_bytes() for file in found), dtype=np.uint8)


def _is_text(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(_SAMPLE_BYTES)
    return bool(start) and b"\0" not in start
