"""Sample any point: hands each kind to what measures it."""

from __future__ import annotations

from profiles.bench_request import BenchRequest
from runtime.bench.collectives import Groups, sample_collective
from runtime.bench.layers import DTYPES, LayerBench
from runtime.bench.machine import sample_matmul
from runtime.bench.measured import Measured
from runtime.bench.optimizer import sample_optimizer
from runtime.bench.overlap import sample_overlap
from runtime.bench.points import CollectivePoint, LayerPoint, MatmulPoint, OverlapPoint, Point
from runtime.bench.ranks import Place


class Sampler:
    """Measures points on one rank; keeps what is dear to build."""

    def __init__(self, request: BenchRequest, place: Place) -> None:
        self._request, self._place = request, place
        self._layers = LayerBench(request, place)
        self._groups = Groups(place)

    def let_go(self) -> None:
        """Drop the layers that were built."""
        self._layers.let_go()

    def sample(self, point: Point, *, window_seconds: float, least: int) -> Measured:
        """Measure `point` for about `window_seconds`, at least `least` samples. Every rank must call it."""
        if isinstance(point, LayerPoint):
            return self._layers.sample(point, window_seconds=window_seconds, least=least)
        if isinstance(point, CollectivePoint):
            laps = sample_collective(
                point, self._place, self._groups, window_seconds=window_seconds, least=least
            )
        elif isinstance(point, MatmulPoint):
            laps = sample_matmul(self._place, DTYPES[self._request.precision], window_seconds=window_seconds)
        elif isinstance(point, OverlapPoint):
            laps = sample_overlap(
                point, self._layers, self._place, window_seconds=window_seconds, least=least
            )
        else:
            laps = sample_optimizer(self._request, self._place, window_seconds=window_seconds, least=least)
        return Measured(laps=laps)
