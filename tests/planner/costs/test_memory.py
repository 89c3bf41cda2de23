"""Bytes against the published formulas."""

import pytest

from planner.costs.compute import Slice
from planner.costs.memory import (
    block_activation_bytes,
    fits,
    gathered_bytes,
    gradient_bytes,
    optimizer_bytes,
    tight,
    weight_bytes,
)
from planner.costs.software import MATERIALISED, MODERN
from profiles.model import ModelSpec
from profiles.presets import device_preset, model_preset


@pytest.mark.parametrize(("name", "microbatch"), [("gpt3-22b", 4), ("gpt3-175b", 1), ("gpt3-1t", 1)])
@pytest.mark.parametrize("tp", [1, 8])
def test_activations_follow_the_published_formulas(name: str, microbatch: int, tp: int) -> None:
    """Korthikanti et al. 2022, table 2."""
    m = model_preset(name)
    sbh = m.seq_len * microbatch * m.hidden
    scores = 5 * m.heads * m.seq_len / m.hidden
    part = Slice(microbatch=microbatch, tp=tp, precision="fp16")
    parallel = Slice(microbatch=microbatch, tp=tp, sequence_parallel=True, precision="fp16")

    def kept(where: Slice, recompute: str) -> float:
        return float(block_activation_bytes(m, MATERIALISED, where, recompute))

    assert kept(part, "none") == pytest.approx(sbh * (10 + 24 / tp + scores / tp))
    assert kept(parallel, "none") == pytest.approx(sbh / tp * (34 + scores))
    assert kept(part, "selective") == pytest.approx(sbh * (10 + 24 / tp))
    assert kept(parallel, "selective") == pytest.approx(sbh * 34 / tp)
    assert kept(part, "full") == pytest.approx(2 * sbh)


def test_flash_attention_keeps_no_scores(gpt: ModelSpec) -> None:
    part = Slice(microbatch=1, tp=1)
    once = float(block_activation_bytes(gpt, MODERN, part))
    longer = float(block_activation_bytes(gpt.model_copy(update={"seq_len": 2 * gpt.seq_len}), MODERN, part))
    assert longer == pytest.approx(2 * once)  # linear in the sequence


def test_states_add_up_to_eighteen_bytes_and_are_sharded_in_turn() -> None:
    for zero, expected in ((0, 18.0), (1, 6 + 12 / 4), (2, 2 + 16 / 4), (3, 18 / 4)):
        total = (
            weight_bytes(1e9, "bf16", 4, zero)
            + gradient_bytes(1e9, MODERN, "bf16", 4, zero)
            + optimizer_bytes(1e9, "bf16", 4, zero)
        )
        assert float(total) == pytest.approx(expected * 1e9)


def test_fp32_needs_no_master_weights() -> None:
    total = (
        weight_bytes(1.0, "fp32", 1, 0)
        + gradient_bytes(1.0, MODERN, "fp32", 1, 0)
        + optimizer_bytes(1.0, "fp32", 1, 0)
    )
    assert float(total) == 16


def test_zero_3_holds_whole_blocks_for_a_moment(gpt: ModelSpec) -> None:
    assert float(gathered_bytes(gpt, MODERN, "bf16", 1, 2)) == 0
    assert float(gathered_bytes(gpt, MODERN, "bf16", 2, 3)) == pytest.approx(3 * gpt.block_parameters)


def test_a_nearly_full_device_is_called_tight() -> None:
    device = device_preset("a100-sxm4-80gb")
    assert fits(device, device.memory_bytes * 0.99)
    assert tight(device, device.memory_bytes * 0.99)
    assert not tight(device, device.memory_bytes * 0.8)
    assert not fits(device, device.memory_bytes * 1.01)
    assert not tight(device, device.memory_bytes * 1.01)
