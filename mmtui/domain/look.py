"""Glyphs and words for states: never by colour alone."""

from __future__ import annotations

GLYPHS: dict[str, tuple[str, str]] = {
    "queued": ("○", "."),
    "held": ("◌", "h"),
    "starting": ("◔", "s"),
    "running": ("●", ">"),
    "pausing": ("◑", "p"),
    "paused": ("‖", "="),
    "stopping": ("◕", "x"),
    "succeeded": ("✓", "+"),
    "failed": ("✗", "!"),
    "cancelled": ("⊘", "-"),
    "interrupted": ("⚡", "~"),
}
"""State -> (glyph, ASCII glyph)."""

COLORS: dict[str, str] = {
    "queued": "bright_black",
    "held": "bright_black",
    "starting": "cyan",
    "running": "cyan",
    "pausing": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "interrupted": "yellow",
}
"""State -> one of the 16 colours every terminal has."""


def glyph(state: str, ascii_only: bool = False) -> str:
    """The glyph of a state; "?" for a state that is not known."""
    return GLYPHS.get(state, ("?", "?"))[1 if ascii_only else 0]
