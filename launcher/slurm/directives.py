"""`#SBATCH` lines: one pattern for every field.

To the shell a directive is a comment, so a newline in a value ends the comment and the rest of the value runs
as code; no quoting prevents that. Every value therefore has to match the pattern of its field before it is
written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from profiles.errors import ConfigError

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127}")
_LIST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,\[\]-]{0,2047}")
_NODES = _LIST
_TEXT = re.compile(r"[^\W_][\w .,:/+=@()-]{0,255}")
_TIME = re.compile(r"(\d{1,3}-\d{1,2}(:\d{2}){0,2}|\d{1,6}(:\d{2}){0,2})")
_COUNT = re.compile(r"[0-9]{1,7}")
_RANGE = re.compile(r"[0-9]{1,7}(-[0-9]{1,7})?")

# field → pattern of the whole value, and how to say it
PATTERNS: dict[str, tuple[re.Pattern[str], str]] = {
    "job-name": (_WORD, "letters, digits and _ . + @ -, not beginning with a dash"),
    "partition": (_LIST, "partition names separated by commas"),
    "account": (_WORD, "an account name"),
    "qos": (_LIST, "a quality-of-service name"),
    "reservation": (_LIST, "a reservation name"),
    "constraint": (
        re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,&|*()\[\]-]{0,255}"),
        "node features joined by & | ,",
    ),
    "exclude": (_NODES, "host names, as in n1,n[3-5]"),
    "nodelist": (_NODES, "host names, as in n1,n[3-5]"),
    "switches": (re.compile(r"[0-9]{1,4}(@[0-9][0-9:-]{0,15})?"), "COUNT or COUNT@TIME"),
    "segment": (_COUNT, "a count"),
    "comment": (
        _TEXT,
        "one line of letters, digits, blanks and . , : / + = @ ( ) -, the first a letter or digit",
    ),
    "mail-user": (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(@[A-Za-z0-9.-]+)?"), "an address"),
    "mail-type": (re.compile(r"[A-Z0-9_]+(,[A-Z0-9_]+)*"), "words such as END,FAIL"),
    "time": (_TIME, "MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS"),
    "signal": (re.compile(r"B:USR1@[0-9]{1,5}"), "B:USR1@SECONDS, with less than 65536 seconds"),
    "nodes": (_RANGE, "a count or a range"),
    "ntasks-per-node": (_COUNT, "a count"),
    "cpus-per-task": (_COUNT, "a count"),
    "gpus-per-node": (re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*:)?[0-9]{1,3}"), "COUNT or TYPE:COUNT"),
    "gres": (re.compile(r"gpu:([A-Za-z0-9_][A-Za-z0-9_.-]*:)?[0-9]{1,3}"), "gpu:COUNT or gpu:TYPE:COUNT"),
    "mem": (re.compile(r"[0-9]{1,9}[KMGT]?"), "a size such as 64G, or 0 for all of the node"),
    "array": (re.compile(r"1-[0-9]{1,5}%1"), "1-COUNT%1"),
    "dependency": (
        re.compile(r"singleton|(after|afterany|afterok|afternotok)(:[0-9]+(_[0-9]+)?(\+[0-9]+)?)+"),
        "singleton, or afterok:JOBID and its kind",
    ),
    "output": (re.compile(r"logs/[a-z0-9%_.-]+[A-Za-z0-9%_.-]*"), "a file under logs/"),
    "open-mode": (re.compile(r"append"), "append"),
    "wait-all-nodes": (re.compile(r"1"), "1"),
}

FLAGS = ("exclusive", "requeue", "no-requeue")


@dataclass(frozen=True, kw_only=True)
class Directive:
    """One `#SBATCH --name=value` line; a flag has no value. `field` is the option users know it by."""

    name: str
    value: str | None = None
    field: str | None = None

    def line(self) -> str:
        """Return the line.

        Raises:
            ConfigError: when the value does not match the pattern of its field.
        """
        if self.value is None:
            assert self.name in FLAGS, self.name
            return f"#SBATCH --{self.name}"
        pattern, words = PATTERNS[self.name]
        if not self.value or not pattern.fullmatch(self.value):
            raise ConfigError(
                f"{self.field or self.name}: {self.value!r} cannot be given to SLURM; use {words}"
            )
        if any(c in self.value for c in " #;()&|*[]"):
            return f'#SBATCH --{self.name}="{self.value}"'
        return f"#SBATCH --{self.name}={self.value}"


def seconds_of(time_limit: str) -> int:
    """Return the seconds that a SLURM time such as `90`, `30:00` or `1-12:00:00` stands for."""
    days, _, clock = time_limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return int(days) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 3:
        return parts[0] * 3600 + parts[1] * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)
