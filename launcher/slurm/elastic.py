"""`python -m launcher.slurm.elastic RUN NODES`: make the run's plan one for another number of nodes.

The batch script of an elastic job calls this on its first node. The plan that was sent is kept in
launch/plans/, as is every other one, so a number of nodes always gets the same plan again. The global batch
and the precision stay, so the training is the same; checkpoints do not depend on the layout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.run_directory import RunDirectory, open_run
from launcher.slurm.placement import place
from planner.plan import Plan, load_plan, save_plan
from profiles.costs import CostTable
from profiles.documents import read_document
from profiles.errors import ConfigError, CuboidError, InfeasibleError


def plan_for(run: RunDirectory, nodes: int) -> Plan:
    """Return the run's plan for `nodes` nodes, searched for once and kept.

    Raises:
        InfeasibleError: when no layout uses exactly those nodes.
        ConfigError: when a plan cannot be read or written.
    """
    folder = run.path / "launch" / "plans"
    present = run.plan()
    folder.mkdir(exist_ok=True)
    own = folder / f"{place(present).nodes}.yaml"
    if not own.exists():
        save_plan(own, present)
    path = folder / f"{nodes}.yaml"
    if path.exists():
        return load_plan(path)
    found = replan(present, nodes, costs=_costs(run))
    save_plan(path, found)
    return found


def replan(plan: Plan, nodes: int, *, costs: CostTable | None = None) -> Plan:
    """Return the best plan of the same training on all devices of `nodes` nodes.

    Raises:
        InfeasibleError: when none fits.
    """
    from planner.search import search  # noqa: PLC0415 (numpy)

    cluster = plan.cluster.with_nodes(nodes)
    result = search(
        plan.model,
        cluster,
        devices=cluster.devices,
        global_batch=plan.layout.global_batch,
        costs=costs,
        pins={"precision": plan.layout.precision},
        top=1,
        idle=False,
    )
    best = result.best
    if best.layout.world_size != cluster.devices:
        raise InfeasibleError(f"no layout uses all {cluster.devices} devices of {nodes} nodes")
    return plan.model_copy(update={"cluster": cluster, "layout": best.layout, "estimate": best.estimate})


def _costs(run: RunDirectory) -> CostTable | None:
    path = run.path / "costs.yaml"
    return read_document(path).read(CostTable) if path.exists() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace the plan of a run; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if len(words) != 2 or not words[1].isdigit():
            raise ConfigError("usage: python -m launcher.slurm.elastic RUN NODES")
        run, nodes = open_run(Path(words[0])), int(words[1])
        present = place(run.plan()).nodes
        chosen = plan_for(run, nodes)
        layout = chosen.layout
        if present != nodes:
            save_plan(run.path / "plan.yaml", chosen)
            sys.stdout.write(
                f"planned again for {nodes} nodes instead of {present}:"
                f" tp {layout.tp} × pp {layout.pp} × dp {layout.dp}, {layout.schedule}\n"
            )
    except CuboidError as error:
        sys.stderr.write(f"elastic: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
