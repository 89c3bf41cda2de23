"""The batch script and the worker script of a job, as text.

Three kinds of places, three rules: a directive's value matches the pattern of its field (directives.py), a
word of shell is quoted, and a number is a number. Nothing else of the user's reaches the scripts.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from launcher.run_directory import CHECKPOINT_MARKER
from launcher.shell import shell_template
from launcher.slurm.directives import Directive
from launcher.slurm.environment import STALE_PATTERN, check_environment
from launcher.slurm.placement import Placement
from launcher.worker import render_worker, worker_variables
from planner.job import Job
from profiles.errors import ConfigError
from profiles.site import ContainerSpec, SlurmOptions

SUBMIT_COMMAND = ("sbatch", "--parsable", "launch/job.sbatch")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,127}")

# Options whose directive has the same name and value.
_PLAIN_FIELDS: tuple[str, ...] = ("dependency", "partition", "account", "qos", "reservation", "constraint")
_PLAIN_FIELDS += ("exclude", "nodelist", "switches", "segment", "mail_type", "mail_user", "comment")


def check_path(run: Path) -> None:
    """Refuse a run directory whose path SLURM itself would misread.

    Raises:
        ConfigError: for a relative path, control characters, or `%` and backslash, which SLURM expands.
    """
    text = str(run)
    if not run.is_absolute():
        raise ConfigError(f"{text!r}: the run directory needs an absolute path")
    if _CONTROL.search(text) or "%" in text or "\\" in text:
        raise ConfigError(
            f"{text!r}: SLURM cannot use a run directory with control characters, '%' or a backslash;"
            " choose another --runs folder"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r}: the run directory's name is not valid UTF-8") from None


def render_script(
    *, job: Job, run: Path, options: SlurmOptions, placement: Placement, grace_seconds: int
) -> str:
    """Return the text of the batch script.

    Raises:
        ConfigError: for a value that cannot be put into it.
    """
    check_path(run)
    for module in options.modules or ():
        if not _MODULE.fullmatch(module):
            raise ConfigError(f"modules: {module!r} is not the name of a module")
    python = options.python or ""
    paths = {"python": python} | ({"container.python": options.container.python} if options.container else {})
    for field, path in paths.items():
        if not path or path.startswith("-") or _CONTROL.search(path):
            raise ConfigError(f"{field}: {path!r} is not the path of an interpreter")
    elastic = bool(options.elastic)
    return shell_template("slurm.sbatch.j2").render(
        version=_version(),
        job_name=job.name,
        plan_digest=hashlib.sha256(job.plan.model_dump_json().encode()).hexdigest()[:12],
        submit_command=shlex.join(SUBMIT_COMMAND),
        directives=directives(
            job=job, run=run, options=options, placement=placement, grace_seconds=grace_seconds
        ),
        run=str(run),
        python=python,
        restart=restart_mode(options),
        retries=options.retries,
        nodes=placement.nodes,
        min_nodes=(options.min_nodes or 1) if elastic else placement.nodes,
        ranks_per_node=placement.ranks_per_node,
        process_model=options.process_model,
        preflight=options.preflight,
        collective_test=bool(options.collective_test),
        preflight_seconds=options.preflight_seconds,
        keep=options.keep_environment,
        inside=inside(options.container, run),
        modules=options.modules,
        stale_pattern=STALE_PATTERN,
        checkpoint_marker=CHECKPOINT_MARKER,
    )


def render_tasks(*, job: Job, run: Path, options: SlurmOptions, placement: Placement) -> str:
    """Return the text of the worker script.

    Raises:
        ConfigError: for a variable that cannot be exported.
    """
    check_environment({**job.environment, **(options.environment or {})})
    return render_worker(
        run=run,
        python=options.container.python if options.container else options.python or "",
        ranks_per_node=placement.ranks_per_node,
        variables=exports(job=job, run=run, options=options, placement=placement),
    )


def exports(*, job: Job, run: Path, options: SlurmOptions, placement: Placement) -> dict[str, str]:
    """Return what every rank finds in its environment beside what it inherits."""
    ranks = placement.ranks_per_node
    values = worker_variables(run=run, cores=options.cpus_per_node or ranks, ranks_per_node=ranks)
    if options.socket_interface:
        values |= {
            "NCCL_SOCKET_IFNAME": options.socket_interface,
            "GLOO_SOCKET_IFNAME": options.socket_interface,
        }
    if options.ib_hcas:
        values["NCCL_IB_HCA"] = options.ib_hcas
    if options.ib_gid_index is not None:
        values["NCCL_IB_GID_INDEX"] = str(options.ib_gid_index)
    return values | job.environment | (options.environment or {})


def restart_mode(options: SlurmOptions) -> str:
    """Return how the next attempt comes about: requeue, array, chain or none."""
    if options.array:
        return "array"
    if options.dependency == "singleton":
        return "chain"
    return "requeue" if options.requeue else "none"


def job_name(job: Job, run: Path, options: SlurmOptions) -> str:
    """Return SLURM's name of the job; a singleton's is unique to the run: the name is what queues it."""
    if options.dependency == "singleton":
        return f"{job.name}-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"
    return job.name


def directives(
    *, job: Job, run: Path, options: SlurmOptions, placement: Placement, grace_seconds: int
) -> tuple[Directive, ...]:
    """Return the directives in the order of the script."""
    restart = restart_mode(options)
    tasks = placement.ranks_per_node if options.process_model == "srun" else 1
    fewest = options.min_nodes or 1
    nodes = (
        f"{fewest}-{placement.nodes}"
        if options.elastic and fewest < placement.nodes
        else str(placement.nodes)
    )
    cpus = options.cpus_per_node and max(1, options.cpus_per_node // tasks)
    if options.elastic:  # a number of tasks would limit a range of nodes to its lower end
        cpus = options.cpus_per_node or placement.ranks_per_node
    found = [
        _directive("job-name", job_name(job, run, options), "name"),
        _directive("nodes", nodes),
        None if options.elastic else _directive("ntasks-per-node", tasks),
        _directive("cpus-per-task", cpus),
        *_devices(job, options, placement),
        Directive(name="exclusive") if options.exclusive else None,
        _directive("mem", options.memory or ("0" if options.exclusive else None), "memory"),
        _directive("time", options.time_limit, "time_limit"),
        _directive("output", "logs/slurm-%A_%a.log" if restart == "array" else "logs/slurm-%j.log"),
        _directive("open-mode", "append"),
        _directive("signal", f"B:USR1@{grace_seconds}", "grace_seconds"),
        Directive(name="requeue" if restart == "requeue" else "no-requeue"),
        _directive("wait-all-nodes", 1),
        _directive("array", options.array and f"1-{options.array}%1"),
    ]
    found += [_directive(field.replace("_", "-"), getattr(options, field), field) for field in _PLAIN_FIELDS]
    return tuple(directive for directive in found if directive)


def inside(container: ContainerSpec | None, run: Path) -> tuple[str, ...]:
    """Return the words that put a step's command into the container.

    Raises:
        ConfigError: for an image or a mount that would be read as something else.
    """
    if container is None:
        return ()
    mounts = (*container.mounts, f"{run}:{run}")
    for what, text in (("image", container.image), *(("mounts", mount) for mount in container.mounts)):
        if _CONTROL.search(text) or text.startswith("-") or not text:
            raise ConfigError(f"container.{what}: {text!r} cannot be used")
    if any("," in mount for mount in mounts):
        raise ConfigError("container.mounts: a path with a comma cannot be mounted")
    if str(run).count(":"):
        raise ConfigError(f"{run}: a run directory with a colon cannot be mounted into a container")
    if container.runtime == "apptainer":
        words = ["apptainer", "exec", "--nv"]
        words += [word for mount in mounts for word in ("--bind", mount)]
        words += ["--pwd", container.workdir] if container.workdir else []
        return (*words, container.image)
    words = [f"--container-image={container.image}", f"--container-mounts={','.join(mounts)}"]
    words += [f"--container-workdir={container.workdir}"] if container.workdir else []
    return (*words, "--no-container-mount-home")


def _devices(job: Job, options: SlurmOptions, placement: Placement) -> tuple[Directive | None, ...]:
    if job.plan.cluster.device.vendor == "cpu" or options.gpu_request == "none":
        return ()
    count = (
        f"{options.gpu_type}:{placement.ranks_per_node}"
        if options.gpu_type
        else str(placement.ranks_per_node)
    )
    if options.gpu_request == "gres":
        return (_directive("gres", f"gpu:{count}", "gpu_type"),)
    return (_directive("gpus-per-node", count, "gpu_type"),)


def _directive(name: str, value: str | int | None, field: str | None = None) -> Directive | None:
    return None if value is None else Directive(name=name, value=str(value), field=field)


def _version() -> str:
    try:
        return version("cuboid")
    except PackageNotFoundError:
        return "(source tree)"
