"""Hugging Face `config.json` → ModelSpec.

A family is known when its parameters and its work are those of our shapes. What it has beyond them (a norm on
queries and keys, a sliding window, …) costs little and is named in `ModelSpec.approximations`; what would
change the price (experts, a second attention) is refused. A key that a config leaves out has the value that
its family gives it; the shape itself (layers, widths, vocabulary, length) has to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from profiles.documents import validate
from profiles.errors import FieldError
from profiles.model import ModelSpec

Config = Mapping[str, Any]

# Keys whose presence says that a block holds experts.
EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def is_huggingface(data: Config) -> bool:
    """Tell whether a mapping is a Hugging Face config rather than our own YAML."""
    return "model_type" in data or "architectures" in data


def model_from_huggingface(data: Config) -> ModelSpec:
    """Translate a config.

    Raises:
        FieldError: naming the field that is missing or not supported.
    """
    family = str(_need(data, "model_type"))
    if "moe" in family or family == "mixtral" or any(data.get(key) for key in EXPERT_KEYS):
        key = next((key for key in EXPERT_KEYS if data.get(key)), "model_type")
        raise FieldError((key,), "a mixture of experts is not supported; use a dense model")
    if data.get("text_config") is not None:
        return _text_model(data, family)
    if family not in FAMILIES:
        raise FieldError(("model_type",), f"'{family}' is not supported; known: {', '.join(FAMILIES)}")
    fields = FAMILIES[family](data)
    noted = fields.pop("approximations", [])
    if data.get("quantization_config"):
        noted = [*noted, "quantised weights (counted in the training precision)"]
    name = str(data.get("_name_or_path") or family).rstrip("/").rsplit("/", 1)[-1]
    return validate(ModelSpec, {"name": name or family, **fields, "approximations": noted})


def _text_model(data: Config, family: str) -> ModelSpec:
    """Translate the language model inside a model that also sees."""
    text = data["text_config"]
    if family not in WRAPPERS or not isinstance(text, Mapping):
        raise FieldError(
            ("text_config",), "a model of several modalities is not supported; give its text_config"
        )
    # The embedding is tied, or not, by the outer config.
    outer = {key: data[key] for key in ("tie_word_embeddings", "_name_or_path") if data.get(key) is not None}
    outer.setdefault("_name_or_path", family)
    try:
        spec = model_from_huggingface({**WRAPPERS[family], **text, **outer})
    except FieldError as error:
        raise FieldError(("text_config", *error.path), error.message) from None
    return spec.model_copy(update={"approximations": (*spec.approximations, "a vision tower")})


def _gpt2(data: Config) -> dict[str, Any]:
    if data.get("add_cross_attention"):
        raise FieldError(("add_cross_attention",), "cross-attention is not supported")
    hidden = _count(data, "n_embd")
    return {
        "layers": _count(data, "n_layer"),
        "hidden": hidden,
        "heads": _count(data, "n_head"),
        "ffn_hidden": _optional_count(data, "n_inner") or 4 * hidden,
        "vocab": _count(data, "vocab_size"),
        "seq_len": _count(data, "n_positions"),
        "activation": _activation(data, "activation_function", "gelu_new"),
        "position": "learned",
        "norm": "layernorm",
        "norm_epsilon": _number(data, "layer_norm_epsilon", 1e-5),
        "tied_embeddings": _flag(data, "tie_word_embeddings", True),
    }


def _gated(
    data: Config,
    *,
    activation: str = "silu",
    tied: bool = False,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    epsilon: float = 1e-6,
) -> dict[str, Any]:
    """Fields that all families after Llama share: RoPE, RMSNorm, a gated MLP.

    `kv_heads` and `head_dim` are the family's own where the config has no such key; a null means as many as
    heads, and hidden / heads.
    """
    heads = _count(data, "num_attention_heads")
    noted = []
    scaling = data.get("rope_scaling") or data.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, Mapping) else None
    if kind not in {None, "default"}:
        noted.append(f"'{kind}' scaling of rotary positions")
    return {
        "layers": _count(data, "num_hidden_layers"),
        "hidden": _count(data, "hidden_size"),
        "heads": heads,
        "kv_heads": _or_own(data, "num_key_value_heads", kv_heads) or heads,
        "head_dim": _or_own(data, "head_dim", head_dim),
        "ffn_hidden": _count(data, "intermediate_size"),
        "gated_mlp": True,
        "activation": _activation(data, "hidden_act", activation),
        "vocab": _count(data, "vocab_size"),
        "seq_len": _count(data, "max_position_embeddings"),
        "position": "rope",
        "norm": "rmsnorm",
        "norm_epsilon": _number(data, "rms_norm_eps", epsilon),
        "rope_theta": _rope_theta(data),
        "tied_embeddings": _flag(data, "tie_word_embeddings", tied),
        "attention_bias": False,
        "linear_bias": False,
        "approximations": noted,
    }


def _llama(data: Config) -> dict[str, Any]:
    fields = _gated(data)
    attention, mlp = _flag(data, "attention_bias", False), _flag(data, "mlp_bias", False)
    fields |= {"attention_bias": attention, "linear_bias": mlp}
    if attention != mlp:
        fields["approximations"].append("a bias on some of the output projections")
    return fields


def _mistral(data: Config) -> dict[str, Any]:
    fields = _gated(data, kv_heads=8)
    _note_window(data, fields)
    return fields


def _qwen2(data: Config) -> dict[str, Any]:
    fields = _gated(data, kv_heads=32) | {"attention_bias": True}
    if data.get("use_sliding_window"):
        _note_window(data, fields)
    return fields


def _qwen3(data: Config) -> dict[str, Any]:
    fields = _gated(data, kv_heads=32, head_dim=128)
    fields["attention_bias"] = _flag(data, "attention_bias", False)
    fields["approximations"].append("a norm on queries and keys")
    if data.get("attention_bias"):
        fields["approximations"].append("a bias on the attention's output projection")
    if data.get("use_sliding_window"):
        _note_window(data, fields)
    return fields


def _gemma(data: Config, *, kv_heads: int = 16) -> dict[str, Any]:
    fields = _gated(data, activation="gelu_pytorch_tanh", tied=True, kv_heads=kv_heads, head_dim=256)
    key = "hidden_activation" if data.get("hidden_activation") else "hidden_act"
    activation = _activation(data, key, "gelu_pytorch_tanh")
    # Gemma 1 configs say "gelu" but the family is trained with the tanh form.
    fields["activation"] = "gelu_tanh" if activation == "gelu" else activation
    fields["approximations"] += ["embeddings scaled by √hidden", "norms with weights counted from one"]
    if data.get("attention_bias"):
        fields["attention_bias"] = True
        fields["approximations"].append("a bias on the attention's output projection")
    return fields


def _gemma2(data: Config) -> dict[str, Any]:
    fields = _gemma(data, kv_heads=4)
    fields["approximations"].append("four norms per block")
    if data.get("final_logit_softcapping") or data.get("attn_logit_softcapping"):
        fields["approximations"].append("soft-capped logits")
    _note_window(data, fields)
    return fields


def _gemma3(data: Config) -> dict[str, Any]:
    fields = _gemma2(data)
    fields["approximations"].append("a norm on queries and keys")
    return fields


def _phi(data: Config) -> dict[str, Any]:
    hidden = _count(data, "hidden_size")
    heads = _count(data, "num_attention_heads")
    noted = [
        "attention and MLP side by side with one norm",
        "rotary positions on part of a head",
        "a bias on the head",
    ]
    if data.get("qk_layernorm"):
        noted.append("a norm on queries and keys")
    return {
        "layers": _count(data, "num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": _optional_count(data, "num_key_value_heads") or heads,
        "head_dim": _optional_count(data, "head_dim"),
        "ffn_hidden": _count(data, "intermediate_size"),
        "activation": _activation(data, "hidden_act", "gelu_new"),
        "vocab": _count(data, "vocab_size"),
        "seq_len": _count(data, "max_position_embeddings"),
        "position": "rope",
        "norm": "layernorm",
        "norm_epsilon": _number(data, "layer_norm_eps", 1e-5),
        "rope_theta": _rope_theta(data),
        "attention_bias": True,
        "linear_bias": True,
        "tied_embeddings": _flag(data, "tie_word_embeddings", False),
        "approximations": noted,
    }


def _phi3(data: Config) -> dict[str, Any]:
    fields = _gated(data, epsilon=1e-5)
    if _number(data, "partial_rotary_factor", 1.0) != 1.0:
        fields["approximations"].append("rotary positions on part of a head")
    _note_window(data, fields)
    return fields


FAMILIES: Mapping[str, Callable[[Config], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
}


# Models of text and images whose language model is of a known family, and what their text_config leaves out.
WRAPPERS: Mapping[str, Config] = {
    "gemma3": {
        "model_type": "gemma3_text",
        "num_attention_heads": 8,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "mistral3": {"model_type": "mistral"},
}


def _note_window(data: Config, fields: dict[str, Any]) -> None:
    """Name a sliding window that is shorter than the sequence: attention is counted in full."""
    window = data.get("sliding_window")
    if isinstance(window, int) and window < fields["seq_len"]:
        fields["approximations"].append(f"a sliding window of {window} tokens (attention is counted in full)")


def _rope_theta(data: Config) -> float:
    parameters = data.get("rope_parameters")
    nested = parameters if isinstance(parameters, Mapping) else {}
    return _number(data, "rope_theta", _number(nested, "rope_theta", 10000.0))


def _activation(data: Config, key: str, default: str) -> str:
    name = str(data.get(key) or default)
    if name not in ACTIVATIONS:
        raise FieldError((key,), f"'{name}' is not supported; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _need(data: Config, key: str) -> Any:
    if data.get(key) is None:
        raise FieldError((key,), f"'{key}' is missing from the config")
    return data[key]


def _count(data: Config, key: str) -> int:
    """Return a whole number that must be there."""
    value = _need(data, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FieldError((key,), f"must be a whole number from 1 on, not {value!r}")
    return value


def _optional_count(data: Config, key: str) -> int | None:
    return None if data.get(key) is None else _count(data, key)


def _or_own(data: Config, key: str, own: int | None) -> int | None:
    """Return an optional whole number: the family's own where the config lacks the key, None for a null."""
    return _optional_count(data, key) if key in data else own


def _number(data: Config, key: str, default: float) -> float:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise FieldError((key,), f"must be a number above 0, not {value!r}")
    return float(value)


def _flag(data: Config, key: str, default: bool) -> bool:
    value = data.get(key)
    return default if value is None else bool(value)
