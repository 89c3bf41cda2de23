"""Timelines and heat maps of schedules, for the terminal and as files."""

from launcher.drawing.chrome_trace import chrome_trace
from launcher.drawing.svg import svg
from launcher.drawing.terminal import draw

__all__ = ["chrome_trace", "draw", "svg"]
