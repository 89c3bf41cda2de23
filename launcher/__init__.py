"""Launcher: what the user touches."""
