"""Times of kernels: bounds, tiles, and columns of layouts against one layout at a time."""

from dataclasses import replace

import numpy as np
import pytest

from planner.costs.compute import (
    Slice,
    block_kernels,
    block_times,
    embedding_times,
    head_times,
    optimizer_seconds,
)
from planner.costs.roofline import bandwidth
from planner.costs.software import MATERIALISED, MODERN
from profiles.model import ModelSpec
from profiles.presets import device_preset

A100 = device_preset("a100-sxm4-80gb")


def test_flash_attention_beats_stored_scores_and_more_so_on_long_sequences(gpt: ModelSpec) -> None:
    part, flash = Slice(microbatch=4, tp=8), replace(MATERIALISED, flash_attention=True)
    ratios = []
    for length in (1024, 8192):
        model = gpt.model_copy(update={"seq_len": length})
        stored = block_times(model, A100, MATERIALISED, part).forward
        ratios.append(stored / block_times(model, A100, flash, part).forward)
    assert 1 < ratios[0] < ratios[1]


def test_columns_of_layouts_have_the_times_of_single_layouts(gpt: ModelSpec) -> None:
    microbatch, tp = np.array([1, 2, 4, 1]), np.array([1, 8, 4, 8])
    parallel = np.array([False, True, False, False])
    columns = block_times(
        gpt, A100, MATERIALISED, Slice(microbatch=microbatch, tp=tp, sequence_parallel=parallel)
    )
    for i in range(4):
        part = Slice(microbatch=int(microbatch[i]), tp=int(tp[i]), sequence_parallel=bool(parallel[i]))
        single = block_times(gpt, A100, MATERIALISED, part)
        for name in ("forward", "backward", "weight_gradient", "recompute_selective", "recompute_full"):
            assert np.asarray(getattr(columns, name))[i] == pytest.approx(float(getattr(single, name)))


def test_a_block_of_the_22b_model_takes_what_was_published(gpt: ModelSpec) -> None:
    """Korthikanti et al. 2022, table 4: 7.7 ms forward, 11.9 ms backward; 1.7 ms of each is traffic."""
    times = block_times(gpt, A100, MATERIALISED, Slice(microbatch=4, tp=8, precision="fp16"))
    assert float(times.forward) == pytest.approx((7.7 - 1.7) * 1e-3, rel=0.15)
    assert float(times.backward) == pytest.approx((11.9 - 1.7) * 1e-3, rel=0.15)


def test_the_head_is_split_over_tp(gpt: ModelSpec) -> None:
    whole = head_times(gpt, A100, MODERN, Slice(microbatch=4, tp=1)).forward
    split = head_times(gpt, A100, MODERN, Slice(microbatch=4, tp=8)).forward
    assert 6 < whole / split < 9


def test_the_optimizer_moves_every_state_once() -> None:
    seconds = optimizer_seconds(A100, 1e9, 4, 2)
    assert seconds == pytest.approx(1e9 * (8 + 24 + 2) / bandwidth(A100), rel=1e-3)


def test_learned_positions_start_no_kernel_of_a_block(gpt: ModelSpec) -> None:
    rope = gpt.model_copy(update={"position": "rope"})
    learned, rotated = (
        block_kernels(model, A100, MODERN, Slice(microbatch=1, tp=8)) for model in (gpt, rope)
    )
    assert [kernel for kernel in rotated if kernel.name != "rotary"] == list(learned)
    assert len(rotated) == len(learned) + 1


def test_starting_collectives_keeps_the_host_busy_and_alone_it_starts_none(gpt: ModelSpec) -> None:
    """Two ranks have half a rank's work each but the same kernels to start, and the collectives besides."""
    one = block_times(gpt, A100, MATERIALISED, Slice(microbatch=4, tp=1))
    two = block_times(gpt, A100, MATERIALISED, Slice(microbatch=4, tp=2))
    assert two.forward < one.forward
    assert two.host_forward > 1.02 * one.host_forward
    assert two.host_recompute_full > two.host_forward


def test_what_the_host_reads_every_microbatch_is_waited_for_once_a_microbatch(gpt: ModelSpec) -> None:
    slow, none = replace(MATERIALISED, loss_seconds=0.5), replace(MATERIALISED, loss_seconds=0.0)
    for times, wait in ((embedding_times, 0.0), (head_times, 0.5)):
        for microbatch in (1, 8):
            part = Slice(microbatch=microbatch)
            longer = times(gpt, A100, slow, part).forward - times(gpt, A100, none, part).forward
            assert longer == pytest.approx(wait)
    assert block_times(gpt, A100, slow, Slice(microbatch=1)) == block_times(
        gpt, A100, none, Slice(microbatch=1)
    )


def test_traffic_of_stored_scores_counts_with_their_number(gpt: ModelSpec) -> None:
    """Four times the scores at twice the sequence: what they add must be quadratic in the sequence."""
    busy = replace(MATERIALISED, score_traffic=MATERIALISED.score_traffic + 1)
    added = []
    for length in (1024, 2048):
        model = gpt.model_copy(update={"seq_len": length})
        part = Slice(microbatch=4, tp=8)
        added.append(
            float(
                block_times(model, A100, busy, part).forward
                - block_times(model, A100, MATERIALISED, part).forward
            )
        )
    assert added[1] == pytest.approx(4 * added[0])
