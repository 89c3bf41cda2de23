"""Text from files, folders and Python itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.corpus import load_corpus
from profiles.errors import ConfigError


def test_builtin_text_is_english_and_stable():
    text = load_corpus(None).tobytes().decode()
    assert len(text) > 300_000
    assert 'The "assert" statement' in text
    assert load_corpus(None).tobytes() == text.encode()


def test_file(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes("naïve".encode())
    assert load_corpus(file).tobytes() == "naïve".encode()


def test_folder_joins_text_files_in_order_of_path(tmp_path: Path):
    for name, content in {
        "b/z.txt": b"three",
        "a.py": b"one",
        "b/a.md": b"two",
        "image.png": b"\x89PNG\0\0",
        ".hidden": b"no",
        ".git/config": b"no",
        "empty.txt": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert load_corpus(tmp_path).tobytes() == b"one\ntwo\nthree"


@pytest.mark.parametrize("case", ["missing", "empty file", "empty folder", "only binary"])
def test_nothing_to_read_is_one_clear_error(tmp_path: Path, case):
    path = tmp_path / "data"
    if case == "empty file":
        path.touch()
    elif case != "missing":
        path.mkdir()
    if case == "only binary":
        (path / "x.bin").write_bytes(b"\0\1")
    with pytest.raises(ConfigError, match=r"data: .*data"):
        load_corpus(path)
