"""One explained number, and the lines that say where its constants are from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.costs import Assessment
from planner.costs.communication import LINK_EFFICIENCY, LINK_EFFICIENCY_SOURCES
from planner.costs.roofline import peak_flops
from planner.plan import Plan
from profiles.units import format_bytes, format_count, format_seconds


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One number: its formula in symbols and with numbers, its value, and where the constants are from."""

    field: str
    formula: str
    numbers: str
    value: float
    text: str
    sources: tuple[str, ...] = ()


NO_SECONDS, SHORT_SECONDS, LONG_SECONDS = 1e-12, 1e-6, 100.0


def seconds_text(seconds: float) -> str:
    """Write a time that is put into a formula: in no unit that hides what it is worked out to."""
    if abs(seconds) < NO_SECONDS:
        return format_seconds(0)
    if SHORT_SECONDS <= abs(seconds) < LONG_SECONDS:
        return format_seconds(seconds)
    return f"{seconds:.5g} s"


Builder = Callable[[Plan, Assessment], Explanation]


def seconds_entry(field: str, formula: str, numbers: str, value: float, *sources: str) -> Explanation:
    """Explain a time."""
    return Explanation(
        field=field,
        formula=formula,
        numbers=numbers,
        value=value,
        text=format_seconds(value),
        sources=sources,
    )


def bytes_entry(field: str, formula: str, numbers: str, value: float, *sources: str) -> Explanation:
    """Explain an amount of memory."""
    return Explanation(
        field=field, formula=formula, numbers=numbers, value=value, text=format_bytes(value), sources=sources
    )


def device_lines(plan: Plan, *names: str) -> tuple[str, ...]:
    """Return the device's fields, each with its source."""
    device = plan.cluster.device
    lines = []
    for name in names:
        value = getattr(device, name)
        if isinstance(value, dict):
            value = f"{format_count(peak_flops(device, plan.layout.precision), 'FLOP/s')} peak"
        elif isinstance(value, float) and value >= 1e6:
            value = f"{value:.6g}"
        lines.append(f"{name} = {value} ({device.name}: {device.sources.get(name, 'assumed')})")
    return tuple(lines)


def link_lines(plan: Plan) -> tuple[str, ...]:
    """Return the cluster's links, with the sources of their rates, latencies and efficiencies."""
    return tuple(
        f"{link.name}: {format_count(link.bytes_per_second, 'B/s')}, shared by {link.shared_by:g}"
        f" ({link.source}); {format_seconds(link.latency_seconds)} a hop ({link.latency_source});"
        f" reaches {LINK_EFFICIENCY[link.kind]:.0%} ({LINK_EFFICIENCY_SOURCES[link.kind]})"
        for link in plan.cluster.links
    )


def slowest_rank(assessment: Assessment) -> tuple[int, tuple[int, ...]]:
    """Return the pipeline rank whose times the breakdown shows, and its stages."""
    busy = assessment.pipeline.busy
    rank = max(range(len(busy)), key=busy.__getitem__)
    return rank, assessment.pipeline.stages_of_ranks[rank]
