"""Decoder-only transformers in GPT-2 and Llama shape, cut into pipeline stages."""

from runtime.models.build import build_stage
from runtime.models.stage import Stage

__all__ = ["Stage", "build_stage"]
