"""Timelines and heat maps of schedules, for the terminal and as files."""

from launcher.drawing.svg import svg
from launcher.drawing.terminal import draw

__all__ = ["draw", "svg"]
