"""The command table: quick to start, complete, and one message for a user's mistake."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from launcher.cli import COMMANDS, main

HEAVY = ("torch", "numpy", "rich", "yaml", "jinja2", "pydantic")


def test_help_lists_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert shown.count(f"\n  {command.name} ") == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from launcher.cli import main; main(['--help']);"
        f"sys.exit(sum(name in sys.modules for name in {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.util.find_spec(f"launcher.commands.{command}")
    assert main([command, "--help"]) == 0
    assert f"Example: cuboid {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["fly"], ["launch"], ["launch", "--speed"], ["launch", "--steps", "zero", "x"]]
)
def test_a_wrong_command_line_is_one_message_and_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cuboid: ")
    assert captured.err.count("\n") == 1


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cuboid ")


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("launcher.schedule_options.read_schedule", interrupt)
    assert main(["check", "pyproject.toml"]) == 130
    assert capsys.readouterr().err == "cuboid: interrupted\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["launch", "x", "--steps", "five"], "'--steps'.*five"),
        (["demo", "--seconds", "5"], "'--seconds'.*5"),
        (["launch", "x", "--on", "slrum"], "'--on'.*: 'slrum' is not one of 'local', 'slurm'"),
    ],
)
def test_a_wrong_value_is_named_without_the_words_of_a_library(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.search(says, said)
    assert "Input should" not in said and "Value error" not in said


@pytest.mark.parametrize(("number", "code"), [(13, 4), (30, 4), (28, 1)])
def test_a_disk_that_refuses_is_a_message_and_a_defect_is_not(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*words: object, **options: object) -> None:
        raise OSError(number, "no", "runs/x")

    monkeypatch.setattr("launcher.schedule_options.read_schedule", refuse)
    assert main(["check", "x"]) == code
    assert capsys.readouterr().err == "cuboid: runs/x: no\n"
    number = 5
    with pytest.raises(OSError, match="no"):
        main(["check", "x"])
