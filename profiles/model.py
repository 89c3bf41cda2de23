"""ModelSpec: the shape of a decoder-only transformer, and how many parameters it has."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from profiles.documents import Record
from profiles.errors import FieldError


class ModelSpec(Record):
    """Shape of a decoder-only transformer.

    `heads` query heads of `head_dim` share `kv_heads` key/value heads. `ffn_hidden` is the inner width of
    the MLP; a gated MLP (SwiGLU, GeGLU) has three matrices of that width, a plain one two.
    """

    name: str = "model"
    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt = Field(default=0, validate_default=False)  # 0: as many as heads
    head_dim: PositiveInt = Field(default=0, validate_default=False)  # 0: hidden / heads
    ffn_hidden: PositiveInt = Field(default=0, validate_default=False)  # 0: 4 · hidden
    gated_mlp: bool = False
    activation: Literal["gelu", "gelu_tanh", "silu", "relu"] | None = None  # null: silu if gated, gelu if not
    vocab: PositiveInt
    seq_len: PositiveInt
    tied_embeddings: bool = True
    position: Literal["rope", "learned"] = "learned"
    norm: Literal["rmsnorm", "layernorm"] = "layernorm"
    attention_bias: bool | None = None  # on q, k and v; null: with learned positions
    linear_bias: bool | None = None  # on every other linear of a block; null: with learned positions
    norm_epsilon: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10000.0
    approximations: tuple[str, ...] = ()  # what the original has beyond this shape: planned for, not run

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: object) -> object:
        """Replace the defaults that depend on other fields, so that every reader sees final values."""
        if not isinstance(data, dict):
            return data
        filled = {k: v for k, v in data.items() if v is not None}
        if isinstance(filled.get("approximations"), list):
            filled["approximations"] = tuple(filled["approximations"])  # strict fields take no list from here
        heads, hidden = filled.get("heads"), filled.get("hidden")
        if not isinstance(heads, int) or not isinstance(hidden, int) or min(heads, hidden) < 1:
            return filled
        filled.setdefault("kv_heads", heads)
        if "head_dim" not in filled:
            if hidden % heads:
                raise FieldError(("heads",), f"{heads} heads do not divide hidden = {hidden}; give head_dim")
            filled["head_dim"] = hidden // heads
        filled.setdefault("ffn_hidden", 4 * hidden)
        filled.setdefault("activation", "silu" if filled.get("gated_mlp") else "gelu")
        learned = filled.get("position", "learned") == "learned"
        filled.setdefault("attention_bias", learned)
        filled.setdefault("linear_bias", learned)
        return filled

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads % self.kv_heads:
            raise FieldError(("kv_heads",), f"{self.kv_heads} does not divide {self.heads} heads")
        if self.position == "rope" and self.head_dim % 2:
            raise FieldError(("head_dim",), f"rotary positions need an even head_dim, not {self.head_dim}")
        return self

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm."""
        return self.hidden * (2 if self.norm == "layernorm" else 1)

    @property
    def block_parameters(self) -> int:
        """Parameters of one transformer block, its two norms included."""
        inner = self.ffn_hidden * (2 if self.gated_mlp else 1)
        weights = self.hidden * (2 * self.query_width + 2 * self.kv_width + inner + self.ffn_hidden)
        biases = (self.query_width + 2 * self.kv_width) * bool(self.attention_bias)
        biases += (self.hidden + inner + self.hidden) * bool(self.linear_bias)
        return weights + biases + 2 * self.norm_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding and, if learned, the position embedding."""
        positions = self.seq_len * self.hidden if self.position == "learned" else 0
        return self.vocab * self.hidden + positions

    @property
    def head_parameters(self) -> int:
        """Parameters of the final norm and of the output projection, which a tied model shares."""
        return self.norm_parameters + (0 if self.tied_embeddings else self.vocab * self.hidden)

    @property
    def parameters(self) -> int:
        """Parameters of the whole model, shared ones counted once."""
        return self.layers * self.block_parameters + self.embedding_parameters + self.head_parameters
