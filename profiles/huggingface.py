"""Hugging Face `config.json` → ModelSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiles.documents import validate
from profiles.errors import FieldError
from profiles.model import ModelSpec


def is_huggingface(data: Mapping[str, Any]) -> bool:
    """Tell whether a mapping is a Hugging Face config rather than our own YAML."""
    return "model_type" in data or "architectures" in data


def model_from_huggingface(data: Mapping[str, Any]) -> ModelSpec:
    """Translate a config; refuses families whose layers we do not know.

    Raises:
        FieldError: naming the field that is missing or not supported.
    """
    family = data.get("model_type")
    if family == "gpt2":
        return _gpt2(data)
    if family in {"llama", "mistral"}:
        return _llama(data)
    raise FieldError(("model_type",), f"'{family}' is not supported; known: gpt2, llama, mistral")


def _gpt2(data: Mapping[str, Any]) -> ModelSpec:
    return validate(
        ModelSpec,
        {
            "name": data.get("_name_or_path") or "gpt2",
            "layers": _need(data, "n_layer"),
            "hidden": _need(data, "n_embd"),
            "heads": _need(data, "n_head"),
            "ffn_hidden": data.get("n_inner") or 4 * _need(data, "n_embd"),
            "vocab": _need(data, "vocab_size"),
            "seq_len": _need(data, "n_positions"),
            "activation": "gelu_tanh",
            "position": "learned",
            "norm": "layernorm",
            "norm_epsilon": float(data.get("layer_norm_epsilon", 1e-5)),
            "tied_embeddings": bool(data.get("tie_word_embeddings", True)),
        },
    )


def _llama(data: Mapping[str, Any]) -> ModelSpec:
    return validate(
        ModelSpec,
        {
            "name": data.get("_name_or_path") or str(data["model_type"]),
            "layers": _need(data, "num_hidden_layers"),
            "hidden": _need(data, "hidden_size"),
            "heads": _need(data, "num_attention_heads"),
            "kv_heads": data.get("num_key_value_heads") or _need(data, "num_attention_heads"),
            "head_dim": data.get("head_dim"),
            "ffn_hidden": _need(data, "intermediate_size"),
            "gated_mlp": True,
            "vocab": _need(data, "vocab_size"),
            "seq_len": _need(data, "max_position_embeddings"),
            "position": "rope",
            "norm": "rmsnorm",
            "attention_bias": bool(data.get("attention_bias", False)),
            "linear_bias": bool(data.get("mlp_bias", False)),
            "norm_epsilon": float(data.get("rms_norm_eps", 1e-5)),
            "rope_theta": float(data.get("rope_theta", 10000.0)),
            "tied_embeddings": bool(data.get("tie_word_embeddings", False)),
        },
    )


def _need(data: Mapping[str, Any], key: str) -> Any:
    if data.get(key) is None:
        raise FieldError((key,), "is missing from the config")
    return data[key]
