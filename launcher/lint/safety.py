"""Rules about directives that are not read, environments that leak or override, and code for text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher.lint.context import Context, Hit

LONGEST_SECONDS = 30 * 86400
_SECRET = re.compile(
    r"\b(?:export\s+|--export=\S*?,?)?([A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY)[A-Z0-9_]*)="
    r"[\"']?([A-Za-z0-9_\-./+]{8,})"
)
_TUNING = re.compile(
    r"\b((?:NCCL_(?:ALGO|PROTO|MIN_NCHANNELS|MAX_NCHANNELS|IB_HCA|SOCKET_IFNAME|IB_GID_INDEX|NET_GDR_LEVEL|P2P_\w+"
    r"|IB_TC|IB_SL|CROSS_NIC|TOPO_FILE|NET_PLUGIN|BUFFSIZE|NTHREADS))|GLOO_SOCKET_IFNAME|UCX_\w+|FI_\w+)="
)
_CONTAINER = re.compile(
    r"--container-image|apptainer\s+(exec|run)|singularity\s+(exec|run)|enroot\s+start|podman\s+run"
)
_TIME = re.compile(r"(\d+-)?\d+(:\d\d?){0,2}")


def dead_directive(context: Context) -> Iterator[Hit]:
    """L13: after the first command, or with a shell variable."""
    for directive in context.script.directives:
        if directive.late:
            yield Hit(line=directive.number, message=f"--{directive.name} stands after the first command")
        elif re.search(r"\$[A-Za-z_{(]|`", directive.value):
            yield Hit(
                line=directive.number,
                message=f"--{directive.name}: directives do not expand {directive.value}",
            )


def overriding_environment(context: Context) -> Iterator[Hit]:
    """L14: SBATCH_* of the shell, and those that the script exports for its own steps."""
    for name in sorted(context.script.environment):
        if name.startswith("SBATCH_"):
            yield Hit(line=0, message=f"{name} is set in this shell and overrides the script")
    for line in context.script.commands:
        match = re.search(
            r"\bexport\s+(SBATCH_\w+|SLURM_(?:NTASKS|NNODES|NPROCS|JOB_NODELIST)\w*)=", line.text
        )
        if match:
            yield Hit(line=line.number, message=f"{match.group(1)} changes what later commands of SLURM do")


def narrow_export(context: Context) -> Iterator[Hit]:
    """L15: --export without ALL."""
    directive = context.script.option("export")
    if directive and _narrow(directive.value):
        yield Hit(
            line=directive.number, message=f"--export={directive.value} drops the rest of the environment"
        )
    for line in context.script.sruns:
        value = context.script.flag(line, "export")
        if value and _narrow(value):
            yield Hit(line=line.number, message=f"--export={value} drops the rest of the environment")


def _narrow(value: str) -> bool:
    return value.upper() not in {"NONE", "NIL"} and "ALL" not in value.upper().split(",")


def secret(context: Context) -> Iterator[Hit]:
    """L18: a literal secret, or a dump of the environment."""
    for line in context.script.commands:
        match = _SECRET.search(line.text)
        if match:
            yield Hit(line=line.number, message=f"{match.group(1)} is written out in the script")
        elif re.match(r"\s*(srun\s[^|>]*\s)?(env|printenv|export -p|set)\s*$", line.text):
            yield Hit(line=line.number, message="the whole environment goes to the log, secrets included")


def carried_settings(context: Context) -> Iterator[Hit]:
    """L19: site facts and tuning in a script, or inherited from the shell."""
    for line in context.script.commands:
        for match in _TUNING.finditer(line.text):
            yield Hit(line=line.number, message=f"{match.group(1)} belongs to one cluster")
    for name in sorted(context.script.environment):
        if _TUNING.match(f"{name}="):
            yield Hit(line=0, message=f"{name} is inherited from this shell")


def odd_time(context: Context) -> Iterator[Hit]:
    """L20: no limit, no end, or seconds taken for minutes."""
    directive = context.script.option("time")
    if directive is None:
        if context.script.directives:
            message = "no --time: the partition's default decides, and short jobs are scheduled sooner"
            yield Hit(line=context.script.directives[0].number, message=message)
        return
    value = directive.value
    if value.upper() in {"UNLIMITED", "INFINITE", "0"}:
        yield Hit(
            line=directive.number, message=f"--time={value} asks for no limit, which most partitions refuse"
        )
    elif not _TIME.fullmatch(value):
        yield Hit(line=directive.number, message=f"--time={value} is not a time of SLURM's")
    elif value.isdigit() and _seconds_perhaps(int(value)):
        yield Hit(
            line=directive.number,
            message=f"--time={value} is {int(value) / 1440:.3g} days: seconds, perhaps?",
        )


def _seconds_perhaps(minutes: int) -> bool:
    """Longer than any partition, or half hours in seconds: YAML reads 1:30:00 as 5400."""
    return minutes * 60 > LONGEST_SECONDS or (minutes >= 3600 and minutes % 1800 == 0 and minutes % 1440 != 0)


def control_characters(context: Context) -> Iterator[Hit]:
    """L23: anything below the blank in a directive, a carriage return included."""
    for number, line in enumerate(context.script.text.split("\n"), start=1):
        if line.lstrip().startswith("#SBATCH"):
            odd = sorted({c for c in line if (ord(c) < 32 and c != "\t") or ord(c) == 127})
            if odd:
                shown = ", ".join(repr(c) for c in odd)
                yield Hit(line=number, message=f"the directive holds {shown} (a file from Windows?)")


def tools_in_container(context: Context) -> Iterator[Hit]:
    """L24: scontrol and its kind inside the image."""
    for line in context.script.commands:
        match = _CONTAINER.search(line.text)
        if not match:
            continue
        quoted = re.search(
            r"\b(scontrol|squeue|sinfo|numactl|scancel)\b", _late_text(line.text[match.end() :])
        )
        if quoted:
            yield Hit(line=line.number, message=f"{quoted.group(1)} is called inside the container")


def _late_text(text: str) -> str:
    """Return the part of a command that is evaluated inside: single-quoted text and plain words."""
    return re.sub(r'"[^"]*"', lambda m: m.group(0) if r"\$(" in m.group(0) else "", text)
