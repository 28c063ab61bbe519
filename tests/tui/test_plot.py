"""The chart's drawing against an oracle that reads the dots back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtui.tui.widgets.plot import AXIS_WIDTH, Curve, Frame, Sample, bar, draw, roomy, smooth, spark
from mmtui.tui.widgets.ticks import nice_ticks

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def text_of(lines: list[list[tuple[str, str]]]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def dots(lines: list[list[tuple[str, str]]], height: int) -> set[tuple[int, int]]:
    """(column, row) of every braille dot, read back from the characters by the Unicode standard's numbering."""
    numbering = {0: (0, 0), 1: (0, 1), 2: (0, 2), 3: (1, 0), 4: (1, 1), 5: (1, 2), 6: (0, 3), 7: (1, 3)}
    found = set()
    for row, line in enumerate(text_of(lines)[: height - 1]):
        for column, character in enumerate(line[AXIS_WIDTH:]):
            bits = ord(character) - 0x2800
            if 0 < bits < 256:
                for bit, (dx, dy) in numbering.items():
                    if bits >> bit & 1:
                        found.add((2 * column + dx, 4 * row + dy))
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=60), st.integers(20, 120), st.integers(5, 30))
def test_draw_every_value_has_its_dot(values: list[float], width: int, height: int) -> None:
    samples = [Sample(float(i), v, v, v) for i, v in enumerate(values)]
    found = dots(draw([Curve(samples)], Frame(width, height)), height)
    low, high = min(values), max(values)
    across, down = (width - AXIS_WIDTH) * 2, (height - 1) * 4
    for index, value in enumerate(values):
        column = index / (len(values) - 1) * (across - 1)
        row = (high - value) / (high - low) * (down - 1) if high - low > 1e-12 * max(1, abs(low)) else None
        near = [y for x, y in found if abs(x - column) <= 1]
        assert near, f"no dot in the column of value {index}"
        if row is not None:
            assert min(abs(y - row) for y in near) <= 1


def test_draw_bucket_extremes_are_both_visible() -> None:
    samples = [Sample(0, 1, 1, 1), Sample(1, 0, 10, 1), Sample(2, 1, 1, 1)]
    found = dots(draw([Curve(samples)], Frame(49, 11)), 11)
    middle = [y for x, y in found if abs(x - 40) <= 1]
    assert min(middle) == 0
    assert max(middle) == 39


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_draw_without_usable_values_says_so(values: list[float]) -> None:
    lines = draw([Curve([Sample(0, v, v, v) for v in values])], Frame(40, 8))
    assert "no values yet" in "\n".join(text_of(lines))
    assert len(lines) == 8


def test_draw_log_axis_leaves_out_what_has_no_logarithm() -> None:
    samples = [Sample(0, -1, -1, -1), Sample(1, 1, 1, 1), Sample(2, 1000, 1000, 1000)]
    lines = text_of(draw([Curve(samples)], Frame(60, 12, log=True)))
    assert any("1000" in line[:AXIS_WIDTH] for line in lines)
    assert not any("-" in line[:AXIS_WIDTH] for line in lines[:-1])


def test_draw_ascii_uses_ascii_alone() -> None:
    frame = Frame(60, 12, ascii_only=True, marks=[(2.0, "segment")], references=[3.0])
    lines = text_of(draw([Curve([Sample(i, i, i, i) for i in range(5)])], frame))
    assert all(line.isascii() for line in lines)
    assert any("*" in line for line in lines)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 60))
def test_draw_fits_its_frame(width: int, height: int) -> None:
    lines = text_of(draw([Curve([Sample(i, i, i, i) for i in range(9)])], Frame(width, height, marks=[(3, "stage")])))
    assert len(lines) == max(height, 1) or height == 0
    if width - AXIS_WIDTH >= 4:
        assert all(len(line) <= width for line in lines)


def test_draw_dim_curve_lies_below() -> None:
    same = [Sample(0, 1, 1, 1), Sample(1, 2, 2, 2)]
    lines = draw([Curve(same), Curve(same, dim=True)], Frame(40, 8))
    styles = {style for line in lines for text, style in line if any(0x2800 < ord(c) < 0x2900 for c in text)}
    assert styles == {"curve"}


def test_smooth_invents_no_points_and_keeps_a_constant() -> None:
    samples = [Sample(float(x), 3.0, 3.0, 3.0) for x in (0, 10, 50)]
    result = smooth(samples, 0.9)
    assert [s.x for s in result] == [0.0, 10.0, 50.0]
    assert all(s.last == pytest.approx(3.0) for s in result)


def test_smooth_matches_the_weighted_mean() -> None:
    values, weight = [1.0, 5.0, 2.0, 8.0], 0.6
    result = smooth([Sample(float(i), v, v, v) for i, v in enumerate(values)], weight)
    for i, sample in enumerate(result):
        shares = [weight ** (i - j) for j in range(i + 1)]
        assert sample.last == pytest.approx(sum(s * v for s, v in zip(shares, values, strict=False)) / sum(shares))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 12))
def test_nice_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    ticks = nice_ticks(low, low + span, count)
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)
    if len(ticks) > 2:
        step = ticks[1] - ticks[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-2


def test_bar_and_spark_cover_their_range() -> None:
    assert bar(0.0, 4) == "░░░░"
    assert bar(1.0, 4) == "████"
    assert bar(2.0, 4, ascii_only=True) == "####"
    assert spark([0.0, None, 1.0]) == "▁ █"
    assert spark([0.0, 1.0], ascii_only=True) == "09"


def test_growing_chart_keeps_what_it_has_drawn_while_values_come() -> None:
    """Over a sixteenth of its length a growing curve adds columns on the right and moves none of the others."""

    def lines(count: int, growing: bool) -> list[str]:
        samples = [Sample(float(n), 1 / n, 1 / n, 1 / n) for n in range(10, count)]
        frame = Frame(width=80, height=20, growing=growing)
        return ["".join(text for text, _ in line) for line in draw([Curve(samples)], frame)]

    before, after = lines(900, True), lines(940, True)
    changed = {column for old, new in zip(before, after, strict=True) for column in range(80)
               if old.ljust(80)[column] != new.ljust(80)[column]}  # fmt: skip
    assert changed and min(changed) > 60, "only the right end"
    moved = {column for old, new in zip(lines(900, False), lines(940, False), strict=True) for column in range(80)
             if old.ljust(80)[column] != new.ljust(80)[column]}  # fmt: skip
    assert min(moved) < 40, "a chart that fills its width moves everywhere; the test proves something"


def test_growing_chart_ends_at_round_places_that_hold_every_value() -> None:
    for low, high in ((0.0, 1.0), (-3.2, 7.9), (1e-9, 2e-9), (100.0, 1e6)):
        down, up = roomy(low, high)
        assert down <= low < high <= up
        assert (up - down) <= (high - low) * 1.26


# ---- parts of the axis, gaps, marks --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.floats(0, 0.8), st.floats(0.05, 1.0))
def test_draw_part_of_the_axis_shows_the_same_line_cut(values: list[float], start: float, share: float) -> None:
    """Every dot of a zoomed chart lies on the line through the points, the part between the ends alone."""
    last = len(values) - 1
    low = start * last
    high = min(low + max(share * last, 0.2), float(last))
    samples = [Sample(float(i), v, v, v) for i, v in enumerate(values)]
    frame = Frame(80, 20, x_range=(low, high))
    found = dots(draw([Curve(samples)], frame), 20)
    across, down = (80 - AXIS_WIDTH) * 2, 19 * 4

    def line(x: float) -> float:
        i = min(int(x), last - 1)
        return values[i] + (values[i + 1] - values[i]) * (x - i)

    ends = [line(low), line(high), *(v for i, v in enumerate(values) if low <= i <= high)]
    bottom, top = min(ends), max(ends)
    if top - bottom < 1e-6:
        return
    for column in range(0, across, 7):
        # Between two columns a steep line covers many rows: one of its dots is near the line's middle.
        x = low + column / (across - 1) * (high - low)
        wanted = (top - line(x)) / (top - bottom) * (down - 1)
        near = [y for c, y in found if abs(c - column) <= 1]
        assert near and min(near) - 1.5 <= wanted <= max(near) + 1.5


def test_draw_leaves_a_gap_where_values_are_missing() -> None:
    values = [1.0, 2.0, math.nan, math.nan, 2.0, 1.0]
    found = dots(draw([Curve([Sample(float(i), v, v, v) for i, v in enumerate(values)])], Frame(80, 12)), 12)
    columns = {x for x, _ in found}
    inside = [x for x in columns if 1.1 / 5 < x / (71 * 2 - 1) < 3.9 / 5]
    assert not inside and min(columns) == 0 and max(columns) == 71 * 2 - 1


def test_smooth_passes_over_missing_values() -> None:
    values, weight = [1.0, math.nan, 3.0, math.inf, 5.0], 0.8
    result = smooth([Sample(float(i), v, v, v) for i, v in enumerate(values)], weight)
    assert [s.x for s in result] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert math.isnan(result[1].last) and math.isinf(result[3].last)
    alone = smooth([Sample(float(i), v, v, v) for i, v in enumerate([1.0, 3.0, 5.0])], weight)
    assert [result[i].last for i in (0, 2, 4)] == [s.last for s in alone]


@given(st.lists(st.one_of(FINITE, st.just(math.nan)), max_size=30), st.floats(0, 0.999))
def test_smooth_never_invents_a_point_or_leaves_the_range(values: list[float], weight: float) -> None:
    samples = [Sample(float(3 * i), v, v, v) for i, v in enumerate(values)]
    result = smooth(samples, weight)
    assert [s.x for s in result] == [s.x for s in samples]
    known = [v for v in values if math.isfinite(v)]
    for sample, value in zip(result, values, strict=True):
        assert math.isfinite(sample.last) == math.isfinite(value)
        if math.isfinite(value):
            slack = 1e-9 * max(map(abs, known)) + 1e-12
            assert min(known) - slack <= sample.last <= max(known) + slack


def test_points_of_a_sparse_series_are_marked_each() -> None:
    samples = [Sample(x, v, v, v) for x, v in ((100.0, 20.0), (200.0, 30.0), (300.0, 31.0))]
    for ascii_only, mark in ((False, "•"), (True, "o")):
        text = "\n".join(text_of(draw([Curve(samples, points=True)], Frame(80, 14, ascii_only=ascii_only))))
        assert text.count(mark) == 3


def test_constant_series_has_one_label_and_no_false_scale() -> None:
    lines = text_of(draw([Curve([Sample(float(i), 0.02, 0.02, 0.02) for i in range(50)])], Frame(60, 12)))
    assert [line[:AXIS_WIDTH].strip(" │┤") for line in lines[:-1] if line[:AXIS_WIDTH].strip(" │┤")] == ["0.02"]


def test_curves_are_told_apart_without_colour() -> None:
    curves = [
        Curve([Sample(float(i), v, v, v) for i in range(9)], label=label) for v, label in ((1.0, "A"), (2.0, "B"))
    ]
    lines = text_of(draw(curves, Frame(60, 12)))
    assert [line[-1] for line in lines if line.endswith(("A", "B"))] == ["B", "A"]
    plain = "\n".join(text_of(draw(curves, Frame(60, 12, ascii_only=True))))
    assert "aaaa" in plain and "bbbb" in plain and plain.isascii()


def test_cursor_evaluations_and_published_values_are_marked() -> None:
    samples = [Sample(float(i), float(i), float(i), float(i)) for i in range(101)]
    frame = Frame(80, 14, cursor=50.0, spots=[20.0, 80.0], references=[42.8], marks=[(0.0, "match"), (60.0, "segment")])
    lines = text_of(draw([Curve(samples)], frame))
    columns = [int(place / 100 * 70) + AXIS_WIDTH for place in (20, 50, 60, 80)]
    assert [abs(lines[0].index("▾") - columns[0]) <= 1, abs(lines[0].rindex("▾") - columns[3]) <= 1] == [True, True]
    assert abs(lines[-1].index("▲") - columns[1]) <= 1 and "┊match" in lines[-1] and "┊segment" in lines[-1]
    assert sum("│" in line[AXIS_WIDTH:] for line in lines) > 8, "a line up from the cursor"
    assert sum("╌╌╌" in line for line in lines) == 1
