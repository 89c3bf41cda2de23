"""Configs of every known family, against the parameters that transformers itself counts."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ConfigError, FieldError
from profiles.huggingface import model_from_huggingface
from profiles.presets import load_model, model_preset

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
GQA = {"num_key_value_heads": 2}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 512, "n_positions": 128}),
    ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 512, "n_positions": 128, "n_inner": 96}),
    ("llama", SMALL),
    ("llama", SMALL | GQA),
    ("llama", SMALL | GQA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", SMALL | {"head_dim": 16}),
    ("mistral", SMALL | {"num_key_value_heads": 8}),
    ("mistral", SMALL | GQA),
    ("qwen2", SMALL | {"num_key_value_heads": 8}),
    ("qwen2", SMALL | GQA),
    ("qwen3", SMALL | GQA | {"head_dim": 16}),
    ("qwen3", SMALL | {"num_key_value_heads": 8, "head_dim": 8}),
    ("gemma", SMALL | {"num_key_value_heads": 1, "head_dim": 16}),
    ("gemma", SMALL | {"num_key_value_heads": 8, "head_dim": 8}),
    ("gemma2", SMALL | GQA | {"head_dim": 16}),
    ("gemma3_text", SMALL | GQA | {"head_dim": 16}),
    ("phi", SMALL),
    ("phi", SMALL | GQA),
    ("phi", SMALL | GQA | {"head_dim": 16}),
    ("phi3", SMALL | {"num_key_value_heads": 8}),
    ("phi3", SMALL | GQA),
]


def beyond_our_shape(family: str, data: dict[str, Any]) -> int:
    """Parameters of the parts that `approximations` names."""
    layers, hidden = data.get("num_hidden_layers", 0), data.get("hidden_size", 0)
    dim = data.get("head_dim") or (hidden // data["num_attention_heads"] if hidden else 0)
    return {
        "qwen3": 2 * layers * dim,
        "gemma2": 2 * layers * hidden,
        "gemma3_text": 2 * layers * (hidden + dim),
        "phi": data.get("vocab_size", 0) - layers * 2 * hidden,  # head bias; one norm fewer per block
    }.get(family, 0)


@pytest.mark.parametrize(("family", "data"), CASES)
def test_parameters_are_those_of_transformers(family: str, data: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.AutoConfig.for_model(family, **data)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    if config.tie_word_embeddings:
        model.tie_weights()
    count = sum(parameter.numel() for parameter in model.parameters())
    written = json.loads(config.to_json_string(use_diff=False))
    spec = model_from_huggingface(written)
    assert spec.parameters + beyond_our_shape(family, data) == count


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"])
def test_what_a_config_leaves_out_is_what_transformers_puts_in(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    bare = SMALL | {"num_attention_heads": 32, "hidden_size": 256}
    config = transformers.AutoConfig.for_model(family, **bare)
    spec = model_from_huggingface({"model_type": family, **bare})
    assert spec.kv_heads == config.num_key_value_heads
    assert spec.head_dim == (getattr(config, "head_dim", None) or 256 // 32)
    assert spec.tied_embeddings == config.tie_word_embeddings
    assert spec.norm_epsilon == config.rms_norm_eps
    # A null is not a key left out: it means as many as heads.
    whole = model_from_huggingface({"model_type": family, **bare, "num_key_value_heads": None})
    assert whole.kv_heads == 32


def test_the_language_model_of_a_model_that_sees_is_planned_without_its_tower() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    # As published for the 4B: what the family gives by itself is left out.
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    spec = model_from_huggingface({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert spec == model_from_huggingface(
        {
            "model_type": "gemma3_text",
            "vocab_size": 262208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
        }
        | {"head_dim": 256, "max_position_embeddings": 131072, **text}
    ).model_copy(update={"name": "gemma3", "approximations": spec.approximations})
    assert spec.approximations[-1] == "a vision tower"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.Gemma3TextConfig(**text))
    model.tie_weights()
    named = 34 * (2 * 2560 + 2 * 256)  # two more norms a block, one on queries and one on keys
    assert spec.parameters + named == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model_type": "gemma3", "text_config": {"hidden_size": 64}}, "text_config.num_hidden_layers"),
        ({"model_type": "mistral3", "text_config": {"model_type": "bert"}}, "text_config.model_type: 'bert'"),
        ({"model_type": "mistral3", "text_config": "mistral"}, "text_config: a model of several"),
        ({"model_type": "mistral3", "text_config": {"num_experts": 8}}, "text_config.num_experts: a mixture"),
    ],
)
def test_a_wrong_language_model_is_refused_at_its_place(data: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        model_from_huggingface(data)


def test_features_beyond_the_shape_are_named() -> None:
    spec = model_from_huggingface(
        {"model_type": "mistral", **SMALL, "sliding_window": 64, "rope_scaling": {"rope_type": "yarn"}}
    )
    assert spec.approximations == (
        "'yarn' scaling of rotary positions",
        "a sliding window of 64 tokens (attention is counted in full)",
    )
    plain = model_from_huggingface({"model_type": "mistral", **SMALL, "sliding_window": None})
    assert plain.approximations == ()


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_field_is_named_at_its_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama"} | {k: v for k, v in SMALL.items() if k != key}))
    with pytest.raises(ConfigError, match=rf"config\.json:1:1: {key}: '{key}' is missing"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"model_type": "mixtral", **SMALL, "num_local_experts": 8},
            "num_local_experts: a mixture of experts",
        ),
        ({"model_type": "qwen3_moe", **SMALL, "num_experts": 128}, "num_experts: a mixture of experts"),
        ({"model_type": "bert", **SMALL}, "model_type: 'bert' is not supported; known: gpt2, llama"),
        ({"model_type": "llava", "text_config": {}}, "text_config: a model of several modalities"),
        ({"architectures": ["LlamaForCausalLM"], **SMALL}, "'model_type' is missing"),
        ({"model_type": "llama", **SMALL, "hidden_act": "mish"}, "hidden_act: 'mish' is not supported"),
        ({"model_type": "llama", **SMALL, "hidden_size": "64"}, "hidden_size: must be a whole number from 1"),
        ({"model_type": "llama", **SMALL, "rms_norm_eps": "small"}, "rms_norm_eps: must be a number above 0"),
    ],
)
def test_what_is_not_known_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        model_from_huggingface(data)


@given(data=st.data())
def test_whatever_a_field_holds_is_read_or_refused(data: st.DataObject) -> None:
    family, config = data.draw(st.sampled_from(CASES))
    keys = [*config, "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"]
    keys += [
        "hidden_act",
        "hidden_activation",
        "sliding_window",
        "tie_word_embeddings",
        "model_type",
        "n_inner",
    ]
    values = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 100),
        st.floats(allow_nan=False),
        st.text(max_size=4),
        st.just([]),
        st.just({"rope_theta": "x"}),
    )
    wrong = data.draw(st.dictionaries(st.sampled_from(keys), values, max_size=2))
    with contextlib.suppress(ConfigError):
        model_from_huggingface({"model_type": family, **config, **wrong})


def test_the_config_of_a_preset_gives_the_preset() -> None:
    preset = model_preset("llama3.1-8b")
    spec = model_from_huggingface(
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
        }
    )
    assert spec.model_copy(update={"name": preset.name}) == preset
