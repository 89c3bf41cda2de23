"""Shell scripts from templates: every value that is not a number is quoted by the filter `sh`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import jinja2

import templates

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./-]+")


@cache
def shell_template(name: str) -> jinja2.Template:
    """Return the template of a shell script; a name it uses and is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(templates.__file__).parent),
        undefined=jinja2.StrictUndefined,
        comment_start_string="{##",  # `${#` is shell
        comment_end_string="##}",
        autoescape=False,  # noqa: S701 (shell, where `sh` quotes)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = shell_word
    return environment.get_template(name)


def shell_word(text: object) -> str:
    """Quote for the shell all but the plainest words (a comma, for one, looks like a mistake in an array)."""
    word = str(text)
    return word if _PLAIN_WORD.fullmatch(word) else "'" + word.replace("'", "'\"'\"'") + "'"
