"""Drawing a line chart into character cells: braille dots (2 x 4 a cell), or ASCII. Pure functions, no Textual.

Every bucket's minimum and maximum get a dot, so no peak is lost; consecutive points are joined by straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Span = tuple[str, str]
"""Text and the name of its style."""

_BRAILLE = 0x2800
_DOT_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
AXIS_WIDTH = 9
LABEL_WIDTH = AXIS_WIDTH - 2


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
    """One line of a chart; dim curves are drawn first and lie below."""

    samples: Sequence[Sample]
    style: str = "curve"
    dim: bool = False


@dataclass(frozen=True)
class Frame:
    """What a chart is drawn with.

    Attributes:
        log: logarithmic y axis; values that are not positive are left out.
        ascii_only: no braille.
        marks: x positions with a label: vertical lines where stages begin.
        reference: a horizontal line, for example a published value.
        unit: text before the x axis labels.
        growing: values are still coming: the axes end at round places, so that they, and with them every dot that was
            drawn, stay where they are for a while. Over SSH each move would send the whole chart again.
        limits: ends of the y axis, None: those of the values.
        ends: ends of the x axis, None: those of the values.
    """

    width: int
    height: int
    log: bool = False
    ascii_only: bool = False
    marks: Sequence[tuple[float, str]] = ()
    reference: float | None = None
    unit: str = "step"
    growing: bool = False
    limits: tuple[float, float] | None = None
    ends: tuple[float, float] | None = None


@dataclass
class _Canvas:
    """Dots of the plotting area; ``style`` of a cell is that of the last curve that touched it."""

    columns: int
    rows: int
    across: int
    down: int
    bits: list[list[int]] = field(default_factory=list)
    styles: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bits = [[0] * self.columns for _ in range(self.rows)]
        self.styles = [[""] * self.columns for _ in range(self.rows)]

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
    """Exponential moving average with bias correction, at the samples that exist and nowhere else."""
    if weight <= 0:
        return list(samples)
    mean, norm, result = 0.0, 0.0, []
    for sample in samples:
        mean = weight * mean + (1 - weight) * sample.last
        norm = weight * norm + (1 - weight)
        value = mean / norm
        result.append(Sample(sample.x, value, value, value))
    return result


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A number in at most seven characters."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        texts = (f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-") for digits in (1, 0))
        return next((text for text in texts if len(text) <= LABEL_WIDTH), "0")
    return next(text for digits in (4, 3, 2, 1) if len(text := f"{value:.{digits}g}") <= LABEL_WIDTH or digits == 1)


def draw(curves: Sequence[Curve], frame: Frame) -> list[list[Span]]:
    """The chart as ``frame.height`` lines of styled spans, at most ``frame.width`` cells wide each."""
    columns, rows = frame.width - AXIS_WIDTH, frame.height - 1
    if columns < 4 or rows < 2:
        return [[("too small", "dim")]] + [[] for _ in range(max(frame.height - 1, 0))]
    usable = [Curve(_usable(curve.samples, frame.log), curve.style, curve.dim) for curve in curves]
    usable = [curve for curve in usable if curve.samples]
    if not usable:
        blank: list[list[Span]] = [[] for _ in range(frame.height)]
        blank[frame.height // 2] = [("no values yet".center(frame.width), "dim")]
        return blank
    scale = _Scale.fit(usable, frame)
    canvas = _Canvas(columns, rows, *((1, 1) if frame.ascii_only else (2, 4)))
    for curve in sorted(usable, key=lambda curve: not curve.dim):
        _plot(canvas, scale, curve)
    return _compose(canvas, scale, frame)


def _usable(samples: Iterable[Sample], log: bool) -> list[Sample]:
    return [s for s in samples if all(map(math.isfinite, (s.x, s.low, s.high, s.last))) and (s.low > 0 or not log)]


_PARTS = 16
"""A growing axis ends at a multiple of between a 16th and an 8th of its length: so much may be empty."""


def _roomy(low: float, high: float) -> tuple[float, float]:
    """Limits rounded outwards to multiples of a power of two."""
    quantum = 2.0 ** math.ceil(math.log2((high - low) / _PARTS))
    return math.floor(low / quantum) * quantum, math.ceil(high / quantum) * quantum


@dataclass(frozen=True)
class _Scale:
    """From values to dots."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool

    @classmethod
    def fit(cls, curves: Sequence[Curve], frame: Frame) -> _Scale:
        xs = [s.x for curve in curves for s in (curve.samples[0], curve.samples[-1])]
        lows = [s.low for curve in curves for s in curve.samples]
        highs = [s.high for curve in curves for s in curve.samples]
        if frame.reference is not None and (frame.reference > 0 or not frame.log):
            lows, highs = [*lows, frame.reference], [*highs, frame.reference]
        y0, y1 = min(lows), max(highs)
        if frame.log:
            y0, y1 = math.log10(y0), math.log10(y1)
        if y1 - y0 < 1e-12 * max(1.0, abs(y0)):
            pad = abs(y0) * 0.1 or 1.0
            y0, y1 = y0 - pad, y1 + pad
        x0, x1 = min(xs), max(xs)
        x1 = x1 if x1 > x0 else x0 + 1
        if frame.growing:
            x1, (y0, y1) = _roomy(x0, x1)[1], _roomy(y0, y1)
        (x0, x1), (y0, y1) = frame.ends or (x0, x1), frame.limits or (y0, y1)
        return cls(x0, x1, y0, y1, frame.log)

    def column(self, x: float, width: int) -> int:
        return round((x - self.x0) / (self.x1 - self.x0) * (width - 1))

    def row(self, y: float, height: int) -> int:
        value = math.log10(y) if self.log else y
        return height - 1 - round((value - self.y0) / (self.y1 - self.y0) * (height - 1))


def _plot(canvas: _Canvas, scale: _Scale, curve: Curve) -> None:
    style = "dim" if curve.dim else curve.style
    before: tuple[int, int] | None = None
    for sample in curve.samples:
        x = scale.column(sample.x, canvas.width)
        top, bottom = scale.row(sample.high, canvas.height), scale.row(sample.low, canvas.height)
        here = (x, scale.row(sample.last, canvas.height))
        if before is not None:
            canvas.line(*before, *here, style)
        for y in range(top, bottom + 1):
            canvas.dot(x, y, style)
        before = here


def _compose(canvas: _Canvas, scale: _Scale, frame: Frame) -> list[list[Span]]:
    labels = _y_labels(canvas, scale)
    marks = {
        scale.column(x, canvas.width) // canvas.across: text for x, text in frame.marks if scale.x0 < x <= scale.x1
    }
    reference = None
    if frame.reference is not None and (frame.reference > 0 or not frame.log):
        reference = scale.row(frame.reference, canvas.height) // canvas.down
    lines = []
    for row in range(canvas.rows):
        label = labels.get(row, "")
        tick = ("|" if frame.ascii_only else "┤" if label else "│") if label else ("|" if frame.ascii_only else "│")
        cells = [_cell(canvas, row, column, marks, reference, frame) for column in range(canvas.columns)]
        lines.append([(f"{label:>{AXIS_WIDTH - 2}} {tick}", "axis"), *_runs(cells)])
    lines.append(_x_axis(canvas, scale, frame, marks))
    return lines


def _cell(canvas: _Canvas, row: int, column: int, marks: dict[int, str], reference: int | None, frame: Frame) -> Span:
    bits = canvas.bits[row][column]
    if bits:
        return ("*" if frame.ascii_only else chr(_BRAILLE + bits)), canvas.styles[row][column]
    if column in marks:
        return (":" if frame.ascii_only else "┊"), "axis"
    if row == reference:
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


def _y_labels(canvas: _Canvas, scale: _Scale) -> dict[int, str]:
    ticks = nice_ticks(scale.y0, scale.y1, max(canvas.rows // 3, 2))
    labels: dict[int, str] = {}
    for tick in ticks:
        share = (tick - scale.y0) / (scale.y1 - scale.y0)
        row = (canvas.height - 1 - round(share * (canvas.height - 1))) // canvas.down
        labels.setdefault(row, tick_text(10**tick if scale.log else tick))
    return labels


def _x_axis(canvas: _Canvas, scale: _Scale, frame: Frame, marks: dict[int, str]) -> list[Span]:
    """Numbers below the plot; the names of stages win over numbers where both would stand."""
    cells = [" "] * canvas.columns
    for column, text in sorted(marks.items()):
        _put(cells, column, f"{':' if frame.ascii_only else '┊'}{text}")
    for tick in nice_ticks(scale.x0, scale.x1, max(canvas.columns // 12, 1)):
        if tick != round(tick):
            continue  # steps are whole numbers
        text = f"{tick:.0f}" if abs(tick) < 1e6 else tick_text(tick)
        column = scale.column(tick, canvas.width) // canvas.across
        _put(cells, min(max(column - len(text) // 2, 0), canvas.columns - len(text)), text)
    return [(f"{frame.unit:>{AXIS_WIDTH - 1}} ", "axis"), ("".join(cells).rstrip(), "axis")]


def _put(cells: list[str], column: int, text: str) -> None:
    """Write a label if there is room for it and a blank on both sides."""
    low, high = max(column - 1, 0), min(column + len(text) + 1, len(cells))
    if column >= 0 and column + len(text) <= len(cells) and all(cell == " " for cell in cells[low:high]):
        cells[column : column + len(text)] = list(text)


def spark(values: Sequence[float | None], ascii_only: bool = False, top: float | None = None) -> str:
    """Values as one line of small bars; None is a blank."""
    marks = "0123456789" if ascii_only else "▁▂▃▄▅▆▇█"
    largest = top if top is not None else max((v for v in values if v is not None), default=0.0)
    text = ""
    for value in values:
        if value is None or not math.isfinite(value):
            text += " "
        elif largest <= 0:
            text += marks[0]
        else:
            text += marks[min(int(max(value, 0) / largest * (len(marks) - 1) + 0.5), len(marks) - 1)]
    return text


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A share 0-1 as a bar of ``width`` cells."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    return full * filled + empty * (width - filled)
