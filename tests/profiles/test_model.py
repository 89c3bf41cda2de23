"""Parameter counts against the published ones, and the refusals."""

from __future__ import annotations

import pytest

from profiles.documents import validate
from profiles.errors import FieldError
from profiles.model import ModelSpec
from profiles.presets import model_preset

# Published: GPT-2 124,439,808 (OpenAI's checkpoint, position table of 1,024);
# Llama 3.1 8B 8,030,261,248, 70B 70,553,706,496, 405B 405,853,388,800 (Meta's model cards, exact by config).
PUBLISHED = {
    "gpt2": 124_439_808,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, count: int) -> None:
    assert model_preset(name).parameters == count


def test_defaults_follow_the_position_kind() -> None:
    shape = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 256, "seq_len": 32}
    gpt = validate(ModelSpec, shape)
    llama = validate(ModelSpec, shape | {"position": "rope", "norm": "rmsnorm", "gated_mlp": True})
    assert (gpt.kv_heads, gpt.head_dim, gpt.ffn_hidden, gpt.activation) == (4, 16, 256, "gelu")
    assert gpt.linear_bias
    assert gpt.attention_bias
    assert llama.activation == "silu"
    assert not llama.linear_bias


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"heads": 5}, "heads"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"heads": 64, "position": "rope"}, "head_dim"),
        ({"layers": 0}, "layers"),
        ({"vocab": -1}, "vocab"),
        ({"hidden": "64"}, "hidden"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_at_its_field(change: dict[str, object], field: str) -> None:
    shape = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 256, "seq_len": 32}
    with pytest.raises(FieldError) as caught:
        validate(ModelSpec, shape | change)
    assert caught.value.path == (field,)
