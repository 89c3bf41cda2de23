"""The pre-flight of a run on this machine: the facts and the judgement that a node of a cluster gets."""

from __future__ import annotations

from pathlib import Path

from launcher.preflight.facts import gather
from launcher.preflight.judge import Trouble, judge
from planner.job import Job
from profiles.errors import PreflightError
from profiles.site import PreflightMode


def check_here(job: Job, root: Path, mode: PreflightMode) -> tuple[Trouble, ...]:
    """Return what is not as the plan expects on this machine, where runs are kept in `root`.

    Raises:
        PreflightError: naming everything that keeps the job from running, when `mode` is strict.
    """
    if mode == "off":
        return ()
    ranks = job.plan.layout.world_size
    folder = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    facts = gather(folder, folder)
    facts = facts.model_copy(update={"devices": facts.devices[:ranks]})  # torchrun leaves the others alone
    troubles = judge(job, [facts.host], {facts.host: facts}, token=facts.token, ranks_per_node=ranks)
    errors = [trouble.message for trouble in troubles if trouble.severity == "error"]
    if errors and mode == "strict":
        raise PreflightError(
            f"this machine is not what the plan was made for: {'; '.join(errors)};\n"
            "launch it with --on slurm, plan for this machine (cuboid probe -o cluster.yaml),"
            " or go on with --preflight warn"
        )
    return troubles
