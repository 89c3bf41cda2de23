"""Reasons for errors: they belong to runs that are known, and only to those."""

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from planner.validate_case import Case
from planner.validate_reasons import REASONS, reasons
from planner.validate_records import read_cases


def test_the_first_pattern_that_fits_gives_the_reason() -> None:
    name = "nanotron-64n-80b"
    assert reasons([name, "unheard-of"]) == {name: dict(REASONS)[name]}


def test_most_published_runs_need_no_reason() -> None:
    folder = Path(str(resources.files("profiles") / "published"))
    names = [case.id for case in read_cases(folder) if isinstance(case, Case)]
    assert 0 < len(reasons(names)) < 0.1 * len(names)
    used = {pattern for pattern, _ in REASONS if any(fnmatchcase(name, pattern) for name in names)}
    assert len(used) > len(REASONS) / 2
