"""Numbers as people read them: bytes, seconds, counts, rates."""

from __future__ import annotations

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")


def format_bytes(count: float) -> str:
    """Binary units with three significant figures: `1.50 GiB`."""
    value, unit = float(count), 0
    while abs(value) >= 1024 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{_three(value)} {_BINARY[unit]}"


def format_count(count: float, unit: str = "") -> str:
    """Decimal prefixes with three significant figures: `312 TFLOP/s`."""
    value, prefix = float(count), 0
    while abs(value) >= 1000 and prefix < len(_DECIMAL) - 1:
        value, prefix = value / 1000, prefix + 1
    return f"{_three(value)} {_DECIMAL[prefix]}{unit}".rstrip()


def format_seconds(seconds: float) -> str:
    """Seconds in the unit that suits them: `830 µs`, `12.5 ms`, `3.20 s`, `1 h 12 min`, `3 d 4 h`."""
    if seconds < 0:
        return f"-{format_seconds(-seconds)}"
    if seconds == 0:
        return "0 s"
    if seconds < 120:
        scale, unit = (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
        return f"{_three(seconds * scale)} {unit}"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _three(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"
