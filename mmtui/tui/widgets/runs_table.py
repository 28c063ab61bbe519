"""The table of runs: a window over all of them, with a cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from textual.events import Click
from textual.message import Message

from mmtui.domain.look import run_colors
from mmtui.tui.model import TableRow
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.lines import LinesPanel, in_its_place
from mmtui.tui.widgets.plot import Span

WIDEST = 18
NONE_FITS = ("no run fits the filter: / changes it",)
NONE_YET = (
    "no runs yet: press n to launch one (recipes named shapes need no data),",
    "or q to leave, and type: mmtui demo",
)


class RunsTable(LinesPanel, can_focus=True):
    """Newest run first. The cursor stays on its run when others come and go."""

    @dataclass
    class Selected(Message):
        """The cursor is on another run."""

        run_id: str

    @dataclass
    class Scrolled(Message):
        """Rows are needed that are not in the window."""

        offset: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("runs", id=id)
        self.rows: tuple[TableRow, ...] = ()
        self.columns: tuple[str, ...] = ()
        self.opened: frozenset[str] = frozenset()
        self.pinned: tuple[str, ...] = ()
        self.total, self.first_row = 0, 0
        self.index = 0
        self.selected: str | None = None
        self.marked: dict[str, None] = {}
        self.range_start: int | None = None
        self.note = ""
        self.trouble = ""
        """Why there are no rows, "" if they were read."""

    @property
    def line(self) -> TableRow | None:
        """The line under the cursor, None while it is not read."""
        here = self.index - self.first_row
        return self.rows[here] if 0 <= here < len(self.rows) else None

    @property
    def run(self) -> str | None:
        """Id of the run under the cursor; of a group its newest."""
        line = self.line
        return line.run.id if line is not None and line.key == self.selected else self.selected

    def set_rows(self, rows: tuple[TableRow, ...], offset: int, total: int) -> None:
        """Show another window."""
        self.rows, self.first_row, self.total = rows, offset, total
        keys = [row.key for row in rows]
        if self.selected is not None and self.selected not in keys:
            # Its run may have been folded into a group, or its group may have been taken apart.
            run_id = self.selected.removeprefix("group ")
            around = (row.key for row in rows if row.run.id == run_id or _has(row, run_id))
            self.selected = next(around, self.selected)
        if self.selected in keys:
            self.index = offset + keys.index(self.selected)
        elif self.selected is None and rows:
            self.selected, self.index = rows[0].key, offset
        self.redraw()

    def mark(self) -> None:
        """Mark the run under the cursor, or take its mark away."""
        line = self.line
        if line is None:
            return
        for row in line.group.rows if line.group is not None else (line.run,):
            if row.id in self.marked:
                del self.marked[row.id]
            else:
                self.marked[row.id] = None
        self.redraw()

    def mark_range(self) -> str:
        """Begin a range here, or mark every run from its beginning to here; returns what was done, in words."""
        if self.range_start is None:
            self.range_start = self.index
            return "a range of marks begins here: move, then v again"
        first, last = sorted((self.range_start, self.index))
        self.range_start = None
        for row in self.rows[max(first - self.first_row, 0) : max(last - self.first_row + 1, 0)]:
            for run in row.group.rows if row.group is not None else (row.run,):
                self.marked[run.id] = None
        self.redraw()
        return f"{len(self.marked)} marked; space takes a mark away"

    def move(self, steps: int) -> None:
        """Move the cursor; tells the screen what it is on now."""
        if not self.total:
            return
        self.index = min(max(self.index + steps, 0), self.total - 1)
        line = self.line
        if line is not None:
            self.selected = line.key
            self.post_message(self.Selected(line.run.id))
        else:
            self.selected = None
            self.post_message(self.Scrolled(max(self.index - 100, 0)))
        self.redraw()

    @in_its_place
    def redraw(self) -> None:
        """Draw the rows around the cursor."""
        width, height = self.size.width, self.body_height
        if width == 0:
            return
        if self.trouble:
            self.show_trouble(self.trouble)
            return
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        narrow = panels.is_narrow(width)
        widths = self._column_widths(width)
        chosen = "".join(f" {_short(name, size):>{size}}" for name, size in widths.items())
        head = chosen if widths else panels.header_tail(narrow)
        lines: list[list[Span]] = [[(panels.run_header(width, head), "dim")]]
        room = max(height - 1, 1)
        colors = run_colors([*dict.fromkeys([*self.pinned, *self.marked])])
        first = min(max(self.index - room // 2, 0), max(self.total - room, 0))
        for number in range(first, min(first + room, self.total)):
            here = number - self.first_row
            if 0 <= here < len(self.rows):
                line = self._drawn_or_fault(self.rows[here], width, widths, narrow, ascii_only, colors)
                lines.append([(text, "cursor") for text, _ in line] if number == self.index else line)
        if not self.total:
            lines += [[(text, "dim")] for text in (NONE_FITS if self.note else NONE_YET)]
        marks = f"  {len(self.marked)} marked" if self.marked else ""
        self.show(lines, f"runs {self.index + 1 if self.total else 0}/{self.total}{marks}{self.note}")

    def _drawn_or_fault(self, row: TableRow, width: int, *look: Any) -> list[Span]:
        """One line; should it fail, why, in its place."""
        try:
            return self._drawn(row, width, *look)
        except Exception as error:
            return [(panels.fit(f"{row.run.id:>4} ! {self.fault(error)}", width), "bad")]

    def _drawn(
        self,
        row: TableRow,
        width: int,
        widths: dict[str, int],
        narrow: bool,
        ascii_only: bool,
        colors: Mapping[str, str],
    ) -> list[Span]:
        """One line, as wide as the table."""
        if row.group is not None:
            return panels.group_line(row.group, width, ascii_only, row.key in self.opened)
        run = row.run
        sign = "*" if run.id in self.marked else "^" if run.id in self.pinned else " "
        cells = zip(widths.values(), row.cells, strict=False)
        tail = "".join(f" {panels.fit_right(text, size, ascii_only)}" for size, text in cells)
        tail = tail if widths else panels.run_tail(run, narrow)
        return panels.run_line(run, width, ascii_only, (sign, colors.get(run.id, "")), tail, row.depth)

    def _column_widths(self, width: int) -> dict[str, int]:
        """Chosen columns as far as they fit, each as wide as what stands in it."""
        left, found = width - panels.ID_WIDTH - panels.STATE_WIDTH - panels.LEAST_NAME, dict[str, int]()
        for number, name in enumerate(self.columns):
            texts = [row.cells[number] for row in self.rows if number < len(row.cells)]
            size = min(max([len(text) for text in texts] + [len(_short(name, WIDEST)), 4]), WIDEST)
            if left < size + 1:
                break
            found[name], left = size, left - size - 1
        return found

    def on_click(self, event: Click) -> None:
        """The run that is clicked on."""
        room = max(self.body_height - 1, 1)
        first = min(max(self.index - room // 2, 0), max(self.total - room, 0))
        if event.y >= 2:
            self.move(first + event.y - 2 - self.index)

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the cursor."""
        self.move(1)

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the cursor."""
        self.move(-1)

    def on_resize(self) -> None:
        self.redraw()


def _has(row: TableRow, run_id: str) -> bool:
    return row.group is not None and any(member.id == run_id for member in row.group.rows)


def _short(name: str, width: int) -> str:
    """A column's name in at most so many characters: the end of a long path says most."""
    return name if len(name) <= width else name.rpartition(".")[2][-width:]
