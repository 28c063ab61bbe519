"""A screen of Textual's as SVG that needs no font: blocks are rectangles, braille is dots, each in its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from rich.cells import get_character_cell_size
from rich.color import Color
from rich.segment import Segment
from rich.style import Style

WIDTH, HEIGHT = 9, 18
"""Units of one cell."""
MARGIN, BAR = 14, 26
GROUND, TEXT = "#11131a", "#d5d8e0"
FONT = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
ANSI = (
    *("#1c1f28", "#f07178", "#8fce6a", "#e8c35a", "#6aa3f8", "#c792ea", "#5cc9d6", "#d5d8e0"),
    *("#6b7080", "#ff8b92", "#a9e385", "#ffd97a", "#8fbcff", "#dcb0ff", "#83e3ee", "#ffffff"),
)
"""The 16 colours that the terminal would choose."""
DIM = 0.6
_DOTS = ((0, 0, 1), (0, 1, 2), (0, 2, 4), (1, 0, 8), (1, 1, 16), (1, 2, 32), (0, 3, 64), (1, 3, 128))
_SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}
# Characters that fill a part of the cell: left, top, width, height in eighths.
_BLOCKS = {
    "▀": (0, 0, 8, 4),
    "▄": (0, 4, 8, 4),
    **{char: (0, 7 - index, 8, index + 1) for index, char in enumerate("▁▂▃▄▅▆▇")},
    **{char: (0, 0, 7 - index, 8) for index, char in enumerate("▉▊▋▌▍▎▏")},
    "─": (0, 3.8, 8, 0.5),
    "│": (3.6, 0, 0.9, 8),
}


class Drawing:
    """Collects what is drawn, by colour, so that neighbours become one element."""

    def __init__(self) -> None:
        self.areas: dict[tuple[str, float], list[str]] = defaultdict(list)
        self.dots: dict[str, list[str]] = defaultdict(list)
        self.texts: list[str] = []

    def area(self, color: str, x: float, y: float, width: float, height: float, opacity: float = 1.0) -> None:
        """A rectangle."""
        self.areas[color, opacity].append(f"M{_n(x)} {_n(y)}h{_n(width)}v{_n(height)}h{_n(-width)}z")

    def elements(self) -> Iterable[str]:
        """Everything as SVG."""
        for (color, opacity), parts in self.areas.items():
            faint = f' fill-opacity="{opacity}"' if opacity < 1 else ""
            yield f'<path fill="{color}"{faint} d="{"".join(parts)}"/>'
        for color, parts in self.dots.items():
            yield f'<path stroke="{color}" d="{"".join(parts)}"/>'
        yield from self.texts


def svg_of(lines: Sequence[Iterable[Segment]], columns: int, title: str) -> str:
    """Lines of segments as they stand on a screen of so many columns."""
    grounds, drawing = Drawing(), Drawing()
    for row, line in enumerate(lines):
        x = 0
        for text, style, control in line:
            if not control:
                x = _segment(grounds, drawing, text, style or Style.null(), x, row)
    width, height = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + BAR + MARGIN
    lights = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * i}" cy="{BAR / 2}" r="5" fill="{c}"/>'
        for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    body = "\n".join([*grounds.elements(), *drawing.elements()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>{lights}\n'
        f'<g transform="translate({MARGIN} {BAR})" font-family="{FONT}" font-size="14.6" '
        'stroke-width="2.5" stroke-linecap="round" shape-rendering="auto" xml:space="preserve">\n'
        f"<style>path[stroke]{{fill:none}}text{{stroke:none}}</style>\n{body}\n</g></svg>\n"
    )


def _segment(grounds: Drawing, drawing: Drawing, text: str, style: Style, x: int, row: int) -> int:
    """Draw one segment; returns the column behind it."""
    ink, ground = _hex(style.color, TEXT), _hex(style.bgcolor, "")
    if style.reverse:
        ink, ground = ground or GROUND, ink
    if style.dim:
        ink = _mixed(ink, ground or GROUND)
    cells = sum(get_character_cell_size(char) for char in text)
    if ground:
        grounds.area(ground, x * WIDTH, row * HEIGHT, cells * WIDTH, HEIGHT)
    word, start = "", x
    for char in text:
        size = get_character_cell_size(char)
        if _drawn(drawing, char, ink, x, row) or size != 1 or char == " ":
            _word(drawing, word, ink, style, start, row)
            if size == 2:
                _word(drawing, char, ink, style, x, row)
            word, start = "", x + size
        else:
            word += char
        x += size
    _word(drawing, word, ink, style, start, row)
    return x


def _drawn(drawing: Drawing, char: str, ink: str, column: int, row: int) -> bool:
    """Draw a character that is a shape; returns whether it is one."""
    left, top = column * WIDTH, row * HEIGHT
    if char in _SHADES or char == "█":
        # A little lower than the cell, so that bars below each other stay apart.
        drawing.area(ink, left, top + 1, WIDTH, HEIGHT - 2, _SHADES.get(char, 1.0))
    elif char in _BLOCKS:
        x, y, width, height = _BLOCKS[char]
        drawing.area(ink, left + x * WIDTH / 8, top + y * HEIGHT / 8, width * WIDTH / 8, height * HEIGHT / 8)
    elif 0x2800 < ord(char) <= 0x28FF:
        bits = ord(char) - 0x2800
        for x, y, bit in _DOTS:
            if bits & bit:
                at = f"M{_n(left + (x + 0.5) * WIDTH / 2)} {_n(top + (y + 0.5) * HEIGHT / 4)}h0"
                drawing.dots[ink].append(at)
    else:
        return char == "⠀"
    return True


def _word(drawing: Drawing, word: str, ink: str, style: Style, column: int, row: int) -> None:
    if not word.strip():
        return
    cells = sum(get_character_cell_size(char) for char in word)
    weight = ' font-weight="bold"' if style.bold else ""
    place = f'x="{column * WIDTH}" y="{_n(row * HEIGHT + 13.5)}" textLength="{cells * WIDTH}"'
    drawing.texts.append(f'<text {place} lengthAdjust="spacingAndGlyphs" fill="{ink}"{weight}>{escape(word)}</text>')


def _hex(color: Color | None, default: str) -> str:
    if color is None or color.is_default:
        return default
    if color.triplet is not None:
        return color.triplet.hex
    number = color.number or 0
    return ANSI[number] if number < 16 else color.get_truecolor().hex


def _mixed(ink: str, ground: str) -> str:
    values = (round(DIM * int(ink[i : i + 2], 16) + (1 - DIM) * int(ground[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{value:02x}" for value in values)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
