"""How the gradients of a stage are cut into messages: a rule that prices and runs alike."""

from __future__ import annotations

MOST_BYTES = 25 << 20  # larger messages are no faster
LEAST_BYTES = 1 << 20  # smaller ones are mostly latency
BUCKETS = 8  # of a small stage, so that something is sent while the rest is computed


def bucket_bytes(stage_bytes: float) -> int:
    """Return the most bytes that one message holds of a stage's gradients, `stage_bytes` in all."""
    return max(LEAST_BYTES, min(MOST_BYTES, int(stage_bytes) // BUCKETS))
