"""Strict YAML: the scalars of YAML 1.2, no surprises, and a position for every complaint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from profiles.documents import (
    Document,
    Record,
    dump_yaml,
    parse_yaml,
    read_document,
    require_writable,
    validate,
    write_text,
)
from profiles.errors import ConfigError, DependencyError, FieldError


class Inner(Record):
    size: int
    ratio: float = 1.0


class Outer(Record):
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()


def parse(text: str) -> Document:
    return parse_yaml(text, name="f.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1:30:00", "1:30:00"),
        ("1_000", "1_000"),
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        ("null", None),
        ("'12'", "12"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    data = parse(f"key: {text}\n").data["key"]
    assert data == value
    assert type(data) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(parse("key: .nan").data["key"])


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(plain_data)
@example({"a\x85b": ["\u2028", "\ufeff", "\x85"]})
def test_what_is_written_reads_back_equal(data: Any) -> None:
    again = parse(dump_yaml({"key": data})).data["key"]
    assert again == data
    assert repr(again) == repr(data)  # 1 and 1.0 and True are told apart


@given(st.text(max_size=200))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert "f.yaml" in str(error)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\na: 2\n", "f.yaml:2:1", "duplicate key 'a'"),
        ("a: {b: 1,\n    b: 2}\n", "f.yaml:2:5", "duplicate key 'b'"),
        ("a: &x [1]\nb: *x\n", "f.yaml", "aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "f.yaml:1", ""),
        ("a: !!int x\n", "f.yaml:1:4", "number"),
        ("a: " + "9" * 5000, "f.yaml:1:4", "number"),
        ("a: !local 1\n", "f.yaml:1:4", "tag"),
        ("a: [1, 2\n", "f.yaml:2:1", "not valid YAML"),
        ("? [1]\n: 2\n", "f.yaml:1:3", "key must be plain text"),
        ("a: 1\n--- \nb: 2\n", "f.yaml:2:1", "not valid YAML"),
    ],
)
def test_traps_are_refused_with_their_position(text: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(where)
    assert what in str(caught.value)


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(ConfigError, match="aliases"):
        parse("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000 + "]" * 5000,
        "[" * 100_000,  # deeper than the parser's own stack
        '{"a": ' * 100_000,
        "- " * 100_000 + "a",
        "".join(f"{' ' * depth}a:\n" for depth in range(1000)),
    ],
    ids=["closed", "open", "mappings", "dashes", "indented"],
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:\d+:\d+: nested more than 200 levels deep"):
        parse(text)


def test_brackets_in_text_are_not_nesting() -> None:
    assert parse_yaml(f"name: '{'[' * 500}'").data == {"name": "[" * 500}
    assert parse_yaml(f"[{'[1, 2], ' * 5000}]").data == [[1, 2]] * 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ninner: {size: 1}\nnmae: y\n", "f.yaml:3:1: nmae: unknown key; did you mean 'name'?"),
        (
            "name: x\ninner:\n  size: 1\n  rtio: 2\n",
            "f.yaml:4:3: inner.rtio: unknown key; did you mean 'ratio'?",
        ),
        (
            "name: x\ninner: {size: 1}\nmany:\n  - {size: 1, siz: 2}\n",
            "f.yaml:4:15: many[0].siz: unknown key; did you mean 'size'?",
        ),
        ("name: x\ninner:\n  size: big\n", 'f.yaml:3:3: inner.size: must be a valid integer, not "big"'),
        ("name: x\ninner: {size: true}\n", "f.yaml:2:9: inner.size: must be a valid integer, not true"),
        ("name: 12\ninner: {size: 1}\n", "f.yaml:1:1: name: must be a valid string, not 12"),
        ("name: x\n", "f.yaml:1:1: 'inner' is required"),
        ("- 1\n", "f.yaml:1:1: "),
    ],
)
def test_a_wrong_field_is_named_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text).read(Outer)
    assert str(caught.value).startswith(message)


def test_an_integer_serves_as_a_number_but_not_the_other_way() -> None:
    assert parse("size: 1\nratio: 2").read(Inner).ratio == 2.0
    with pytest.raises(ConfigError):
        parse("size: 1.5").read(Inner)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"a: \x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        read_document(file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_document(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="directory"):
        read_document(tmp_path)


def test_a_file_in_a_folder_that_is_missing_or_shut_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*/absent; make it first"):
        write_text(tmp_path / "absent" / "plan.yaml", "new")

    require_writable(tmp_path / "plan.yaml")
    assert list(tmp_path.iterdir()) == []

    def refuse(**options: object) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(DependencyError, match=r"plan\.yaml: cannot write: Permission denied"):
        write_text(tmp_path / "plan.yaml", "new")
    with pytest.raises(DependencyError):
        require_writable(tmp_path / "plan.yaml")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.yaml"
    write_text(file, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ConfigError, match="No space left"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["plan.yaml"]


class Either(Record):
    mode: Literal["none", "full"] | tuple[Literal["none", "full"], ...] = "none"


def test_alternatives_of_a_type_are_no_part_of_a_field() -> None:
    for wrong, place in (("some", "mode"), (["none", "some"], "mode")):
        with pytest.raises(FieldError) as raised:
            validate(Either, {"mode": wrong})
        assert str(raised.value).startswith(f"{place}: must be 'none' or 'full'")
