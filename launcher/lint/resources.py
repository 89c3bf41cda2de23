"""Rules about what is asked for: devices, cores, memory, directories."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher.lint.context import Context, Hit
from launcher.lint.script import trains

_LOCAL = re.compile(r"^(/tmp|/scratch/local|/local|/dev/shm|/var/tmp|/localscratch)(/|$)")


def hidden_peers(context: Context) -> Iterator[Hit]:
    """L07: options that give each task one device."""
    for name in ("gpus-per-task", "gpu-bind"):
        directive = context.script.option(name)
        if directive and directive.value != "none":
            yield Hit(line=directive.number, message=f"--{name} hides the other GPUs of the node from a task")
    for line in context.script.sruns:
        match = re.search(r"--(gpus-per-task|gpu-bind)\b(?!=none)", line.text)
        if match:
            message = f"--{match.group(1)} hides the other GPUs of the node from a task"
            yield Hit(line=line.number, message=message)


def lost_cpus(context: Context) -> Iterator[Hit]:
    """L08: --cpus-per-task for the job only."""
    script = context.script
    if not script.option("cpus-per-task") or "SRUN_CPUS_PER_TASK" in script.text:
        return
    for line in script.sruns:
        if trains(line) and not re.search(r"--cpus-per-task|\s-c\s*\d", line.text):
            yield Hit(line=line.number)


def small_memlock(context: Context) -> Iterator[Hit]:
    """L09: a limit on locked memory."""
    for line in context.script.commands:
        match = re.search(r"ulimit\s+(?:-[A-Za-z]*\s+)*-[SH]*l\s+(\d+)", line.text)
        if match:
            yield Hit(line=line.number, message=f"locked memory is limited to {match.group(1)} KiB")


def local_directory(context: Context) -> Iterator[Hit]:
    """L16: node-local paths where every node has to see the same files."""
    several = (context.script.number("nodes") or 1) > 1
    for name in ("chdir", "output", "error"):
        directive = context.script.option(name)
        if directive and _LOCAL.match(directive.value) and (several or name == "chdir"):
            yield Hit(line=directive.number, message=f"--{name}={directive.value} is local to a node")
    for line in context.script.commands:
        match = re.search(r"--(?:save|load|checkpoint[-_]dir|output[-_]dir)[= ]+(\S+)", line.text)
        folder = match.group(1).strip("\"'") if match else ""
        if several and _LOCAL.match(folder):
            yield Hit(line=line.number, message=f"{folder} is local to a node; checkpoints are not shared")


def no_memory(context: Context) -> Iterator[Hit]:
    """L17: nothing said about memory."""
    script = context.script
    if script.directives and not any(map(script.option, ("mem", "mem-per-cpu", "mem-per-gpu"))):
        yield Hit(line=script.directives[0].number)
