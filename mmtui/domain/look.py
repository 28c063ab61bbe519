"""Glyphs and words for states: never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence

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


RUN_COLORS = ("cyan", "magenta", "green", "yellow", "red")


def run_colors(ids: Sequence[str]) -> dict[str, str]:
    """A colour for each run: always its own, unless another one among these has it already."""
    found: dict[str, str] = {}
    for run_id in ids:
        first = int(run_id) % len(RUN_COLORS) if run_id.isdecimal() else 0
        wanted = [*RUN_COLORS[first:], *RUN_COLORS[:first]]
        found[run_id] = next((color for color in wanted if color not in found.values()), wanted[0])
    return found


def glyph(state: str, ascii_only: bool = False) -> str:
    """The glyph of a state; "?" for a state that is not known."""
    return GLYPHS.get(state, ("?", "?"))[1 if ascii_only else 0]
