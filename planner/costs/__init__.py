"""The price of one layout."""

from planner.costs.price import Assessment, assess, price, stage_layers
from planner.costs.software import MODERN, Software

__all__ = ["MODERN", "Assessment", "Software", "assess", "price", "stage_layers"]
