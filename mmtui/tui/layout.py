"""Where the panels of the runs screen stand. Pure: a size in, rectangles out."""

from __future__ import annotations

from dataclasses import dataclass

PANELS = ("chart", "stages", "graph", "classes", "devices", "log")
WIDE, WIDE_HEIGHT = 110, 30
SMALLEST = (60, 15)
GAP = 1


@dataclass(frozen=True)
class Box:
    """A rectangle in cells."""

    x: int
    y: int
    width: int
    height: int


def is_wide(width: int, height: int) -> bool:
    """Whether everything fits at once."""
    return width >= WIDE and height >= WIDE_HEIGHT


def is_tiny(width: int, height: int) -> bool:
    """Whether nothing useful fits."""
    return width < SMALLEST[0] or height < SMALLEST[1]


def arrange(width: int, height: int, panel: str, zoomed: bool) -> dict[str, Box]:
    """Rectangles of the parts that are shown; ``runs`` is the table.

    Args:
        width: cells of the area between header and footer.
        height: lines of it.
        panel: the chosen panel: shown alone on a small screen, or zoomed.
        zoomed: whether it fills everything.
    """
    if zoomed:
        return {panel: Box(0, 0, width, height)}
    if not is_wide(width, height + 2):
        table = min(max(height // 3, 4), 12)
        return {"runs": Box(0, 0, width, table), panel: Box(0, table, width, height - table)}
    left = width * 9 // 20
    return {
        **_stack(["runs", "classes", "devices"], 0, left, _shares(height, (7, 7, 0), (0, 0, 8))),
        **_stack(
            ["chart", "stages", "graph", "log"],
            left + GAP,
            width - left - GAP,
            _shares(height, (8, 0, 9, 3), (0, 6, 0, 0)),
        ),
    }


def _shares(height: int, parts: tuple[int, ...], fixed: tuple[int, ...]) -> list[int]:
    """Lines of each part: fixed ones first, the others by share."""
    free, total = height - sum(fixed), sum(parts)
    lines = [fix or free * part // total for part, fix in zip(parts, fixed, strict=True)]
    lines[0] += height - sum(lines)
    return lines


def _stack(names: list[str], x: int, width: int, heights: list[int]) -> dict[str, Box]:
    boxes, y = {}, 0
    for name, lines in zip(names, heights, strict=True):
        boxes[name] = Box(x, y, width, lines)
        y += lines
    return boxes
