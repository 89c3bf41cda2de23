"""What the sentences say, from the numbers they are made of."""

from typing import Any

import pytest

from planner.bill import bill, parse_tokens
from planner.estimate import Estimate, Memory, TimeBreakdown
from planner.verdict import compare, limits
from profiles.errors import ConfigError
from profiles.presets import cluster_preset

CLUSTER = cluster_preset("selene")


def estimate(*, peak: float = 10e9, fits: bool = True, **time: Any) -> Estimate:
    return Estimate(
        step_seconds=sum(time.values()),
        tokens_per_second=1e6,
        model_flops_per_device=1e14,
        fits=fits,
        time=TimeBreakdown(**time),
        memory=Memory(peak_bytes=peak),
    )


def test_limits_are_the_largest_overheads() -> None:
    assert limits(estimate(forward=1.0, backward=2.0), CLUSTER) == "compute"
    found = limits(estimate(forward=1.0, backward=2.0, bubble=1.0, tp_comm=0.5, dp_comm=0.4), CLUSTER)
    assert found == "bubble 20%, tp traffic 10%"
    assert limits(estimate(forward=3.0, peak=0.95 * CLUSTER.device.memory_bytes), CLUSTER) == "memory"
    assert limits(estimate(forward=3.0, fits=False), CLUSTER) == "memory"


def test_comparison_names_what_is_gained_and_lost() -> None:
    fast = estimate(forward=1.0, backward=2.0, tp_comm=0.5)
    slow = estimate(forward=1.0, backward=2.0, tp_comm=0.1, bubble=1.0)
    assert compare(fast, slow) == (
        "It is 17.1% faster than the runner-up: 1.00 s less bubble, against 400 ms more tp traffic."
    )
    assert "slower than it: 1.00 s more bubble, against 400 ms less tp traffic" in compare(
        slow, fast, name="it"
    )
    assert "ties with" in compare(fast, fast)
    assert "does not fit" in compare(fast, estimate(forward=1.0, fits=False))


def test_bill() -> None:
    account = bill(estimate(forward=1.0), tokens=parse_tokens("86.4B"), devices=8, price_per_hour=2.0)
    assert account.days == pytest.approx(1.0)
    assert account.device_hours == pytest.approx(192.0)
    assert account.price == pytest.approx(384.0)


@pytest.mark.parametrize(("text", "value"), [("1T", 1e12), ("300B", 3e11), ("2.5e11", 2.5e11), (" 7m ", 7e6)])
def test_tokens(text: str, value: float) -> None:
    assert parse_tokens(text) == value


@pytest.mark.parametrize("text", ["", "lots", "-1T", "0", "1.2.3B", "1X"])
def test_what_is_not_a_number_of_tokens(text: str) -> None:
    with pytest.raises(ConfigError, match="not a number of tokens"):
        parse_tokens(text)
