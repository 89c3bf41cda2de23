"""Device-hours, days and price of training on a number of tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planner.estimate import Estimate
from profiles.errors import ConfigError

SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a training run takes; idle devices are paid for, too. `price` is None without an hourly one."""

    tokens: float
    days: float
    device_hours: float
    price: float | None = None


def parse_tokens(text: str) -> float:
    """Parse `1T`, `300B` or `2.5e11`.

    Raises:
        ConfigError: when it is not a positive number with one of the suffixes k, M, B, G, T.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMbBgGtT]?)\s*", text)
    try:
        value = float(match[1]) * SUFFIXES[match[2].lower()] if match else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"--tokens '{text}': not a number of tokens, such as 300B or 1T")
    return value


def bill(estimate: Estimate, *, tokens: float, devices: int, price_per_hour: float | None = None) -> Bill:
    """Return what `tokens` tokens take at the estimated rate on `devices` devices."""
    seconds = tokens / estimate.tokens_per_second
    hours = devices * seconds / 3600
    return Bill(
        tokens=tokens,
        days=seconds / 86400,
        device_hours=hours,
        price=None if price_per_hour is None else hours * price_per_hour,
    )
