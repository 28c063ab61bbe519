"""The panels of a tab: side by side, one of them marked, or that one over the whole screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmtui.paths import Home
from mmtui.tui import faults
from mmtui.tui.pages.compose import beside, column_width
from mmtui.tui.widgets.panels import Line, fit, trouble

Drawer = Callable[[int, int], list[Line]]
MARKS = ("▸ ", "> ")
"""Stands before the title of the panel that ``enter`` shows alone."""


@dataclass(frozen=True)
class Pane:
    """One panel: its name, and what draws it in so many cells and lines; the first line is its title."""

    name: str
    draw: Drawer


@dataclass(frozen=True)
class Focus:
    """Which panel is marked ("": the first), and whether it is shown alone."""

    name: str = ""
    alone: bool = False


FIRST_PANE = Focus()


@dataclass(frozen=True)
class Laid:
    """Lines of a tab, and which of them (first, the one behind the last) are the marked panel."""

    lines: list[Line]
    first: int = 0
    behind: int = 0


def focused(names: Sequence[str], focus: Focus) -> str:
    """The panel that is marked."""
    return focus.name if focus.name in names else names[0] if names else ""


def lay(
    panes: Sequence[Pane],
    size: tuple[int, int],
    least: int,
    focus: Focus,
    ascii_only: bool,
    home: Home | None = None,
) -> Laid:
    """Panels in as many columns as fit, in the order of reading; or the marked one alone.

    One that fails says so in its place, and the others are drawn.

    Args:
        size: of the screen, cells and lines.
        least: cells below which a column is not made narrower.
        home: to its log goes where a failure comes from.
    """
    width, height = size
    here = focus.name or (panes[0].name if panes else "")
    if focus.alone and panes:
        pane = next((pane for pane in panes if pane.name == here), panes[0])
        return Laid(marked(drawn(pane, width, height, ascii_only, home), True, ascii_only))
    each = column_width(width, least, len(panes))
    count = max((width + 2) // (each + 2), 1)
    rows = -(-len(panes) // count) if panes else 1
    lines: list[Line] = []
    found = (0, 0)
    for first in range(0, len(panes), count):
        group = panes[first : first + count]
        room = max(height // rows - 1, 1)
        blocks = [marked(drawn(pane, each, room, ascii_only, home), pane.name == here, ascii_only) for pane in group]
        start = len(lines)
        lines += beside(blocks, each)
        if any(pane.name == here for pane in group):
            found = (start, len(lines))
        lines.append([])
    return Laid(lines[:-1], *found)


def drawn(pane: Pane, width: int, height: int, ascii_only: bool, home: Home | None) -> list[Line]:
    """The lines of a panel; what went wrong, below its name, if it cannot be drawn."""
    try:
        return pane.draw(width, height)
    except Exception as error:
        text = faults.told(home, f"the panel {pane.name}", error)
        return [[(fit(pane.name, width, ascii_only).rstrip(), "title")], *trouble(text, width - 2, ascii_only)]


def marked(lines: Sequence[Line], here: bool, ascii_only: bool) -> list[Line]:
    """A panel's lines, its title behind the mark or behind blanks of the same width."""
    title, *rest = lines
    mark = MARKS[1 if ascii_only else 0] if here else "  "
    return [[(mark, "warn" if here else ""), *title], *rest]
