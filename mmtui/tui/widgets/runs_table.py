"""The table of runs: a window over all of them, with a cursor."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from mmtui.domain.views import RunRow
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.plot import Span


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
        self.rows: tuple[RunRow, ...] = ()
        self.total, self.first_row = 0, 0
        self.index = 0
        self.selected: str | None = None
        self.marked: dict[str, None] = {}
        self.note = ""

    def set_rows(self, rows: tuple[RunRow, ...], offset: int, total: int) -> None:
        """Show another window."""
        self.rows, self.first_row, self.total = rows, offset, total
        ids = [row.id for row in rows]
        if self.selected in ids:
            self.index = offset + ids.index(self.selected)
        elif self.selected is None and rows:
            self.selected, self.index = rows[0].id, offset
        self.redraw()

    def mark(self) -> None:
        """Mark the run under the cursor, or take its mark away."""
        if self.selected is None:
            return
        if self.selected in self.marked:
            del self.marked[self.selected]
        else:
            self.marked[self.selected] = None
        self.redraw()

    def move(self, steps: int) -> None:
        """Move the cursor; tells the screen what it is on now."""
        if not self.total:
            return
        self.index = min(max(self.index + steps, 0), self.total - 1)
        here = self.index - self.first_row
        if 0 <= here < len(self.rows):
            self.selected = self.rows[here].id
            self.post_message(self.Selected(self.selected))
        else:
            self.selected = None
            self.post_message(self.Scrolled(max(self.index - 100, 0)))
        self.redraw()

    def redraw(self) -> None:
        """Draw the rows around the cursor."""
        width, height = self.size.width, self.body_height
        if width == 0:
            return
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        lines: list[list[Span]] = [[(panels.run_header(width), "dim")]]
        room = max(height - 1, 1)
        first = min(max(self.index - room // 2, 0), max(self.total - room, 0))
        for number in range(first, min(first + room, self.total)):
            here = number - self.first_row
            if 0 <= here < len(self.rows):
                row = self.rows[here]
                line = panels.run_line(row, width, ascii_only, marked=row.id in self.marked)
                lines.append([(text, "cursor") for text, _ in line] if number == self.index else line)
        if not self.total:
            none = (
                "no run fits the filter: / changes it" if self.note else "no runs yet: press n to launch one, or leave"
            )
            lines.append([(none, "dim")])
        marks = f"  {len(self.marked)} marked" if self.marked else ""
        self.show(lines, f"runs {self.index + 1 if self.total else 0}/{self.total}{marks}{self.note}")

    def on_resize(self) -> None:
        self.redraw()
