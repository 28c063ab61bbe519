"""What is sent to the terminal: only the cells that differ from what it shows.

Textual sends every line of a widget that changed from the widget's left edge on. Over SSH that is most of what a live
screen costs, so its updates are compared here, cell by cell, with a picture of the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from mmtui.domain.text import is_acted_on

Update = ChopsUpdate | LayoutUpdate
"""What Textual draws when a part of the screen has changed, or where its parts lie."""
Cell = tuple[str, str]
"""Text and SGR codes. The text is "" in the right half of a wide character."""
BLANK: Cell = (" ", "")
_UNSEEN_ON_SPACES = frozenset({"1", "2", "3"})
"""Bold, dim, italic: like colours of letters (3x, 9x) they need a letter to be seen."""
LEAST_ERASED = 6
"""Blanks up to the end of the line for which erasing it is worth its bytes."""


class Picture:
    """What the terminal shows, as far as this program has drawn it."""

    def __init__(self) -> None:
        self._size = (0, 0)
        self._rows: list[list[Cell | None]] = []

    def forget(self) -> None:
        """The terminal may show anything: the next update is sent whole."""
        self._size = (0, 0)

    def fit(self, columns: int, rows: int) -> bool:
        """The terminal's size; another one than before makes everything unknown. Returns whether it does."""
        if (columns, rows) == self._size:
            return False
        self._size = (columns, rows)
        self._rows = [[None] * columns for _ in range(rows)]
        return True

    def again(self, x: int, y: int, columns: int, rows: int) -> str:
        """The bytes that draw the cells of a box once more: a picture had lain over them."""
        pen = Pen()
        for row, cells in enumerate(self._rows[y : y + rows], y):
            for column, cell in enumerate(cells[x : x + columns], x):
                pen.put(row, column, cell or BLANK)
        return pen.text()

    def draw(self, y: int, x: int, cells: Sequence[Cell], pen: Pen) -> None:
        """Let the pen draw the cells of a line that differ, and take them over."""
        if not 0 <= y < len(self._rows):
            return
        row = self._rows[y]
        cells = cells[: max(len(row) - x, 0)]
        blank_from = _blank_tail(cells) if x + len(cells) == len(row) else len(cells)
        changed = [index for index, cell in enumerate(cells) if row[x + index] != cell]
        row[x : x + len(cells)] = cells
        for index in changed:
            if index >= blank_from and len(cells) - index >= LEAST_ERASED:
                pen.erase(y, x + index)
                return
            pen.put(y, x + index, cells[index])


class Pen:
    """Writes cells: knows where the cursor is and in which style it writes."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.size = 0
        """Bytes so far."""
        self._at: tuple[int, int] | None = None
        self._codes = ""

    def put(self, y: int, x: int, cell: Cell) -> None:
        """Write one cell; the right half of a wide character is written with its left half."""
        text, codes = cell
        if not text:
            return
        self._go(y, x)
        self._use(codes)
        self._write(text)
        wide = len(text) > 1 or get_character_cell_size(text) != 1
        # Terminals do not agree on the width of every character: behind one of those the place is given anew.
        self._at = None if wide else (y, x + 1)

    def erase(self, y: int, x: int) -> None:
        """Blank the line from here on."""
        self._go(y, x)
        self._use("")
        self._write("\x1b[K")

    def text(self) -> str:
        """All of it, leaving the plain style."""
        self._use("")
        return "".join(self._parts)

    def _go(self, y: int, x: int) -> None:
        if self._at == (y, x):
            return
        if self._at is not None and self._at[0] == y and x > self._at[1]:
            self._write(f"\x1b[{x - self._at[1]}C" if x - self._at[1] > 1 else "\x1b[C")
        else:
            self._write(f"\x1b[{y + 1};{x + 1}H")
        self._at = (y, x)

    def _use(self, codes: str) -> None:
        if codes != self._codes:
            # Adding to the style before needs no reset; everything else does.
            added = codes[len(self._codes) + 1 :] if self._codes and codes.startswith(f"{self._codes};") else ""
            from_plain = added or not self._codes or not codes
            self._write(f"\x1b[{added or codes}m" if from_plain else f"\x1b[0;{codes}m")
            self._codes = codes

    def _write(self, text: str) -> None:
        self._parts.append(text)
        self.size += len(text.encode(errors="replace"))


class Difference(CompositorUpdate):
    """An update of Textual's that sends what differs from the picture.

    Args:
        room: no further line is begun once so many bytes are written; None = all is sent.

        colorless: no colours are sent.

    After it was rendered ``size`` is its bytes and ``cut`` whether lines were left out.
    """

    def __init__(
        self,
        update: Update,
        picture: Picture,
        room: int | None = None,
        colorless: bool = False,
    ) -> None:
        self.update, self.picture, self.room, self.colorless = update, picture, room, colorless
        self.size, self.cut = 0, False

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal."""
        system = console._color_system or ColorSystem.TRUECOLOR
        pen = Pen()
        for y, x, strip in sorted(_strips(self.update), key=lambda part: part[:2]):
            if self.room is not None and pen.size >= self.room:
                self.cut = True
                break
            self.picture.draw(y, x, cells_of(strip, system, self.colorless), pen)
        text = pen.text()
        self.size = pen.size
        return text


def _strips(update: Update) -> Iterator[tuple[int, int, Strip]]:
    """(line, column, strip) of everything in an update."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in strips:
                yield y, x, strip
                x += strip.cell_length
        return
    wanted: dict[tuple[int, int], Strip] = {}
    for y, first, last in update.spans:
        for end, (x, chop) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            # Beside a span stand widgets that were not drawn for this update: their parts hold the background.
            if chop is not None and x < last and end > first:
                wanted[y, x] = chop
    for (y, x), chop in wanted.items():
        yield y, x, chop


def cells_of(strip: Iterable[Segment], system: ColorSystem, colorless: bool = False) -> list[Cell]:
    """The cells of a strip, one each column; without colours if NO_COLOR asks for that, whatever the theme."""
    cells: list[Cell] = []
    for text, style, control in strip:
        if control:
            continue
        style = style.without_color if style and colorless else style
        codes, nothing = _codes(style, system) if style else ("", True)
        for char in text:
            width = get_character_cell_size(char)
            if not char.isprintable() and is_acted_on(char):
                # Whatever forgot to spell out a text from outside: nothing that a terminal acts on gets past here.
                cells += [("?", codes)] * width
            elif char == " ":
                cells.append(BLANK if nothing else (char, codes))
            elif width == 0 and cells:
                last = max(i for i, cell in enumerate(cells) if cell[0])
                cells[last] = (cells[last][0] + char, cells[last][1])
            elif width:
                cells.append((char, codes))
                cells += [("", codes)] * (width - 1)
    return cells


@lru_cache(maxsize=4096)
def _codes(style: Style, system: ColorSystem) -> tuple[str, bool]:
    """SGR parameters of a style, without those that say what is so anyway; and whether a space shows nothing of it."""
    sequence, _, _ = style.render("\0", color_system=system).partition("\0")
    words = sequence.removeprefix("\x1b[").removesuffix("m").split(";") if sequence else []
    kept: list[str] = []
    nothing = True
    while words:
        # 38 and 48 take what follows: 5;N or 2;R;G;B.
        count = 1 if words[0] not in ("38", "48") else 3 if words[1] == "5" else 5
        if words[0] not in ("39", "49"):
            kept += words[:count]
            nothing = nothing and (words[0] in _UNSEEN_ON_SPACES or words[0][:-1] in ("3", "9"))
        words = words[count:]
    return ";".join(kept), nothing


def _blank_tail(cells: Sequence[Cell]) -> int:
    """Index from which on all cells are blank."""
    index = len(cells)
    while index and cells[index - 1] == BLANK:
        index -= 1
    return index
