"""What the trainers of a run printed, with long lines wrapped and what is searched for marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, get_character_cell_size

from mmtui.domain.text import in_ascii, printable
from mmtui.paths import Home
from mmtui.services.output import read_output
from mmtui.tui.widgets.panels import Line
from mmtui.tui.widgets.plot import Span

FOUND = "cursor"
"""Style of what is searched for: reversed, so that it is seen without colours too."""


def log(
    home: Home, run_id: str, width: int, ascii_only: bool, until: int | None = None, wanted: str = ""
) -> tuple[list[Line], list[int]]:
    """The lines, and which of them begin a line of the output in which ``wanted`` occurs (case does not matter).

    Args:
        until: global step as of which it is shown, None: all there is.
    """
    output = read_output(home, run_id, until)
    wanted = in_ascii(wanted) if ascii_only else wanted
    lines: list[Line] = []
    places: list[int] = []
    for text, ours in output.lines:
        text = in_ascii(text) if ascii_only else text
        if ours:
            lines.append([(f"-- {text} --", "title")])
            continue
        spans = marked(text, wanted)
        if len(spans) > 1 or spans[0][1] == FOUND:
            places.append(len(lines))
        lines += wrapped(spans, width)
    if not lines:
        lines = [[("nothing printed" if until is None else f"nothing had been printed by step {until}", "dim")]]
    if output.note:
        lines.append([(printable(output.note), "warn")])
    return lines, places


def marked(text: str, wanted: str) -> list[Span]:
    """A line with every occurrence of some words in a style of its own."""
    low, part = text.lower(), wanted.lower()
    if not part or part not in low or len(low) != len(text):  # some letters get longer: their places would be wrong
        return [(text, "")]
    spans: list[Span] = []
    here = 0
    while (found := low.find(part, here)) >= 0:
        spans += [(text[here:found], "")] if found > here else []
        spans.append((text[found : found + len(part)], FOUND))
        here = found + len(part)
    return [*spans, (text[here:], "")] if here < len(text) else spans


def wrapped(spans: Sequence[Span], width: int) -> list[Line]:
    """A line in as many lines of ``width`` cells as it takes."""
    if sum(cell_len(text) for text, _ in spans) <= width:
        return [list(spans)]
    lines: list[Line] = [[]]
    used = 0
    for text, style in spans:
        for piece, cells in _pieces(text, width, used):
            if not cells:
                lines.append([])
                used = 0
                continue
            lines[-1].append((piece, style))
            used += cells
    return lines


def _pieces(text: str, width: int, used: int) -> Iterator[tuple[str, int]]:
    """(part that fits on the line, its cells); ("", 0) is the end of a line."""
    piece, cells = "", 0
    for char in text:
        wide = get_character_cell_size(char)
        if used + cells + wide > width:
            if cells:
                yield piece, cells
            yield "", 0
            piece, cells, used = "", 0, 0
        piece, cells = piece + char, cells + wide
    if cells:
        yield piece, cells
