"""`cuboid … | head`: no message, no traceback, and the exit code of SIGPIPE."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launcher.closed_pipe import is_closed_pipe

COMMAND = [sys.executable, "-c", "from launcher.entry import entry; entry()"]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],  # less than a buffer: noticed when it is flushed
        ["schedule", "gpipe", "--stages", "8", "--microbatches", "99", "--json"],  # more than a pipe holds
        ["schedule", "gpipe", "--stages", "8", "--microbatches", "16"],  # written by rich
    ],
)
def test_a_reader_that_goes_away_ends_a_command_quietly(words: list[str]) -> None:
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, b"")


def test_a_message_that_nobody_reads_is_no_traceback() -> None:
    with subprocess.Popen([*COMMAND, "fly"], stderr=subprocess.PIPE) as process:
        assert process.stderr
        process.stderr.close()
    assert process.returncode == 141


def test_a_defect_is_not_taken_for_a_closed_pipe() -> None:
    assert not is_closed_pipe(SystemExit(1))
    error = SystemExit(1)
    error.__context__ = BrokenPipeError()
    assert is_closed_pipe(error)
