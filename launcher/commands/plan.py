"""`cuboid plan`: search for the best layouts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.console import print_json, stderr_console, stdout_console
from launcher.plan_view import bill_line, show, show_front, show_shifts
from planner.pins import Pins, parse_pins
from profiles.documents import plain, read_document, require_writable, write_text
from profiles.errors import ConfigError, InfeasibleError
from profiles.presets import load_cluster, load_model

if TYPE_CHECKING:
    from planner.bill import Bill
    from planner.outlook import Shift
    from planner.query import Query
    from planner.search import RankedPlan, SearchResult
    from planner.targets import Target
    from profiles.cluster import ClusterSpec
    from profiles.costs import CostTable
    from profiles.model import ModelSpec


def plan(
    *,
    model: Annotated[str, typer.Option(help="Preset name, Hugging Face config.json, or model.yaml.")],
    cluster: Annotated[str, typer.Option(help="Preset name, or cluster.yaml from `cuboid probe`.")],
    devices: Annotated[
        int | None, typer.Option(help="How many devices; all of the cluster if left out.")
    ] = None,
    global_batch: Annotated[int, typer.Option(help="Sequences per optimizer step.")],
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens per sequence; the model's own if left out.")
    ] = None,
    costs: Annotated[Path | None, typer.Option(help="costs.yaml from `cuboid bench`.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to list.")] = 10,
    pin: Annotated[str, typer.Option(help="Decided fields: tp=8,schedule=1f1b.")] = "",
    target: Annotated[str, typer.Option(help="What must run it: cuboid, megatron or any.")] = "cuboid",
    use_all: Annotated[bool, typer.Option("--use-all", help="Leave no device idle.")] = False,
    why_not: Annotated[str, typer.Option(help="Say what speaks against tp=8,pp=2.")] = "",
    outlook: Annotated[
        bool, typer.Option("--outlook", help="Also the Pareto front, and what slower links would change.")
    ] = False,
    tokens: Annotated[str, typer.Option(help="Tokens to train on, as in 300B: days and device-hours.")] = "",
    price: Annotated[float | None, typer.Option(min=0.0, help="Price of one device-hour.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page about the search here.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the best plan here.")] = None,
) -> None:
    """Search all layouts of a model on a cluster and rank the fastest.

    Example: cuboid plan --model gpt3-175b --cluster selene --devices 64 --global-batch 64 -o plan.yaml
             cuboid plan --model config.json --cluster cluster.yaml --global-batch 256 --why-not tp=8,pp=2
    """
    pins, question = parse_pins(pin), parse_pins(why_not, option="--why-not")
    wanted = _tokens(tokens)
    if price is not None and wanted is None:
        raise ConfigError("--price needs --tokens, the number of tokens to train on")
    query = _query(
        load_model(model),
        cluster,
        devices,
        global_batch,
        seq_len,
        costs=costs,
        pins=pins,
        top=top,
        target=target,
        idle=not use_all,
    )
    for path in (output, html):
        if path is not None:
            require_writable(path)
    result = query.run()
    account = None
    if wanted is not None:
        from planner.bill import bill  # noqa: PLC0415 (only when asked)

        account = bill(result.best.estimate, tokens=wanted, devices=query.devices, price_per_hour=price)
    answer = _answer(query, question, result)
    front, shifts = _outlook(query, result) if outlook or html is not None else ([], [])
    _write(query, result, front, shifts, costs=costs, output=output, html=html)
    if json:
        print_json(to_json(result, front, shifts, answer=answer, account=account))
        return
    show(result, query.model, query.cluster, query.devices)
    if outlook:
        show_front(front, query.cluster, query.devices)
        show_shifts(shifts)
    for line in (answer, bill_line(account, query.devices) if account else ""):
        if line:
            stdout_console().print(line, markup=False)


def _tokens(text: str) -> float | None:
    if not text:
        return None
    from planner.bill import parse_tokens  # noqa: PLC0415 (only when asked)

    return parse_tokens(text)


def _query(
    model: ModelSpec,
    cluster: str,
    devices: int | None,
    global_batch: int,
    seq_len: int | None,
    *,
    costs: Path | None,
    pins: Pins,
    top: int,
    target: str,
    idle: bool,
) -> Query:
    from planner.query import Query  # noqa: PLC0415 (start-up time of --help)
    from planner.targets import find_target  # noqa: PLC0415

    if global_batch < 1:
        raise ConfigError(f"--global-batch {global_batch}: must be at least 1")
    if seq_len is not None:
        if seq_len < 1:
            raise ConfigError(f"--seq-len {seq_len}: must be at least 1")
        model = model.model_copy(update={"seq_len": seq_len})
    machine = _cluster(cluster, devices)
    aim = find_target(target)
    _note_approximations(model, aim)
    return Query(
        model=model,
        cluster=machine,
        devices=devices or machine.devices,
        global_batch=global_batch,
        costs=None if costs is None else _costs(costs),
        pins=pins.values,
        top=top,
        target=aim.name,
        idle=idle,
    )


def _note_approximations(model: ModelSpec, target: Target) -> None:
    """Say what of the model is not planned for, and whether the target trains such a model at all."""
    if not model.approximations:
        return
    text = f"note: {model.name} has {', '.join(model.approximations)}: left out here"
    if target.exact_models:
        text += f"; {target.framework} builds no such model, so `cuboid launch` will refuse the plan"
    stderr_console().print(text, markup=False)


def _answer(query: Query, question: Pins, result: SearchResult) -> str:
    if not question.values:
        return ""
    from planner.why_not import why_not  # noqa: PLC0415 (only when asked)

    return why_not(query, question, result.best)


def _outlook(query: Query, result: SearchResult) -> tuple[list[RankedPlan], list[Shift]]:
    from planner.outlook import pareto, sensitivity  # noqa: PLC0415 (only when asked)

    return pareto(query, result.best), sensitivity(query, result.best)


def _write(
    query: Query,
    result: SearchResult,
    front: list[RankedPlan],
    shifts: list[Shift],
    *,
    costs: Path | None,
    output: Path | None,
    html: Path | None,
) -> None:
    if output is not None:
        from launcher.plan_costs import origin  # noqa: PLC0415 (start-up time)
        from planner.plan import Plan, save_plan  # noqa: PLC0415 (start-up time)

        best = result.best
        save_plan(
            output,
            Plan(
                model=query.model,
                cluster=query.cluster,
                layout=best.layout,
                estimate=best.estimate,
                provenance=origin(costs, output),
            ),
        )
        stderr_console().print(f"wrote {output}", markup=False)
    if html is not None:
        from launcher.plan_page import render_plans  # noqa: PLC0415 (only when asked)

        write_text(html, render_plans(query, result, front, shifts))
        stderr_console().print(f"wrote {html}", markup=False)


def to_json(
    result: SearchResult,
    front: list[RankedPlan],
    shifts: list[Shift],
    *,
    answer: str,
    account: Bill | None,
) -> dict[str, Any]:
    """Return the search result as plain data; what was not asked for is left out."""
    data: dict[str, Any] = {
        "plans": [_plan_data(ranked) | _alike(ranked) for ranked in result.plans],
        "searched": result.searched,
        "priced": result.priced,
        "infeasible": dict(result.infeasible),
        "gap": result.gap,
        "seconds": result.seconds,
    }
    if front:
        data["pareto"] = [_plan_data(ranked) for ranked in front]
        data["sensitivity"] = [
            {
                "condition": shift.condition,
                "chosen_step_seconds": shift.chosen_step_seconds,
                "best_step_seconds": shift.best.estimate.step_seconds,
                "same": shift.same,
                "best": plain(shift.best.layout),
            }
            for shift in shifts
        ]
    if answer:
        data["why_not"] = answer
    if account is not None:
        data["bill"] = {
            "tokens": account.tokens,
            "days": account.days,
            "device_hours": account.device_hours,
            "price": account.price,
        }
    return data


def _plan_data(ranked: RankedPlan) -> dict[str, Any]:
    return {
        "rank": ranked.rank,
        "layout": plain(ranked.layout),
        "estimate": plain(ranked.estimate),
        "limited_by": ranked.limited_by,
    }


def _alike(ranked: RankedPlan) -> dict[str, Any]:
    """Layouts of the same degrees that gain nothing by another schedule, as plain data."""
    if not ranked.alike:
        return {}
    return {
        "alike": [
            {
                "layout": plain(other.layout),
                "step_seconds": other.estimate.step_seconds,
                "peak_bytes": other.estimate.memory.peak_bytes,
            }
            for other in ranked.alike
        ]
    }


def _cluster(name: str, devices: int | None) -> ClusterSpec:
    """Return the cluster with as many nodes as `devices` need; says so where that is more than it has."""
    cluster = load_cluster(name)
    if devices is None:
        return cluster
    if devices < 1:
        raise ConfigError(f"--devices {devices}: must be at least 1")
    nodes = -(-devices // cluster.devices_per_node)
    if nodes == cluster.nodes:
        return cluster
    if cluster.links[-1].span is not None and cluster.links[-1].span < devices:
        raise InfeasibleError(
            f"--devices {devices}: {cluster.name} has {cluster.devices} devices and no link beyond them"
        )
    if nodes > cluster.nodes:
        stderr_console().print(
            f"{cluster.name} has {cluster.devices} devices; planning for {nodes} such nodes", markup=False
        )
    return cluster.with_nodes(nodes)


def _costs(path: Path) -> CostTable:
    from profiles.costs import CostTable  # noqa: PLC0415 (start-up time)

    return read_document(path).read(CostTable)
