"""What communication over dp adds to the end of a step, rank by rank."""

from __future__ import annotations

from dataclasses import dataclass

from planner.costs.rates import beside


@dataclass(frozen=True, kw_only=True)
class DataTraffic:
    """Seconds that communication over dp adds to one pipeline rank.

    `reduction` sums the rank's gradients. Of it `late` only begins when the last backward has ended, and
    `beside` is what that backward does not hide of the rest. `gathering` hands out updated weights, `sharded`
    is what ZeRO-2 and 3 add to all microbatches. The rank's last action ends at `end` of `pipeline` seconds.
    """

    reduction: float
    late: float
    beside: float
    gathering: float
    sharded: float
    end: float
    pipeline: float

    @property
    def exposed(self) -> float:
        """Seconds beyond the pipeline's end; negative for a rank that is done before."""
        return self.end + (self.late + self.beside) + (self.gathering + self.sharded) - self.pipeline


def hidden_reduction(reduction: float, backward: float, parts: int) -> tuple[float, float]:
    """Split a reduction that runs beside the last backward into what is late and what it adds beside.

    The gradients of `parts` equal parts are summed as they come; those of the last part come at the end.
    """
    late = reduction / parts
    return late, float(beside(backward * (1 - 1 / parts), reduction - late))


def sharded_traffic(
    work: tuple[float, float], phases: tuple[float, float], *, blocks: int, overlap: bool
) -> float:
    """Return what the collectives of one microbatch add to its forward and backward `work` seconds."""
    if not overlap:
        return sum(phases)
    return sum(
        float(beside(seconds, part)) + part / blocks for seconds, part in zip(work, phases, strict=True)
    )
