"""`cuboid`: the table of commands, and what happens to errors.

Only the module of the command that runs is imported, so `cuboid --help` stays quick and `cuboid plan` never
pays for what `cuboid launch` needs.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from launcher.closed_pipe import discard_output, is_closed_pipe
from profiles.errors import CuboidError

INTERRUPTED = 130  # 128 + SIGINT
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_DEFECTS = FULL | {errno.EACCES, errno.EPERM, errno.EROFS}  # wherever they happen, the machine is the cause

EPILOG = (
    "Exit codes: 0 ok · 1 the run failed · 2 usage or configuration · 3 infeasible plan or failed pre-flight"
    " · 4 missing dependency or permission · 130 interrupted · 141 nobody reads the output any more."
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One row of the command table; the function `name` lives in `launcher.commands.name`."""

    name: str
    help: str


COMMANDS = (
    Command(name="demo", help="The whole loop on this machine, in about two minutes."),
    Command(name="probe", help="Find devices and links; write cluster.yaml."),
    Command(name="bench", help="Measure layer and collective costs; write costs.yaml."),
    Command(name="plan", help="Search for the best layouts; write plan.yaml."),
    Command(name="estimate", help="Price one layout: the dry-run cost report."),
    Command(name="explain", help="Show the formula and the source behind every number of a plan."),
    Command(name="schedule", help="Show, compare and export pipeline schedules."),
    Command(name="check", help="Prove or refute a schedule file."),
    Command(name="launch", help="Run a plan or job here or on SLURM; resume a run."),
    Command(name="status", help="Show where runs stand."),
    Command(name="logs", help="Show the logs of a run, the first failing rank first."),
    Command(name="cancel", help="Stop a run."),
    Command(name="report", help="Predicted against measured; cost report of a plan."),
    Command(name="calibrate", help="Fold measured runs into costs.yaml."),
    Command(name="export", help="Write a plan as another framework's configuration."),
    Command(name="validate", help="Compare predictions with published runs, row by row."),
    Command(name="lint", help="Find known mistakes in an sbatch script."),
)


def build_app(words: Sequence[str]) -> typer.Typer:
    """Return the application for one command line.

    The command that `words` names is imported in full; the others are registered by name and help alone.
    """
    app = typer.Typer(
        name="cuboid",
        help="Plan, launch and run 3D-parallel training, and compare what was predicted with what happened.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: rich's would cost more than all else at start-up
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    wanted = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        if command.name == wanted:
            module = importlib.import_module(f"launcher.commands.{command.name}")
            function = getattr(module, command.name)
            app.command(command.name, help=_help(function))(function)
        else:
            app.command(command.name, help=command.help)(_not_imported)
    return app


def _help(function: Callable[..., None]) -> str:
    """Return a command's docstring with the lines of its examples kept apart."""
    text = inspect.getdoc(function) or ""
    # A paragraph that begins with \b is not re-wrapped.
    return text.replace("\n\nExample", "\n\n\b\nExample")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 (start-up time)

        typer.echo(f"cuboid {version('cuboid')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options of `cuboid` itself."""


def _not_imported() -> None:
    raise AssertionError("a command ran without being imported")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; `sys.argv` when `arguments` is None."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()  # here a reader that is gone can still be dealt with
    except (BrokenPipeError, SystemExit) as error:
        if not is_closed_pipe(error):
            raise
        return discard_output()
    return code


def _run(words: Sequence[str]) -> int:
    """Run one command line; what the user did wrong becomes one message and an exit code."""
    try:
        # With standalone_mode off, the application returns the code of `typer.Exit` and raises the rest.
        code = build_app(words)(words, standalone_mode=False)
    except CuboidError as error:
        sys.stderr.write(f"cuboid: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in NO_DEFECTS:
            raise
        sys.stderr.write(f"cuboid: {error.filename or 'output'}: {error.strerror}\n")
        return 1 if error.errno in FULL else 4
    except Exception as error:
        return _usage_error(error)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code
        sys.stderr.write("cuboid: interrupted\n")
    return code if isinstance(code, int) else 0


def _usage_error(error: Exception) -> int:
    """Show a wrong command line as one message; anything else is a defect and keeps its traceback."""
    if type(error).__name__ == "Abort":
        sys.stderr.write("cuboid: interrupted\n")
        return INTERRUPTED
    if not hasattr(error, "format_message"):
        raise error
    message = _plainly(error, error.format_message())
    if type(error).__name__.startswith("NoArgsIsHelp"):
        sys.stdout.write(f"{message}\n")
        return 0
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context else ""
    sys.stderr.write(f"cuboid: {message}{hint}\n")
    return 2


def _plainly(error: Exception, message: str) -> str:
    """Return typer's message without the words of the library that it checks values with."""
    message = message.replace("Value error, ", "")
    if "Input should be" not in message:
        return message
    message = message.replace("Input should be", "must be").partition(", unable to parse")[0]
    details = getattr(error.__context__, "errors", None)
    return f"{message}, not '{details()[0].get('input')}'" if callable(details) else message
