"""A list of lines with a cursor: j, k and arrows move it, other letters search; what it is on is told below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from textual.events import Click, Key
from textual.message import Message

from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import Span

_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -10, "ctrl+u": -10, "pagedown": 10, "ctrl+d": 10}
_ENDS = {"home": -1_000_000, "end": 1_000_000}
FIRST_ROW = 2
"""Lines above the first row: the title and the names of the columns."""
LEAST_ROWS = 5


@dataclass(frozen=True)
class Item:
    """One row: what it is called, and what a search looks through besides."""

    key: str
    about: str = ""


class PickList(LinesPanel, can_focus=True):
    """Subclasses say how a row, the names of the columns and the lines below the list look."""

    DETAILS = 4

    @dataclass
    class Moved(Message):
        """The cursor is on another row."""

        list: PickList

    @dataclass
    class Chosen(Message):
        """Enter was pressed on a row."""

        list: PickList

    @dataclass
    class Turned(Message):
        """Left or right was pressed: the next or the previous value is wanted."""

        list: PickList
        steps: int

    @dataclass
    class Cleared(Message):
        """The value of the row is to be as it was."""

        list: PickList

    def __init__(self, title: str, *, id: str | None = None) -> None:
        super().__init__(title, id=id)
        self.name_text = title
        self.items: Sequence[Item] = ()
        self.found: list[int] = []
        self.index = 0
        self.sought, self.searching = "", False

    @property
    def ascii_only(self) -> bool:
        """Whether the terminal has ASCII alone."""
        return bool(getattr(self.app, "ascii_only", False))

    @property
    def key(self) -> str | None:
        """The row under the cursor."""
        return self.items[self.found[self.index]].key if self.index < len(self.found) else None

    def header(self, width: int) -> str:
        """The names of the columns."""
        raise NotImplementedError

    def row(self, key: str, width: int) -> Line:
        """A row, without the sign of the cursor."""
        raise NotImplementedError

    def details(self, key: str, width: int) -> list[Line]:
        """What stands below the list about the row under the cursor."""
        raise NotImplementedError

    def set_items(self, items: Sequence[Item]) -> None:
        """Other rows; the cursor stays on its row if that is still there."""
        key = self.key
        self.items = items
        self.found = self._fitting(self.sought) or list(range(len(items)))
        self.go_to(key)

    def go_to(self, key: str | None) -> None:
        """Put the cursor on a row."""
        keys = [self.items[number].key for number in self.found]
        self.index = keys.index(key) if key in keys else min(self.index, max(len(keys) - 1, 0))
        self.redraw()

    def move(self, steps: int) -> None:
        """Move the cursor."""
        was = self.key
        self.index = min(max(self.index + steps, 0), max(len(self.found) - 1, 0))
        if self.key != was:
            self.post_message(self.Moved(self))
        self.redraw()

    def search(self, text: str) -> None:
        """Show the rows that have a text, the cursor on the first that is called so; what nothing has is not taken."""
        found, was = self._fitting(text), self.key
        if not found:
            return
        self.sought, self.found = text, found
        keys = [self.items[number].key for number in found]
        if text and (was not in keys or text not in str(was).lower()):
            self.index = next((number for number, key in enumerate(keys) if text in key.lower()), 0)
        else:
            self.index = keys.index(was) if was in keys else 0
        if self.key != was:
            self.post_message(self.Moved(self))
        self.redraw()

    def _fitting(self, text: str) -> list[int]:
        return [n for n, item in enumerate(self.items) if text in item.key.lower() or text in item.about.lower()]

    def on_key(self, event: Key) -> None:
        """Letters search; j and k are letters once a search has begun."""
        if self._handle(event.key, event.character):
            event.stop()
            event.prevent_default()

    def _handle(self, key: str, character: str | None) -> bool:
        seeking = self.searching or bool(self.sought)
        if key in _ENDS or (key in _MOVES and not (seeking and len(key) == 1)):
            self.move(_ENDS.get(key, 0) or _MOVES[key])
        elif key == "enter":
            self.post_message(self.Chosen(self))
        elif key in ("left", "right"):
            self.post_message(self.Turned(self, 1 if key == "right" else -1))
        elif key == "delete":
            self.post_message(self.Cleared(self))
        elif key == "escape" and seeking:
            self.searching = False
            self.search("")
        elif key == "backspace" and seeking:  # one more than the search has letters takes nothing away
            self.searching = len(self.sought) > 1
            self.search(self.sought[:-1])
        elif key == "slash" and not seeking:
            self.searching = True
            self.redraw()
        elif character is not None and character.isprintable() and (character.strip() or self.sought):
            self.search(self.sought + character.lower())
        else:
            return False
        return True

    def row_at(self) -> int:
        """The line of the panel that the row under the cursor stands in."""
        return FIRST_ROW + self.index - self._first(self._room())

    def _room(self) -> int:
        return max(self.body_height - 1 - self._details_room(), 1)

    def _details_room(self) -> int:
        return max(min(self.DETAILS + 1, self.body_height - 1 - LEAST_ROWS), 0)

    def _first(self, room: int) -> int:
        return min(max(self.index - room // 2, 0), max(len(self.found) - room, 0))

    def redraw(self) -> None:
        """Draw the rows around the cursor and what is to be said about its row."""
        width, room = self.size.width, self._room()
        if not width or not self.is_attached:
            return
        first, below = self._first(room), self._details_room()
        lines: list[list[Span]] = [[("  " + fit(self.header(width - 2).rstrip(), width - 2, self.ascii_only), "dim")]]
        for number in range(first, first + room):
            lines.append(self._row(number, width) if number < len(self.found) else [])
        if below and self.key is not None:
            dash = "-" if self.ascii_only else "─"
            lines.append([(dash * width, "dim")])
            lines += self.details(self.key, width)[: below - 1]
        self.show(lines, self._title())

    def _row(self, number: int, width: int) -> list[Span]:
        line = self.row(self.items[self.found[number]].key, width - 2)
        if number != self.index:
            return [("  ", ""), *line]
        text = fit("".join(part for part, _ in line), width - 2, self.ascii_only)
        return [("> ", "title"), (text, "cursor" if self.has_focus else "title")]

    def _title(self) -> str:
        seeking = self.searching or bool(self.sought)
        count = f"{self.index + 1 if self.found else 0}/{len(self.found)}"
        return f"{self.name_text} {count}{f'  find: {self.sought}_' if seeking else ''}"

    def wrapped(self, text: str, width: int, style: str = "") -> list[Line]:
        """A text in as many lines as it needs."""
        return [[(fit(part, width, self.ascii_only).rstrip(), style)] for part in textwrap.wrap(text, max(width, 10))]

    def on_click(self, event: Click) -> None:
        """The row that is clicked on; a second click chooses it."""
        row, room = event.y - FIRST_ROW, self._room()
        number = self._first(room) + row
        if 0 <= row < room and number < len(self.found):
            if number == self.index:
                self.post_message(self.Chosen(self))
            else:
                self.move(number - self.index)

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the cursor."""
        self.move(1)

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the cursor."""
        self.move(-1)

    def on_resize(self) -> None:
        self.redraw()

    def on_focus(self) -> None:
        self._repaint()

    def on_blur(self) -> None:
        self._repaint()

    def _repaint(self) -> None:
        self.redraw()
        self.refresh()
