"""Rules about how ranks are started, found and stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from launcher.lint.context import Context, Hit
from launcher.lint.script import Line, trains

LEAST_GRACE_SECONDS = 60
_PORT = re.compile(r"--(?:master|main_process)[-_]port[= ]+(\d+)|MASTER_PORT=[\"']?(\d+)\b(?!\s*\))")
_ENDPOINT_PORT = re.compile(r"--rdzv[-_]endpoint[= ]+\S*:(\d+)")
_ADDRESS = re.compile(
    r"--master[-_]addr[= ]+(\S+)|MASTER_ADDR=(\S.*)|--rdzv[-_]endpoint[= ]+(\S+(?: \S+\))?)"
)
_ADDRESS_OF_HOST = re.compile(r"\w+=([$`].*\bhostname (?:-I|-i|--ip-address).*)")
_PER_TASK = re.compile(r"\$\{?(SLURM_PROCID|SLURM_NODEID|SLURM_LOCALID|SLURM_TASKID)\b")
_DEGREE = {
    "tp": re.compile(r"--tensor-model-parallel-size[= ]+(\d+)|--tp(?:-size)?[= ]+(\d+)"),
    "pp": re.compile(r"--pipeline-model-parallel-size[= ]+(\d+)|--pp(?:-size)?[= ]+(\d+)"),
    "micro": re.compile(r"--micro-batch-size[= ]+(\d+)"),
    "global": re.compile(r"--global-batch-size[= ]+(\d+)"),
}


def torchrun_per_task(context: Context) -> Iterator[Hit]:
    """L01: torchrun on every task of a node."""
    script = context.script
    if not script.torchruns:
        return
    directive = script.option("ntasks-per-node")
    if directive and directive.value.isdigit() and int(directive.value) > 1:
        yield Hit(
            line=directive.number,
            message=f"--ntasks-per-node={directive.value} starts as many torchruns a node",
        )
    for line in script.sruns:
        value = script.flag(line, "ntasks-per-node")
        if value and value.isdigit() and int(value) > 1 and line in script.torchruns:
            yield Hit(line=line.number, message=f"--ntasks-per-node={value} starts as many torchruns a node")


def node_counts(context: Context) -> Iterator[Hit]:
    """L02: --nnodes written out, perhaps in a variable, and different from --nodes."""
    nodes = context.script.number("nodes")
    for line in context.script.commands:
        value = context.script.flag(line, "nnodes")
        if nodes and value and value.isdigit() and int(value) != nodes:
            yield Hit(line=line.number, message=f"--nnodes={value}, but --nodes={nodes}")


def early_variables(context: Context) -> Iterator[Hit]:
    """L03: $SLURM_PROCID and its kind outside single quotes, or in a variable that a step uses."""
    for line in context.script.commands:
        match = _PER_TASK.search(re.sub(r"'[^']*'", "''", line.text).replace("\\$", ""))
        if match and (line in context.script.sruns or _reaches_ranks(context, line)):
            yield Hit(line=line.number, message=f"${match.group(1)} is expanded by the batch shell, once")


def _reaches_ranks(context: Context, line: Line) -> bool:
    """Tell whether the line sets a rank, or a variable that some srun names."""
    match = re.match(r"\s*(?:export\s+)?(\w+)=", line.text)
    if not match:
        return False
    name = match.group(1)
    used = re.compile(rf"\$\{{?{name}\b")
    return name.endswith("RANK") or any(used.search(step.text) for step in context.script.sruns)


def fixed_port(context: Context) -> Iterator[Hit]:
    """L04: a literal port."""
    for line in context.script.commands:
        match = _PORT.search(line.text) or _ENDPOINT_PORT.search(line.text)
        if match:
            port = next(group for group in match.groups() if group)
            yield Hit(line=line.number, message=f"port {port} is fixed: two jobs on a node collide")


def bad_endpoint(context: Context) -> Iterator[Hit]:
    """L05: addresses that the other nodes may not be able to use."""
    for line in context.script.commands:
        match = _ADDRESS.search(line.text) or _ADDRESS_OF_HOST.search(line.text)
        if not match:
            continue
        address = next(group for group in match.groups() if group).strip("\"'")
        bad = re.search(
            r"localhost|127\.0\.0\.1|SLURM_LAUNCH_NODE_IPADDR|hostname (?:-I|-i|--ip-address)", address
        )
        several = (context.script.number("nodes") or 1) > 1
        own_name = re.fullmatch(r"\$\(hostname(?: -\w)?\)(?::\S+)?|`hostname`(?::\S+)?", address)
        if (bad and (several or "localhost" in address)) or own_name:
            yield Hit(line=line.number, message=f"{address} is not an address that every node can use")


def ignored_node_rank(context: Context) -> Iterator[Hit]:
    """L06: --node-rank with c10d."""
    for line in context.script.torchruns:
        backend = context.script.flag(line, "rdzv-backend")
        if backend in {"c10d", "etcd", "etcd-v2"} and re.search(r"--node[-_]rank", line.text):
            yield Hit(line=line.number, message=f"--node-rank is ignored by --rdzv-backend={backend}")


def no_kill(context: Context) -> Iterator[Hit]:
    """L10: steps that outlive a dead task."""
    for line in context.script.sruns:
        if (
            re.search(r"--kill-on-bad-exit(?!=0)|\s-K1?\b", line.text)
            or "SLURM_KILL_BAD_EXIT=1" in context.script.text
        ):
            continue
        if trains(line) and not re.search(r"\btimeout\s", line.text):
            yield Hit(line=line.number)


def lost_signal(context: Context) -> Iterator[Hit]:
    """L11: a warning that only the batch shell, or torchrun, receives."""
    script = context.script
    directive = script.option("signal")
    if not directive:
        return
    match = re.match(r"(B:)?(?:SIG)?(\w+)@", directive.value)
    if not match:
        return
    batch, name = match.groups()
    if batch and not re.search(rf"trap\s+(?!''|\"\")\S.*\b(?:SIG)?{name}\b", script.text):
        yield Hit(
            line=directive.number, message=f"only the batch shell gets {name}, and it has no trap for it"
        )
    elif batch and not re.search(r"scancel\b.*(--signal|-s)|kill\s", script.text):
        yield Hit(line=directive.number, message=f"the trap for {name} does not pass it on to the ranks")
    elif batch and not re.search(r"&\s*(#.*)?$", "\n".join(line.text for line in script.sruns), re.M):
        yield Hit(
            line=directive.number,
            message="bash runs a trap only between commands; put srun in the background",
        )
    if script.torchruns and not re.search(rf"trap\s+(''|\"\")\s+.*{name}|signals-to-handle", script.text):
        yield Hit(
            line=directive.number, message=f"{name} ends torchrun itself; ignore it before: trap '' {name}"
        )


def short_grace(context: Context) -> Iterator[Hit]:
    """L12: less warning than saving takes."""
    directive = context.script.option("signal")
    match = re.search(r"@(\d+)", directive.value) if directive else None
    if directive and match and int(match.group(1)) < LEAST_GRACE_SECONDS:
        yield Hit(
            line=directive.number, message=f"{match.group(1)} s of warning; SLURM itself may be 60 s off"
        )


def _degree(context: Context, name: str) -> tuple[int, int] | None:
    for line in context.script.commands:
        match = _DEGREE[name].search(line.text)
        if match:
            return line.number, int(next(group for group in match.groups() if group))
    return None


def ranks_per_node(context: Context) -> int | None:
    """Return how many ranks a node gets, as far as the script says it."""
    script = context.script
    for line in script.torchruns:
        value = script.flag(line, "nproc-per-node")
        if value and value.isdigit():
            return int(value)
    directive = script.option("gpus-per-node") or script.option("gres")
    match = re.search(r"(\d+)$", directive.value) if directive else None
    if match:
        return int(match.group(1))
    return None if script.torchruns else script.number("ntasks-per-node")


def tensor_parallel_across_nodes(context: Context) -> Iterator[Hit]:
    """L21: tp larger than a node."""
    per_node, tp = ranks_per_node(context), _degree(context, "tp")
    if tp and per_node and tp[1] > per_node:
        yield Hit(line=tp[0], message=f"tp {tp[1]} with {per_node} ranks a node: a group spans nodes")
    plan = context.plan
    if plan and per_node and plan.layout.tp * plan.layout.stride("tp") > per_node:
        yield Hit(line=0, message=f"the plan's tp {plan.layout.tp} spans nodes of {per_node} ranks")


def world_size(context: Context) -> Iterator[Hit]:
    """L22: degrees that do not divide."""
    nodes, per_node = context.script.number("nodes"), ranks_per_node(context)
    world = nodes * per_node if nodes and per_node else None
    tp, pp = _degree(context, "tp"), _degree(context, "pp")
    if context.plan and world and world != context.plan.layout.world_size:
        yield Hit(line=0, message=f"{world} ranks are started, the plan has {context.plan.layout.world_size}")
    if not world or not (tp or pp):
        return
    line = (tp or pp or (0, 0))[0]
    model = (tp[1] if tp else 1) * (pp[1] if pp else 1)
    if world % model:
        yield Hit(line=line, message=f"{world} ranks are not a multiple of tp · pp = {model}")
        return
    micro, batch = _degree(context, "micro"), _degree(context, "global")
    if micro and batch and batch[1] % (world // model * micro[1]):
        message = (
            f"global batch {batch[1]} is not a multiple of dp · microbatch = {world // model} · {micro[1]}"
        )
        yield Hit(line=batch[0], message=message)
