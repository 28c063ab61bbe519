"""Pictures in pixels for terminals that have a protocol for them: kitty's, and sixel. Chosen by hand only.

The cells below a picture stay blank. A picture's bytes are sent once; after that kitty is told where to show it, and
a sixel picture is drawn again only where it was taken away.
"""

from __future__ import annotations

import re
from base64 import standard_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from mmtui.tui.widgets.panels import Line

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 4096
"""Most bytes of base64 in one escape sequence of kitty's protocol."""
Box = tuple[int, int, int, int]
"""Column, line, columns and rows on the screen."""
MOST_HELD = 24
"""Pictures that kitty is asked to keep."""
MANY_BYTES = 128 * 1024
SIXEL_COLORS = 64
"""Of a photo; label maps have the colours of their classes."""
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


@dataclass(frozen=True)
class Placed:
    """A picture over blank cells of a page.

    Attributes:
        line, column: its upper left cell among the lines of the page.
        columns, rows: its size in cells.
        key: tells pictures apart.
        way: the protocol that they are for.
        data: PNG for kitty, the whole escape sequence for sixel.
    """

    line: int
    column: int
    columns: int
    rows: int
    key: str
    way: str
    data: bytes


class Body(list[Line]):
    """Lines of a page with the pictures that lie over them."""

    placed: tuple[Placed, ...] = ()


def refusal(way: str, environment: Mapping[str, str]) -> str:
    """One sentence on why pictures cannot be shown this way here; "" where nothing is known against it."""
    if way == "blocks":
        return ""
    term = environment.get("TERM", "")
    for name, inside in (
        ("tmux", bool(environment.get("TMUX")) or term.startswith("tmux")),
        ("screen", bool(environment.get("STY")) or term.startswith("screen")),
    ):
        if inside:
            return f"pictures are blocks: {name} does not keep {way} pictures in their place"
    return ""


class Graphics:
    """Which pictures the terminal holds and shows, and what to send so that it shows others."""

    def __init__(self, way: str, first_id: int = 1) -> None:
        self.way = way
        self._shown: dict[Box, str] = {}
        self._held: dict[str, int] = {}
        self._next = first_id

    @property
    def boxes(self) -> list[Box]:
        """Where pictures are."""
        return list(self._shown)

    def clear(self, wanted: Mapping[Box, Placed]) -> tuple[str, list[Box]]:
        """What takes away pictures that are shown and not wanted: bytes, and boxes whose cells must be drawn again.

        Args:
            wanted: pictures by their boxes.
        """
        gone = [box for box, key in self._shown.items() if box not in wanted or wanted[box].key != key]
        text = ""
        for box in gone:
            key = self._shown.pop(box)
            if self.way == "kitty":
                text += f"\x1b_Ga=d,d=i,i={self._held[key]},q=2\x1b\\"
        return text, gone if self.way == "sixel" else []

    def missing(self, wanted: Mapping[Box, Placed]) -> list[Box]:
        """Boxes whose pictures are not shown yet, those that take few bytes first."""
        boxes = [box for box in wanted if box not in self._shown]
        return sorted(boxes, key=lambda box: self.cost(wanted[box]))

    def cost(self, picture: Placed) -> int:
        """About how many bytes it takes to show a picture."""
        held = self.way == "kitty" and picture.key in self._held
        return 0 if held else len(picture.data)

    def show(self, box: Box, picture: Placed) -> str:
        """The bytes that show a picture in its box."""
        x, y, columns, rows = box
        self._shown[box] = picture.key
        if self.way == "sixel":
            return f"\x1b7\x1b[{y + 1};{x + 1}H{picture.data.decode('ascii')}\x1b8"
        text = ""
        if picture.key not in self._held:
            text = self._make_room()
            self._held[picture.key] = self._next
            self._next += 1
            text += kitty_data(picture.data, self._held[picture.key])
        number = self._held[picture.key] = self._held.pop(picture.key)  # now the one used last
        place = f"\x1b_Ga=p,i={number},p=1,c={columns},r={rows},C=1,q=2\x1b\\"
        return f"{text}\x1b7\x1b[{y + 1};{x + 1}H{place}\x1b8"

    def _make_room(self) -> str:
        text, shown = "", set(self._shown.values())
        for key in [key for key in self._held if key not in shown]:
            if len(self._held) < MOST_HELD:
                break
            text += f"\x1b_Ga=d,d=I,i={self._held.pop(key)},q=2\x1b\\"
        return text

    def leave(self) -> str:
        """Take everything from the terminal; nothing is held afterwards."""
        text = "".join(f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\" for number in self._held.values())
        self._shown.clear()
        self._held.clear()
        return text


def kitty_data(data: bytes, number: int) -> str:
    """A PNG under a number, in pieces (https://sw.kovidgoyal.net/kitty/graphics-protocol/)."""
    whole = standard_b64encode(data).decode("ascii")
    pieces = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]
    text = ""
    for index, piece in enumerate(pieces):
        head = f"a=t,f=100,t=d,i={number},q=2," if index == 0 else "q=2,"
        text += f"\x1b_G{head}m={int(index < len(pieces) - 1)};{piece}\x1b\\"
    return text


def png(picture: Image) -> bytes:
    """A picture as PNG; a large photo in 256 colours, which takes a third of the bytes."""
    stream = BytesIO()
    picture.save(stream, format="PNG")
    if len(stream.getvalue()) <= MANY_BYTES or picture.mode == "P":
        return stream.getvalue()
    return png(picture.quantize(256))


def sixel(picture: Image) -> bytes:
    """A picture as one escape sequence; a palette image keeps its colours, but for sixel's steps of one percent."""
    image = picture if picture.mode == "P" else picture.convert("RGB").quantize(SIXEL_COLORS)
    width, height, data = image.width, image.height, image.tobytes()
    flat = image.getpalette("RGB") or []
    used = sorted(set(data))
    parts = [f'\x1bP0;1;0q"1;1;{width};{height}'.encode()]
    for number, index in enumerate(used):
        red, green, blue = (round(100 * value / 255) for value in flat[3 * index : 3 * index + 3])
        parts.append(b"#%d;2;%d;%d;%d" % (number, red, green, blue))
    numbers = {index: number for number, index in enumerate(used)}
    for top in range(0, height, 6):
        rows = [data[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        parts.append(b"$".join(_band(rows, width, index, numbers[index]) for index in sorted(set().union(*rows))))
        parts.append(b"-")
    return b"".join(parts[:-1]) + b"\x1b\\"


def _band(rows: Sequence[bytes], width: int, index: int, number: int) -> bytes:
    """Six rows of pixels of one colour: a character a column, its low bit on top."""
    total = 0
    for bit, row in enumerate(rows):
        # One byte a pixel, 0 or 1; as one large number all columns are shifted and joined at once.
        mask = row.translate(bytes(index) + b"\1" + bytes(255 - index))
        total |= int.from_bytes(mask, "big") << bit
    columns = bytes(value + 63 for value in total.to_bytes(width, "big"))
    return b"#%d" % number + _RUN.sub(lambda found: b"!%d%c" % (len(found[0]), found[0][0]), columns.rstrip(b"?"))
