"""The catalogue: one rule a mistake, with what to do and where it is known from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from launcher.lint import launching, resources, safety
from launcher.lint.context import Context, Hit
from launcher.lint.script import parse_script
from planner.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One known mistake. `check` yields the lines where it is made."""

    id: str
    title: str
    fix: str
    source: str
    check: Callable[[Context], Iterator[Hit]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One mistake in one place."""

    rule: str
    line: int
    message: str
    fix: str
    source: str


def _rule(number: int, check: Callable[[Context], Iterator[Hit]], title: str, fix: str, source: str) -> Rule:
    return Rule(id=f"L{number:02d}", title=title, fix=fix, source=source, check=check)


RULES: tuple[Rule, ...] = (
    _rule(
        1, launching.torchrun_per_task,
        "torchrun is started once per GPU instead of once per node",
        "use --ntasks-per-node=1 with torchrun, or start the ranks with srun and no torchrun",
        "Megatron-Bridge multi-node guide; pytorch/pytorch 73656",
    ),
    _rule(
        2, launching.node_counts,
        "the launcher's node count differs from the allocation's",
        "write --nnodes=$SLURM_NNODES, so that the count stands in one place",
        "stas00/ml-engineering, slurm/users.md",
    ),
    _rule(
        3, launching.early_variables,
        "a per-task variable is expanded by the batch shell, so every task gets the same value",
        "put the command into a script file, or in single quotes: srun bash -c '… $SLURM_PROCID …'",
        "stas00/ml-engineering, slurm/users.md",
    ),
    _rule(
        4, launching.fixed_port,
        "the rendezvous port is fixed: two jobs on a node collide",
        "derive it from the job: MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))",
        "pytorch/pytorch 126510; EleutherAI/gpt-neox 768",
    ),
    _rule(
        5, launching.bad_endpoint,
        "the rendezvous address can be a loopback, login-node or empty address",
        'take the first host: MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "pytorch/pytorch 73656; nebius-solutions-library 177; torchx default",
    ),
    _rule(
        6, launching.ignored_node_rank,
        "--node-rank is ignored by the c10d rendezvous",
        "use --rdzv-backend=static with --master-addr and --master-port, or leave --node-rank out",
        "pytorch/pytorch 137402, 150660",
    ),
    _rule(
        7, resources.hidden_peers,
        "each task sees one GPU only, which breaks peer access between the ranks of a node",
        "ask for --gpus-per-node (or --gres=gpu:N), without --gpus-per-task or --gpu-bind",
        "NVIDIA/nccl 1948; NVIDIA/nccl-tests 300; NVIDIA/pyxis 73",
    ),
    _rule(
        8, resources.lost_cpus,
        "srun does not take over --cpus-per-task since SLURM 22.05: ranks get one core",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK, or repeat --cpus-per-task on srun",
        "SLURM 22.05 release notes; stas00/ml-engineering, slurm/performance.md",
    ),
    _rule(
        9, resources.small_memlock,
        "locked memory is limited, RDMA registration will fail",
        "remove the limit, or set it to unlimited: ulimit -l unlimited",
        "NVIDIA/nccl-tests 206; NVIDIA/nccl 562",
    ),
    _rule(
        10, launching.no_kill,
        "a step without --kill-on-bad-exit keeps waiting for hours when one task dies",
        "srun --kill-on-bad-exit=1 --wait=60 …",
        "pytorch/pytorch 76287; srun(1)",
    ),
    _rule(
        11, launching.lost_signal,
        "the warning signal does not reach the ranks, or kills torchrun",
        "with --signal=B:USR1@S, trap it and run scancel --signal=USR1 on the step in the background;"
        " before torchrun: trap '' USR1",
        "pytorch/pytorch 154849; huggingface/accelerate 1918",
    ),
    _rule(
        12, launching.short_grace,
        "the warning comes too late to save a checkpoint",
        "allow twice the longest step and checkpoint, at least 60 s: --signal=B:USR1@180",
        "pytorch/pytorch 119856; sbatch(1): delivery may be up to 60 s early or late",
    ),
    _rule(
        13, safety.dead_directive,
        "a directive that SLURM does not read",
        "put all #SBATCH lines before the first command, without shell variables",
        "sbatch(1)",
    ),
    _rule(
        14, safety.overriding_environment,
        "a variable of the submitting shell overrides the script",
        "unset it before sbatch",
        "sbatch(1), input environment variables",
    ),
    _rule(
        15, safety.narrow_export,
        "--export drops the rest of the environment (PATH, HOME, modules)",
        "write --export=ALL,NAME=value",
        "sbatch(1); stas00/ml-engineering, slurm/users.md",
    ),
    _rule(
        16, resources.local_directory,
        "the working or output directory is local to a node",
        "use a directory that all nodes share",
        "submitit documentation; NVIDIA nvidia-resiliency-ext, slurm examples",
    ),
    _rule(
        17, resources.no_memory,
        "memory is not asked for, and the default is often tiny",
        "add --mem=0 (all of the node) with --exclusive, or a size",
        "aws-samples/awsome-distributed-training; sbatch(1)",
    ),
    _rule(
        18, safety.secret,
        "a secret stands in the script, or the whole environment is printed into the log",
        "read it from a file with mode 600, or let the job inherit it; print no environment",
        "huggingface/nanotron launcher; Megatron-Bridge guide",
    ),
    _rule(
        19, safety.carried_settings,
        "tuning of a communication library that belongs to one cluster",
        "remove it unless this cluster's documentation asks for it; keep it in the site profile",
        "SemiAnalysis ClusterMAX criteria; stas00/ml-engineering, network",
    ),
    _rule(
        20, safety.odd_time,
        "the time limit is missing, unlimited or not what it seems",
        "write HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS; a bare number is minutes",
        "sbatch(1)",
    ),
    _rule(
        21, launching.tensor_parallel_across_nodes,
        "a tensor-parallel group spans nodes",
        "choose tp so that a group fits into one node's fast links",
        "Megatron-LM papers; planner",
    ),
    _rule(
        22, launching.world_size,
        "the ranks do not divide into the parallel degrees, or the batch into dp × microbatch",
        "make nodes × ranks a multiple of tp · pp, and the global batch one of dp · microbatch",
        "Megatron-LM, arguments.py; planner",
    ),
    _rule(
        23, safety.control_characters,
        "a control character in a directive: what follows it may run as code",
        "remove it",
        "bash(1): a comment ends at the newline",
    ),
    _rule(
        24, safety.tools_in_container,
        "a host tool is called inside the container, which seldom has it",
        "evaluate it in the batch script and pass the result on in a variable",
        "mlc-ai/pith-train 91",
    ),
)  # fmt: skip


def lint(
    text: str, *, environment: Mapping[str, str] | None = None, plan: Plan | None = None
) -> tuple[Finding, ...]:
    """Return every known mistake in a batch script, in the order of its lines.

    `environment` is that of the shell it would be submitted from; `plan` the plan it is to run.
    """
    context = Context(script=parse_script(text, environment), plan=plan)
    found = [
        Finding(
            rule=rule.id, line=hit.line, message=hit.message or rule.title, fix=rule.fix, source=rule.source
        )
        for rule in RULES
        for hit in rule.check(context)
    ]
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.rule)))
