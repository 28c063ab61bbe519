"""Colour themes of the screen: Textual's for dialogs and chrome, and our own few styles for the panels.

``ansi`` names colours and leaves their looks to the terminal, which also costs the fewest bytes. ``colorblind`` tells
good from bad by blue and orange (Okabe and Ito, https://jfly.uni-koeln.de/color/): no two of its colours
differ by red and green alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmtui.settings import THEMES
from mmtui.tui.widgets import lines


@dataclass(frozen=True)
class Theme:
    """A theme of Textual and the colours in which the panels differ from the 16 of the terminal."""

    textual: str
    colors: dict[str, str] = field(default_factory=dict)


_COLORBLIND = {
    "good": "#56b4e9",
    "green": "#56b4e9",
    "bad": "#e69f00",
    "red": "#e69f00",
    "warn": "#f0e442",
    "yellow": "#f0e442",
    "reference": "#f0e442",
    "magenta": "#cc79a7",
    "cyan": "#009e73",
    "curve": "#009e73",
}
_ON_LIGHT = {
    "good": "#1a7f37",
    "green": "#1a7f37",
    "bad": "#cf222e",
    "red": "#cf222e",
    "warn": "#8a5a00",
    "yellow": "#8a5a00",
    "reference": "#8a5a00",
    "magenta": "#8250df",
    "cyan": "#0550ae",
    "curve": "#0550ae",
}
_BY_NAME = {
    "ansi": Theme("ansi-dark"),
    "ansi-light": Theme("ansi-light"),
    "dark": Theme("textual-dark"),
    "light": Theme("textual-light", _ON_LIGHT),
    "colorblind": Theme("ansi-dark", _COLORBLIND),
}


def use(name: str) -> str:
    """Draw panels in a theme from now on; returns the name of Textual's theme for the rest."""
    theme = _BY_NAME[name]
    lines.recolor(theme.colors)
    return theme.textual


def after(name: str) -> str:
    """The theme that follows in the list."""
    return THEMES[(THEMES.index(name) + 1) % len(THEMES)]
