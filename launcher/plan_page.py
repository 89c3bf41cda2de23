"""The page of a search: one file without network, with the ranking, the Pareto front and what limits it."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.charts import bar_chart
from launcher.html_report import environment
from launcher.plan_view import COLUMNS, cells, short
from launcher.scatter import Point, scatter
from planner.outlook import Shift
from planner.query import Query
from planner.search import RankedPlan, SearchResult
from planner.verdict import compare
from profiles.units import format_bytes, format_count, format_seconds

MEMORY_PARTS = ("weights", "gradients", "optimizer", "activations", "workspace")


def render_plans(
    query: Query,
    result: SearchResult,
    front: Sequence[RankedPlan],
    shifts: Sequence[Shift],
    *,
    remarks: Sequence[str] = (),
) -> str:
    """Return the page as HTML."""
    model, cluster = query.model, query.cluster
    best = result.best
    why = compare(best.estimate, result.plans[1].estimate) if len(result.plans) > 1 else ""
    stages = best.estimate.memory.per_stage
    return (
        environment()
        .get_template("plan.html.j2")
        .render(
            title=f"{model.name} on {query.devices:,} × {cluster.device.name}",
            lead=(
                f"{format_count(model.parameters)} parameters, {model.seq_len:,} tokens a sequence, global"
                f" batch {query.global_batch:,}; {cluster.name}, {cluster.devices_per_node} devices a node"
            ),
            chosen=(
                f"{short(best)}: {format_seconds(best.estimate.step_seconds)} a step,"
                f" {format_count(best.estimate.tokens_per_second)} tokens/s. {why}"
            ),
            columns=COLUMNS,
            rows=[cells(ranked, cluster, query.devices) for ranked in result.plans],
            times=bar_chart(
                "Seconds of one step by part",
                [(f"plan {r.rank}", r.estimate.time.model_dump()) for r in result.plans],
                format_seconds,
            ),
            memory=bar_chart(
                "Bytes by class",
                [(f"rank {row.rank}", {part: getattr(row, part) for part in MEMORY_PARTS}) for row in stages],
                format_bytes,
            ),
            front=_scatter(query, result, front),
            shifts=[
                (
                    shift.condition,
                    format_seconds(shift.chosen_step_seconds),
                    "still the best" if shift.same else f"{short(shift.best)} is {shift.regret:.1%} faster",
                )
                for shift in shifts
            ],
            searched=(
                f"{result.searched:,} layouts bounded, {result.priced:,} simulated in"
                f" {format_seconds(result.seconds)}; "
                + (
                    f"none can be more than {result.gap:.1%} faster"
                    if result.gap
                    else "the fastest is proved"
                )
            ),
            infeasible=sorted(result.infeasible.items()),
            provenance=best.estimate.provenance,
            notes=[*best.estimate.notes, *remarks],
        )
    )


def _scatter(query: Query, result: SearchResult, front: Sequence[RankedPlan]) -> object:
    """Every plan that was priced, the front and the chosen one."""
    chosen = result.best.layout
    on_front = {point.layout for point in front}
    points = [
        Point(
            memory=ranked.estimate.memory.peak_bytes,
            seconds=ranked.estimate.step_seconds,
            kind="chosen" if ranked.layout == chosen else ("front" if ranked.layout in on_front else "other"),
            text=f"{short(ranked)}: {format_seconds(ranked.estimate.step_seconds)},"
            f" {format_bytes(ranked.estimate.memory.peak_bytes)}",
        )
        for ranked in {r.layout: r for r in (*result.others, *result.plans, *front)}.values()
    ]
    return scatter(
        "Step time against the memory of the fullest rank; blue: the Pareto front, orange: the chosen plan,"
        " dashed: the device's memory",
        points,
        limit=float(query.cluster.device.memory_bytes),
        write_memory=format_bytes,
        write_seconds=format_seconds,
    )
