"""FLOPs against the formulas that papers publish."""

import pytest

from planner.costs.flops import block_flops, head_flops, model_flops
from profiles.model import ModelSpec
from profiles.presets import model_preset


@pytest.mark.parametrize("name", ["gpt3-22b", "gpt3-175b", "gpt3-530b", "gpt3-1t"])
def test_a_gpt_follows_the_published_formula(name: str) -> None:
    m = model_preset(name)
    batch, s, h = 64, m.seq_len, m.hidden
    published = 72 * batch * s * m.layers * h**2 * (1 + s / (6 * h) + m.vocab / (12 * m.layers * h))
    assert model_flops(m, batch) == pytest.approx(published, rel=1e-12)


def test_llama_counts_every_matrix_once() -> None:
    m = model_preset("llama3.1-8b")
    matrices = m.block_parameters - 2 * m.norm_parameters  # no biases: all other parameters are multiplied
    weights = 2 * m.seq_len * matrices
    scores = 2 * 2 * m.seq_len**2 * m.query_width
    assert block_flops(m) == weights + scores
    assert head_flops(m) == 2 * m.seq_len * m.hidden * m.vocab


def test_torch_counts_the_same() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    m = ModelSpec(layers=1, hidden=32, heads=4, vocab=64, seq_len=16)
    x = torch.randn(m.seq_len, m.hidden)
    matrices = [
        torch.randn(k, n)
        for k, n in (
            (m.hidden, m.query_width + 2 * m.kv_width),
            (m.query_width, m.hidden),
            (m.hidden, m.ffn_hidden),
        )
    ]
    with FlopCounterMode(display=False) as counter:
        q, k, v = (x @ matrices[0]).split([m.query_width, m.kv_width, m.kv_width], dim=1)
        heads = [t.reshape(m.seq_len, m.heads, m.head_dim).transpose(0, 1) for t in (q, k, v)]
        out = torch.bmm(torch.bmm(heads[0], heads[1].transpose(1, 2)).softmax(-1), heads[2])
        y = out.transpose(0, 1).reshape(m.seq_len, m.query_width) @ matrices[1]
        (y @ matrices[2]) @ torch.randn(m.ffn_hidden, m.hidden)
    assert block_flops(m) == counter.get_total_flops()
