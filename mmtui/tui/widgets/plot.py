"""Drawing a line chart into character cells: braille dots (2 x 4 a cell), or ASCII. Pure functions, no Textual.

Every bucket's minimum and maximum get a dot, so no peak is lost; consecutive points are joined by straight lines.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mmtui.domain.numbers import LARGEST, between, bounded
from mmtui.domain.text import printable
from mmtui.tui.widgets.ticks import LABEL_WIDTH, axis_ticks, nice_ticks, tick_text

Span = tuple[str, str]
"""Text and the name of its style."""

_BRAILLE = 0x2800
_DOT_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
AXIS_WIDTH = LABEL_WIDTH + 2


def chart_buckets(width: int) -> int:
    """How many buckets a chart of ``width`` cells can show: one per dot column."""
    return max((width - AXIS_WIDTH) * 2, 16)


@dataclass(frozen=True)
class Sample:
    """One bucket: position, extremes and last value."""

    x: float
    low: float
    high: float
    last: float


@dataclass(frozen=True)
class Curve:
    """One line of a chart; dim curves are drawn first and lie below, later ones over earlier ones.

    Attributes:
        points: each sample gets a mark of its own: for series of few points.
        label: a letter at the line's end that tells it from others without colour; in ASCII the line is made of it.
    """

    samples: Sequence[Sample]
    style: str = "curve"
    dim: bool = False
    points: bool = False
    label: str = ""


@dataclass(frozen=True)
class Frame:
    """What a chart is drawn with.

    Attributes:
        log: logarithmic y axis; values that are not positive are left out.
        ascii_only: no braille.
        marks: x positions with a label: vertical lines where stages begin.
        spots: x positions with a small mark on top: where evaluations were.
        cursor: x position of a vertical line.
        references: horizontal lines, for example published values.
        x_axis: what x is: ``step``, ``epoch``, ``clock`` or ``relative`` (``mmtui.tui.widgets.ticks``).
        x_range: ends of the x axis; None: those of the curves.
        growing: values are still coming: axes that are not given end at round places, so that they, and with them
            every dot that was drawn, stay where they are for a while. Over SSH each move would send the whole chart
            again.
        limits: ends of the y axis, None: those of the values.
    """

    width: int
    height: int
    log: bool = False
    ascii_only: bool = False
    marks: Sequence[tuple[float, str]] = ()
    spots: Sequence[float] = ()
    cursor: float | None = None
    references: Sequence[float] = ()
    x_axis: str = "step"
    x_range: tuple[float, float] | None = None
    growing: bool = False
    limits: tuple[float, float] | None = None


@dataclass
class Canvas:
    """Dots in cells, ``across`` x ``down`` of them in each; a cell's ``style`` is that of what touched it last."""

    columns: int
    rows: int
    across: int
    down: int
    bits: list[list[int]] = field(default_factory=list)
    styles: list[list[str]] = field(default_factory=list)
    glyphs: dict[tuple[int, int], Span] = field(default_factory=dict)
    """(row, column) of a cell -> what stands there instead of dots."""
    ink: str = "*"
    """What one dot is where a cell has room for one alone."""
    made: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bits = [[0] * self.columns for _ in range(self.rows)]
        self.styles = [[""] * self.columns for _ in range(self.rows)]
        self.made = [["*"] * self.columns for _ in range(self.rows)]

    @property
    def width(self) -> int:
        return self.columns * self.across

    @property
    def height(self) -> int:
        return self.rows * self.down

    def dot(self, x: int, y: int, style: str) -> None:
        if not (0 <= x < self.width and 0 <= y < self.height):
            return
        row, column = y // self.down, x // self.across
        self.bits[row][column] |= _DOT_BITS[y % self.down][x % self.across] if self.across == 2 else 1
        self.styles[row][column] = style
        self.made[row][column] = self.ink

    def mark(self, x: int, y: int, text: str, style: str) -> None:
        """A character in the cell of a dot."""
        if 0 <= x < self.width and 0 <= y < self.height:
            self.glyphs[y // self.down, x // self.across] = (text, style)

    def cell(self, row: int, column: int, ascii_only: bool) -> Span | None:
        """What stands in a cell, None where it is empty."""
        if (row, column) in self.glyphs:
            return self.glyphs[row, column]
        bits = self.bits[row][column]
        if not bits:
            return None
        return (self.made[row][column] if ascii_only else chr(_BRAILLE + bits)), self.styles[row][column]

    def lines(self, ascii_only: bool) -> list[list[Span]]:
        """All cells, as lines of spans."""
        return [
            _runs(self.cell(row, column, ascii_only) or (" ", "") for column in range(self.columns))
            for row in range(self.rows)
        ]

    def line(self, x0: int, y0: int, x1: int, y1: int, style: str) -> None:
        """Bresenham's line."""
        dx, dy = abs(x1 - x0), -abs(y1 - y0)
        step_x, step_y = (1 if x0 < x1 else -1), (1 if y0 < y1 else -1)
        error = dx + dy
        while True:
            self.dot(x0, y0, style)
            if (x0, y0) == (x1, y1):
                return
            doubled = 2 * error
            if doubled >= dy:
                error += dy
                x0 += step_x
            if doubled <= dx:
                error += dx
                y0 += step_y


def smooth(samples: Sequence[Sample], weight: float) -> list[Sample]:
    """Exponential moving average with bias correction, at the samples that exist and nowhere else.

    A sample without a value stays one and does not count.
    """
    if not 0 < weight < 1:
        return list(samples)
    mean, norm, result = 0.0, 0.0, list[Sample]()
    for sample in samples:
        if not math.isfinite(sample.last):
            result.append(sample)
            continue
        mean = weight * mean + (1 - weight) * sample.last
        norm = weight * norm + (1 - weight)
        value = bounded(mean / norm, sys.float_info.max)
        result.append(Sample(sample.x, value, value, value))
    return result


def draw(curves: Sequence[Curve], frame: Frame) -> list[list[Span]]:
    """The chart as ``frame.height`` lines of styled spans, at most ``frame.width`` cells wide each."""
    columns, rows = frame.width - AXIS_WIDTH, frame.height - 1
    if columns < 4 or rows < 2:
        return [[("too small", "dim")]] + [[] for _ in range(max(frame.height - 1, 0))]
    frame = _sound(frame)
    parts = [part for curve in curves for part in _parts(curve, frame)]
    if not parts:
        blank: list[list[Span]] = [[] for _ in range(frame.height)]
        blank[frame.height // 2] = [("no values yet".center(frame.width), "dim")]
        return blank
    scale = _Scale.fit(parts, frame)
    canvas = Canvas(columns, rows, *((1, 1) if frame.ascii_only else (2, 4)))
    for curve in sorted(parts, key=lambda curve: not curve.dim):
        _plot(canvas, scale, curve, frame.ascii_only)
    return _compose(canvas, scale, frame)


def _sound(frame: Frame) -> Frame:
    """A frame without references and ends of axes that are no places on an axis."""
    references = [bounded(value) for value in frame.references if math.isfinite(value)]
    if frame.log:
        references = [value for value in references if value > 0]
    limits = _ends(frame.limits)
    limits = limits if limits is not None and limits[0] < limits[1] else None
    return replace(frame, references=references, x_range=_ends(frame.x_range), limits=limits)


def _ends(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    return (bounded(pair[0]), bounded(pair[1])) if pair is not None and all(map(math.isfinite, pair)) else None


def _usable(sample: Sample, log: bool) -> Sample | None:
    """The sample with numbers that can be reckoned with, its last value between its extremes; None if it has none."""
    values = (sample.low, sample.last, sample.high)
    low, high = min(values), max(values)
    if not all(map(math.isfinite, (sample.x, *values))) or (log and low <= 0):
        return None
    if low == sample.low and high == sample.high and max(abs(sample.x), -low, high) <= LARGEST:
        return sample
    return Sample(*map(bounded, (sample.x, low, high, sample.last)))


def _parts(curve: Curve, frame: Frame) -> list[Curve]:
    """The pieces of a curve that can be drawn: it ends where a value is none, and at the ends of the axis."""
    pieces: list[list[Sample]] = [[]]
    for sample in curve.samples:
        usable = _usable(sample, frame.log)
        if usable is not None:
            pieces[-1].append(usable)
        elif pieces[-1]:
            pieces.append([])
    if frame.x_range is not None:
        pieces = [_clipped(piece, *frame.x_range) for piece in pieces]
    pieces = [piece for piece in pieces if piece]
    return [
        replace(curve, samples=piece, label=curve.label if number == len(pieces) else "")
        for number, piece in enumerate(pieces, 1)
    ]


def _clipped(samples: Sequence[Sample], low: float, high: float) -> list[Sample]:
    """Samples within [low, high], and where the line to those outside crosses the ends."""
    found: list[Sample] = []
    for number, sample in enumerate(samples):
        if number:
            before = samples[number - 1]
            for border in (low, high):
                if before.x < border < sample.x:
                    least, most = sorted((before.last, sample.last))
                    y = between(before.last, sample.last, border - before.x, sample.x - before.x)
                    y = min(max(y, least), most)  # rounding may lead to 0, of which there is no logarithm
                    found.append(Sample(border, y, y, y))
        if low <= sample.x <= high:
            found.append(sample)
    return found


_LEAST = 5e-324
_PARTS = 16
"""A growing axis ends at a multiple of between a 16th and an 8th of its length: so much may be empty."""


def roomy(low: float, high: float) -> tuple[float, float]:
    """Limits rounded outwards to multiples of a power of two: they stay where they are for a while.

    Limits between which there is nothing, or more than a float can tell, stay as they are.
    """
    length = high - low
    if not 0 < length <= LARGEST:
        return low, high
    quantum = 2.0 ** math.ceil(math.log2(max(length / _PARTS, _LEAST)))
    return math.floor(low / quantum) * quantum, math.ceil(high / quantum) * quantum


@dataclass(frozen=True)
class _Scale:
    """From values to dots."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool
    flat: float | None = None
    """The one value that all curves have."""

    @classmethod
    def fit(cls, curves: Sequence[Curve], frame: Frame) -> _Scale:
        xs = [s.x for curve in curves for s in curve.samples]  # times may go backwards
        lows = [s.low for curve in curves for s in curve.samples]
        highs = [s.high for curve in curves for s in curve.samples]
        y0, y1 = min([*lows, *frame.references]), max([*highs, *frame.references])
        flat = None
        if frame.log:
            y0, y1 = math.log10(y0), math.log10(y1)
        if y1 - y0 < 1e-12 * max(1.0, abs(y0)):
            flat = highs[-1]
            pad = abs(y0) * 0.1 or 1.0
            y0, y1 = y0 - pad, y1 + pad
        x0, x1 = frame.x_range or (min(xs), max(xs))
        x1 = x1 if x1 > x0 else x0 + max(1, abs(x0) * 2.0**-50)
        if frame.growing:
            x1 = x1 if frame.x_range else roomy(x0, x1)[1]
            y0, y1 = (y0, y1) if flat is not None else roomy(y0, y1)
        y0, y1 = frame.limits or (y0, y1)
        return cls(x0, x1, y0, y1, frame.log, flat)

    def column(self, x: float, width: int) -> int:
        return round(_near((x - self.x0) / (self.x1 - self.x0)) * (width - 1))

    def row(self, y: float, height: int) -> int:
        value = math.log10(y) if self.log else y
        return height - 1 - round(_near((value - self.y0) / (self.y1 - self.y0)) * (height - 1))


def _near(share: float) -> float:
    """A place on an axis, one that is far beyond its ends just beyond them: lines to there are drawn dot by dot."""
    return min(max(share, -1.0), 2.0)


def _plot(canvas: Canvas, scale: _Scale, curve: Curve, ascii_only: bool) -> None:
    style = "dim" if curve.dim else curve.style
    canvas.ink = "." if curve.dim else curve.label.lower() or "*"
    before: tuple[int, int] | None = None
    for sample in curve.samples:
        x = scale.column(sample.x, canvas.width)
        top, bottom = scale.row(sample.high, canvas.height), scale.row(sample.low, canvas.height)
        here = (x, scale.row(sample.last, canvas.height))
        if before is not None:
            canvas.line(*before, *here, style)
        for y in range(max(top, 0), min(bottom, canvas.height - 1) + 1):
            canvas.dot(x, y, style)
        if curve.points:
            canvas.mark(*here, "o" if ascii_only else "•", style)
        before = here
    if curve.label and before is not None:
        canvas.mark(*before, curve.label, style)


def _compose(canvas: Canvas, scale: _Scale, frame: Frame) -> list[list[Span]]:
    labels = _y_labels(canvas, scale)

    def cell_of(x: float) -> int:
        return scale.column(x, canvas.width) // canvas.across

    marks = {cell_of(x): printable(text) for x, text in frame.marks if scale.x0 <= x <= scale.x1}
    lines = dict.fromkeys(cell_of(x) for x, _ in frame.marks if scale.x0 < x <= scale.x1)
    vertical = dict.fromkeys(lines, (":" if frame.ascii_only else "┊", "axis"))
    if frame.cursor is not None and scale.x0 <= frame.cursor <= scale.x1:
        vertical[cell_of(frame.cursor)] = ("|" if frame.ascii_only else "│", "warn")
    spots = {cell_of(x) for x in frame.spots if scale.x0 <= x <= scale.x1}
    references = {scale.row(value, canvas.height) // canvas.down for value in frame.references}
    made = []
    for row in range(canvas.rows):
        label = labels.get(row, "")
        tick = "|" if frame.ascii_only else "┤" if label else "│"
        cells = [_cell(canvas, row, column, vertical, references, frame) for column in range(canvas.columns)]
        if row == 0:
            spot = ("v" if frame.ascii_only else "▾", "axis")
            cells = [spot if column in spots and cell[0] == " " else cell for column, cell in enumerate(cells)]
        made.append([(f"{label:>{AXIS_WIDTH - 2}} {tick}", "axis"), *_runs(cells)])
    made.append(_x_axis(canvas, scale, frame, marks))
    return made


def _cell(canvas: Canvas, row: int, column: int, vertical: dict[int, Span], references: set[int], frame: Frame) -> Span:
    drawn = canvas.cell(row, column, frame.ascii_only)
    if drawn is not None:
        return drawn
    if column in vertical:
        return vertical[column]
    if row in references:
        return ("-" if frame.ascii_only else "╌"), "reference"
    return " ", ""


def _runs(cells: Iterable[Span]) -> list[Span]:
    """Neighbouring cells of one style as one span: what the terminal is sent is mostly style changes."""
    runs: list[Span] = []
    for text, style in cells:
        if runs and (runs[-1][1] == style or text == " "):
            runs[-1] = (runs[-1][0] + text, runs[-1][1])
        else:
            runs.append((text, style))
    return runs


_LEAST_POWER, _LARGEST_POWER = -323, 308
"""Powers of ten that are floats."""


def _y_labels(canvas: Canvas, scale: _Scale) -> dict[int, str]:
    if scale.flat is not None:
        return {scale.row(scale.flat, canvas.height) // canvas.down: tick_text(scale.flat)}
    ticks = nice_ticks(scale.y0, scale.y1, max(canvas.rows // 3, 2))
    labels: dict[int, str] = {}
    for tick in ticks:
        share = (tick - scale.y0) / (scale.y1 - scale.y0)
        row = (canvas.height - 1 - round(share * (canvas.height - 1))) // canvas.down
        if not scale.log:
            labels.setdefault(row, tick_text(tick))
        elif _LEAST_POWER <= tick <= _LARGEST_POWER:
            labels.setdefault(row, tick_text(10**tick))
    return labels


def _x_axis(canvas: Canvas, scale: _Scale, frame: Frame, marks: dict[int, str]) -> list[Span]:
    """Numbers below the plot; the names of stages win over numbers where both would stand."""
    cells = [" "] * canvas.columns
    for column, text in sorted(marks.items()):
        _put(cells, column, f"{':' if frame.ascii_only else '┊'}{text}")
    if frame.cursor is not None and scale.x0 <= frame.cursor <= scale.x1:
        _put(cells, scale.column(frame.cursor, canvas.width) // canvas.across, "^" if frame.ascii_only else "▲")
    for x, text in axis_ticks(frame.x_axis, scale.x0, scale.x1, max(canvas.columns // 12, 1)):
        column = scale.column(x, canvas.width) // canvas.across
        _put(cells, min(max(column - len(text) // 2, 0), canvas.columns - len(text)), text)
    return [(f"{_UNITS[frame.x_axis]:>{AXIS_WIDTH - 1}} ", "axis"), ("".join(cells).rstrip(), "axis")]


_UNITS = {"step": "step", "epoch": "epoch", "clock": "time", "relative": "since"}


def _put(cells: list[str], column: int, text: str) -> None:
    """Write a label if there is room for it and a blank on both sides."""
    low, high = max(column - 1, 0), min(column + len(text) + 1, len(cells))
    if column >= 0 and column + len(text) <= len(cells) and all(cell == " " for cell in cells[low:high]):
        cells[column : column + len(text)] = list(text)


def spark(values: Sequence[float | None], ascii_only: bool = False, top: float | None = None) -> str:
    """Values as one line of small bars; None is a blank."""
    marks = "0123456789" if ascii_only else "▁▂▃▄▅▆▇█"
    if top is None or math.isnan(top):
        top = max((v for v in values if v is not None and math.isfinite(v)), default=0.0)
    text = ""
    for value in values:
        if value is None or not math.isfinite(value):
            text += " "
        elif top <= 0:
            text += marks[0]
        else:
            text += marks[int(min(max(value, 0) / top, 1.0) * (len(marks) - 1) + 0.5)]
    return text


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A share 0-1 as a bar of ``width`` cells."""
    filled = 0 if math.isnan(share) else round(min(max(share, 0.0), 1.0) * max(width, 0))
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    return full * filled + empty * (width - filled)
