"""What limits a layout, and why one is faster than another, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.costs.memory import tight
from planner.estimate import Estimate, TimeBreakdown
from planner.ranking import TIE
from profiles.cluster import ClusterSpec
from profiles.units import format_seconds

if TYPE_CHECKING:
    from planner.search import RankedPlan

# Time that is not the model's own arithmetic, as people call it.
OVERHEADS = {
    "bubble": "bubble",
    "tp_comm": "tp traffic",
    "pp_comm": "pp traffic",
    "dp_comm": "dp traffic",
    "recompute": "recomputation",
    "optimizer": "optimizer",
}
PARTS = {"forward": "forward", "backward": "backward", **OVERHEADS}
NOTICEABLE = 0.05  # of the step
NEARLY_FULL = 0.9  # of the device's memory


def limits(estimate: Estimate, cluster: ClusterSpec) -> str:
    """Name what keeps a layout from being faster: its largest overheads, and memory when nearly full."""
    if not estimate.fits:
        return "memory"
    step = estimate.step_seconds or 1.0
    shares = sorted(
        ((getattr(estimate.time, field) / step, name) for field, name in OVERHEADS.items()), reverse=True
    )
    words = [f"{name} {share:.0%}" for share, name in shares[:2] if share >= NOTICEABLE]
    if estimate.memory.peak_bytes > NEARLY_FULL * cluster.device.memory_bytes:
        words.append("memory")
    return ", ".join(words) or "compute"


def compare(winner: Estimate, other: Estimate, *, name: str = "the runner-up", subject: str = "It") -> str:
    """Say in one sentence by how much and through what `winner` is faster than `other`."""
    if not other.fits:
        return f"{name[0].upper()}{name[1:]} does not fit the memory of its devices."
    gain = other.step_seconds - winner.step_seconds
    percent = gain / winner.step_seconds if winner.step_seconds else 0.0
    if -TIE <= percent < 0.0005:
        return f"{subject} ties with {name} in time{_apart(percent)}; {_preferred(winner, other)}."
    less, more = _differences(winner.time, other.time)
    verb = "faster" if gain > 0 else "slower"
    text = f"{subject} is {abs(percent):.1%} {verb} than {name}"
    first, second = (less, more) if gain > 0 else (more, less)
    if first:
        text += f": {_phrase(first, 'less' if gain > 0 else 'more')}"
        if second and second[0][0] > 0.1 * first[0][0]:
            text += f", against {_phrase(second, 'more' if gain > 0 else 'less')}"
    return text + "."


def _differences(
    winner: TimeBreakdown, other: TimeBreakdown
) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Parts in which the winner takes less, and more, the largest first."""
    changes = [(getattr(other, field) - getattr(winner, field), name) for field, name in PARTS.items()]
    less = sorted(((seconds, name) for seconds, name in changes if seconds > 0), reverse=True)
    more = sorted(((-seconds, name) for seconds, name in changes if seconds < 0), reverse=True)
    return less, more


def _phrase(parts: list[tuple[float, str]], word: str) -> str:
    largest = [part for part in parts[:3] if part[0] >= 0.1 * parts[0][0]]
    return ", ".join(f"{format_seconds(seconds)} {word} {name}" for seconds, name in largest)


def _apart(percent: float) -> str:
    return f" ({-percent:.1%} apart)" if percent <= -0.0005 else ""


def _preferred(winner: Estimate, other: Estimate) -> str:
    lean = winner.memory.peak_bytes < (1 - NOTICEABLE) * other.memory.peak_bytes
    return "it needs less memory" if lean else "it is no less plain"


def memory_warning(plans: Sequence[RankedPlan], cluster: ClusterSpec) -> str:
    """Say so where the chosen plan leaves less memory than fragmentation usually takes, and what leaves more.

    Empty where it leaves enough.
    """
    device, best = cluster.device, plans[0].estimate
    if not tight(device, best.memory.peak_bytes):
        return ""
    full = best.memory.peak_bytes / device.memory_bytes
    text = f"Its fullest rank takes {full:.0%} of its memory: fragmentation may exhaust it."
    for plan in plans[1:]:
        peak, step = plan.estimate.memory.peak_bytes, plan.estimate.step_seconds
        if not tight(device, peak):
            slower = f"{step / best.step_seconds - 1:.1%} slower"
            return f"{text} Plan {plan.rank} leaves room ({peak / device.memory_bytes:.0%}), {slower}."
    return text
