"""Pictures as cells of a terminal. A cell is about twice as high as wide: one pixel across, two down.

Photos are averaged where they shrink. Label maps are sampled, so that no colour appears that no class has; where a
terminal has too few colours to tell classes apart, each class is a letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color, ColorSystem

from mmtui.tui.pages.compose import joined
from mmtui.tui.pages.label_maps import RGB, VOID
from mmtui.tui.widgets.panels import Line, glyph_of, style_of

if TYPE_CHECKING:
    from PIL.Image import Image

RAMP = " .:-=+*#%@"
BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
FEWEST_COLORS = 256
"""With fewer, classes are letters."""
RIGHT = 254
"""In a map of errors: index of pixels that are right."""
RIGHT_COLOR, VOID_COLOR = (208, 208, 208), (240, 240, 240)
"""In a map of errors. Light: most palettes have classes that are almost black."""


@dataclass(frozen=True)
class Look:
    """What the terminal can show.

    Attributes:
        ascii_only: no half blocks.
        colors: how many it has; 0 for none.
        way: one of ``mmtui.settings.PICTURES``.
        cell: pixels of one cell, width and height.
    """

    ascii_only: bool = False
    colors: int = 1 << 24
    way: str = "blocks"
    cell: tuple[int, int] = (10, 20)

    @property
    def by_letters(self) -> bool:
        """Whether classes are told by letters, not by colours."""
        return self.ascii_only or self.colors < FEWEST_COLORS


def fitted(size: tuple[int, int], width: int, rows: int) -> tuple[int, int]:
    """The largest size in pixels of the same proportions within ``width`` x ``rows`` cells; its height is even."""
    scale = min(width / size[0], 2 * rows / size[1])
    across, down = round(size[0] * scale), round(size[1] * scale / 2) * 2
    return min(max(across, 1), width), min(max(down, 2), 2 * rows)


def photo(picture: Image, width: int, rows: int, look: Look) -> list[Line]:
    """A photo: half blocks in colours, dots without colours, characters by brightness in ASCII."""
    from PIL import Image

    across, down = fitted(picture.size, width, rows)
    if look.ascii_only:
        grey = picture.convert("L").resize((across, down // 2), Image.Resampling.BOX)
        return [[(text, "")] for text in shades(grey)]
    if look.colors < FEWEST_COLORS:
        dots = picture.convert("L").resize((2 * across, 2 * down), Image.Resampling.BOX).convert("1")
        return [[(text, "")] for text in braille(dots)]
    pixels = picture.resize((across, down), Image.Resampling.BOX)
    # Four bits a channel are enough for the eye here, and neighbours are then often equal: fewer bytes.
    coarse = pixels.point([min(value // 16 * 17, 255) for value in range(256)] * 3)
    return half_blocks(_rows_of(coarse))


def labels(indices: Image, colors: Mapping[int, RGB], width: int, rows: int, look: Look) -> list[Line]:
    """A label map (mode L): half blocks in the colours of the classes, or letters."""
    from PIL import Image

    across, down = fitted(indices.size, width, rows)
    if look.by_letters:
        small = indices.resize((across, down // 2), Image.Resampling.NEAREST)
        return [joined(_letter(index) for index in row) for row in _index_rows(small)]
    small = indices.resize((across, down), Image.Resampling.NEAREST)
    return half_blocks([[colors[index] for index in row] for row in _index_rows(small)])


def blended(picture: Image, indices: Image, colors: Mapping[int, RGB], width: int, rows: int, look: Look) -> list[Line]:
    """The photo in the colours of the classes; with letters, those of the borders between classes over the photo."""
    from PIL import Image

    across, down = fitted(indices.size, width, rows)
    if not look.by_letters:
        mixed = Image.blend(
            picture.resize((across, down), Image.Resampling.BOX),
            colored(indices.resize((across, down), Image.Resampling.NEAREST), colors),
            0.5,
        )
        return half_blocks(_rows_of(mixed))
    below = photo(picture, width, rows, look)
    small = _index_rows(indices.resize((across, down // 2), Image.Resampling.NEAREST))
    lines = []
    for y, (row, line) in enumerate(zip(small, below, strict=False)):
        text = "".join(part for part, _ in line)
        above = small[y - 1] if y else row
        edges = [x for x, index in enumerate(row) if index != above[x] or (x and index != row[x - 1])]
        cells = [(char, "dim") for char in text]
        for x in edges:
            cells[x] = _letter(row[x])
        lines.append(joined(cells))
    return lines


def mistakes(truth: Image, prediction: Image) -> Image:
    """The predicted index (mode L) where it is wrong; ``VOID`` where the truth is, and ``RIGHT`` where it is right."""
    from PIL import Image, ImageChops

    right = ImageChops.difference(truth, prediction).point([255] + [0] * 255)
    found = prediction.copy()
    found.paste(Image.new("L", truth.size, RIGHT), mask=right)
    found.paste(Image.new("L", truth.size, VOID), mask=truth.point([0] * VOID + [255]))
    return found


def errors(found: Image, colors: Mapping[int, RGB], width: int, rows: int, look: Look) -> list[Line]:
    """What ``mistakes`` found: the predicted class where it is wrong; with letters, a dot where it is right."""
    from PIL import Image

    if look.by_letters:
        across, down = fitted(found.size, width, rows)
        small = found.resize((across, down // 2), Image.Resampling.NEAREST)
        special = {RIGHT: (".", "dim"), VOID: (" ", "")}
        return [joined(special.get(index) or _letter(index) for index in row) for row in _index_rows(small)]
    return labels(found, colors, width, rows, look)


def paletted(indices: Image, colors: Mapping[int, RGB]) -> Image:
    """A label map (mode L) with its colours, mode P."""
    from PIL import Image

    flat = [value for index in range(256) for value in colors.get(index, (0, 0, 0))]
    picture = Image.frombytes("P", indices.size, indices.tobytes())
    picture.putpalette(flat)
    return picture


def colored(indices: Image, colors: Mapping[int, RGB]) -> Image:
    """A label map in its colours, mode RGB."""
    return paletted(indices, colors).convert("RGB")


def half_blocks(rows: Sequence[Sequence[RGB]]) -> list[Line]:
    """Two pixels a cell, the upper one as foreground."""
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        lines.append(joined(_half(above, below) for above, below in zip(upper, lower, strict=True)))
    return lines


@lru_cache(maxsize=65536)
def _half(above: RGB, below: RGB) -> tuple[str, str]:
    # A blank with a background takes a third of the bytes of a block.
    return (" ", f"on {hexed(above)}") if above == below else ("▀", f"{hexed(above)} on {hexed(below)}")


def shades(grey: Image) -> list[str]:
    """A character by brightness for each pixel (mode L)."""
    table = bytes(ord(RAMP[min(value * len(RAMP) // 256, len(RAMP) - 1)]) for value in range(256))
    text = grey.tobytes().translate(table).decode()
    return [text[start : start + grey.width] for start in range(0, len(text), grey.width)]


def braille(dots: Image) -> list[str]:
    """Two by four pixels (mode 1) a cell."""
    data = dots.convert("L").tobytes()
    lines = []
    for top in range(0, dots.height - 3, 4):
        cells = []
        for left in range(0, dots.width - 1, 2):
            bits = 0
            for y, pair in enumerate(_DOTS):
                for x, bit in enumerate(pair):
                    bits |= bit if data[(top + y) * dots.width + left + x] else 0
            cells.append(chr(BRAILLE + bits))
        lines.append("".join(cells))
    return lines


def told_apart(colors: Mapping[int, RGB], count: int) -> dict[int, RGB]:
    """The colours as a terminal of ``count`` colours can show them without making two classes look the same."""
    return dict(zip(colors, _of_256(tuple(colors.values())), strict=True)) if count == 256 else dict(colors)


@lru_cache(maxsize=16)
def _of_256(wanted: tuple[RGB, ...]) -> tuple[RGB, ...]:
    """The nearest colour of the 256 for each, none for two that differ."""
    shown, taken = dict[RGB, RGB](), set[int]()
    for color in wanted:
        if color in shown:
            continue
        for near in sorted(_cube(), key=lambda one: sum((a - b) ** 2 for a, b in zip(one, color, strict=True))):
            number = Color.from_rgb(*near).downgrade(ColorSystem.EIGHT_BIT).number
            if number is not None and number not in taken:
                taken.add(number)
                shown[color] = near
                break
        else:
            shown[color] = color  # more classes than colours
    return tuple(shown[color] for color in wanted)


@lru_cache(maxsize=1)
def _cube() -> tuple[RGB, ...]:
    levels = (0, 95, 135, 175, 215, 255)
    return tuple((r, g, b) for r in levels for g in levels for b in levels)


def hexed(color: RGB) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{value:02x}" for value in color)


def _letter(index: int) -> tuple[str, str]:
    return (" ", "") if index == VOID else (glyph_of(index), style_of(index))


def _index_rows(indices: Image) -> list[bytes]:
    data = indices.tobytes()
    return [data[start : start + indices.width] for start in range(0, len(data), indices.width)]


def _rows_of(picture: Image) -> list[list[RGB]]:
    data, width = picture.tobytes(), picture.width
    pixels = [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]
    return [pixels[start : start + width] for start in range(0, len(pixels), width)]
