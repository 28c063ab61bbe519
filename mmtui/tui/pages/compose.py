"""Blocks of lines side by side and below each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

from mmtui.tui.widgets.panels import Line
from mmtui.tui.widgets.plot import Span


def padded(line: Sequence[Span], width: int) -> Line:
    """A line in exactly ``width`` cells."""
    found, used = list[Span](), 0
    for text, style in line:
        room = width - used
        if room <= 0:
            break
        shown = text if cell_len(text) <= room else set_cell_size(text, room)
        found.append((shown, style))
        used += cell_len(shown)
    return [*found, (" " * (width - used), "")] if used < width else found


def joined(cells: Iterable[tuple[str, str]]) -> Line:
    """Neighbours of one style as one span."""
    line: Line = []
    for text, style in cells:
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + text, style)
        else:
            line.append((text, style))
    return line


def beside(blocks: Sequence[Sequence[Line]], width: int, gap: int = 2) -> list[Line]:
    """Blocks next to each other, each ``width`` cells wide."""
    height = max((len(block) for block in blocks), default=0)
    lines = []
    for number in range(height):
        line: Line = []
        for block in blocks:
            line += [*padded(block[number] if number < len(block) else [], width), (" " * gap, "")]
        lines.append(line[:-1])
    return lines


def two_columns(
    left: Sequence[Line], left_width: int, right: Sequence[Line], right_width: int, gap: int = 2
) -> list[Line]:
    """Two blocks of different widths next to each other."""
    height = max(len(left), len(right))
    first, second = ([*block, *[[]] * (height - len(block))] for block in (left, right))
    return [
        [*padded(one, left_width), (" " * gap, ""), *padded(other, right_width)]
        for one, other in zip(first, second, strict=True)
    ]


def columns(blocks: Sequence[Sequence[Line]], width: int, least: int) -> list[Line]:
    """Blocks in as many columns as fit, none narrower than ``least``; in the order of reading."""
    count = max(min(len(blocks), (width + 2) // (least + 2)), 1)
    each = (width - 2 * (count - 1)) // count
    lines: list[Line] = []
    for first in range(0, len(blocks), count):
        lines += [*beside(blocks[first : first + count], each), []]
    return lines[:-1]


def column_width(width: int, least: int, blocks: int) -> int:
    """Width of a block in ``columns``."""
    count = max(min(blocks, (width + 2) // (least + 2)), 1)
    return (width - 2 * (count - 1)) // count


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[Line]:
    """A table with a dim head; columns in ``right`` are flush right."""
    widths = [max([cell_len(row[i]) for row in (header, *rows)]) for i in range(len(header))]

    def text(row: Sequence[str]) -> str:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            fill = " " * (width - cell_len(cell))
            cells.append(fill + cell if index in right else cell + fill)
        return "  ".join(cells).rstrip()

    return [[(text(header), "dim")], *([(text(row), "")] for row in rows)]


def wrapped(spans: Sequence[Span], width: int, gap: int = 2) -> list[Line]:
    """Spans in as many lines as they need, none of them broken."""
    lines: list[Line] = []
    used = width + 1
    for text, style in spans:
        if used + cell_len(text) > width:
            lines.append([])
            used = 0
        lines[-1].append((f"{text}{' ' * gap}", style))
        used += cell_len(text) + gap
    return lines
