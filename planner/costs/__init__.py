"""The price of one layout."""

from planner.costs.price import Assessment, assess, price
from planner.costs.software import MODERN, Software
from planner.costs.stages import stage_layers

__all__ = ["MODERN", "Assessment", "Software", "assess", "price", "stage_layers"]
