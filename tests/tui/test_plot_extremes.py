"""Charts of numbers that no chart is made for: any float, any order, any size. Nothing raises, nothing is endless."""

from __future__ import annotations

import math
import sqlite3

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.events.records import Graph, Projection
from mmtui.domain.states import RunEvent
from mmtui.domain.views import Embeddings
from mmtui.paths import Home
from mmtui.store import pyramid
from mmtui.tui.pages import charts, graph
from mmtui.tui.pages.axes import AXES, Axis
from mmtui.tui.widgets.plot import AXIS_WIDTH, Canvas, Curve, Frame, Sample, bar, draw, roomy, smooth, spark
from mmtui.tui.widgets.ticks import (
    LABEL_WIDTH,
    axis_ticks,
    moment_text,
    multiples,
    nice_step,
    nice_ticks,
    since,
    tick_text,
)
from tests.tui.seed import NOW, seed_run

MOST = 1.7976931348623157e308
EXTREME = [MOST, -MOST, 5e-324, -5e-324, 0.0, 1e-300, 1e300, 2.0**63, 1e18, -1e18, 1.7e12, 1.0, 1.0 + 2**-52]
FINITE = st.one_of(st.sampled_from(EXTREME), st.floats(-10, 10), st.floats(allow_nan=False, allow_infinity=False))
ANY = st.one_of(FINITE, st.floats())
PLACE = st.one_of(ANY, st.integers(-(2**63), 2**63))
SAMPLE = st.builds(Sample, PLACE, ANY, ANY, ANY)
CURVE = st.builds(
    Curve,
    st.lists(SAMPLE, max_size=8),
    dim=st.booleans(),
    points=st.booleans(),
    label=st.sampled_from(["", "A"]),
)
FRAME = st.builds(
    Frame,
    width=st.integers(0, 60),
    height=st.integers(0, 14),
    log=st.booleans(),
    ascii_only=st.booleans(),
    marks=st.lists(st.tuples(PLACE, st.sampled_from(["match", "\x1b[31m", "x" * 200])), max_size=3),
    spots=st.lists(PLACE, max_size=3),
    cursor=st.none() | PLACE,
    references=st.lists(ANY, max_size=3),
    x_axis=st.sampled_from(AXES),
    x_range=st.none() | st.tuples(PLACE, PLACE),
    growing=st.booleans(),
    limits=st.none() | st.tuples(ANY, ANY),
)


def text_of(lines: list[list[tuple[str, str]]]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def values(*numbers: float) -> list[Curve]:
    return [Curve([Sample(float(x), y, y, y) for x, y in enumerate(numbers)])]


@given(st.lists(CURVE, max_size=3), FRAME)
@settings(max_examples=400, deadline=None)
def test_draw_any_numbers_in_any_frame(curves: list[Curve], frame: Frame) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count, dot = [0], Canvas.dot

        def counted(canvas: Canvas, x: int, y: int, style: str) -> None:
            count[0] += 1
            assert count[0] < 50_000, "a line without end"
            dot(canvas, x, y, style)

        patch.setattr(Canvas, "dot", counted)
        lines = text_of(draw(curves, frame))
    assert len(lines) == max(frame.height, 1)
    if frame.width - AXIS_WIDTH >= 4:
        assert all(len(line) <= frame.width and line.isprintable() for line in lines)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("numbers", [(MOST, -MOST), (MOST, MOST / 2, 1.0), (5e-324, MOST), (5e-324, 1e-323), (MOST,)])
def test_draw_shows_what_is_largest_and_smallest(numbers: tuple[float, ...], log: bool, growing: bool) -> None:
    lines = text_of(draw(values(*numbers), Frame(80, 20, log=log, growing=growing)))
    dots = [any(0x2800 < ord(mark) < 0x2900 for mark in line[AXIS_WIDTH:]) for line in lines]
    assert any(dots)
    if len(numbers) == 2 and not log and max(numbers) == MOST and not growing:
        assert dots[0] and dots[-2], "both ends of the axis"


def test_draw_line_that_ends_near_zero_has_a_logarithm_where_the_axis_ends() -> None:
    samples = [Sample(x, y, y, y) for x, y in ((-MOST, 1.0), (5e-324, 1.4e-45))]
    frame = Frame(60, 12, log=True, x_range=(-5e-324, -5e-324))
    assert len(draw([Curve(samples)], frame)) == 12


def test_draw_line_to_a_place_far_beyond_the_limits_leaves_the_chart() -> None:
    lines = text_of(draw(values(0.0, 50.0, 1e300, 50.0), Frame(80, 20, limits=(0.0, 100.0))))
    assert any(0x2800 < ord(mark) < 0x2900 for mark in lines[0][AXIS_WIDTH:])


def test_draw_times_that_go_backwards_stay_within_the_axis() -> None:
    samples = [Sample(x, y, y, y) for x, y in ((5.0, 0.0), (0.0, 1.0), (10.0, 2.0), (6.0, 3.0))]
    lines = text_of(draw([Curve(samples, points=True)], Frame(80, 20)))
    assert "".join(lines).count("•") == 4
    columns = [column for line in lines for column, mark in enumerate(line) if mark == "•"]
    assert min(columns) == AXIS_WIDTH and max(columns) == 79


@pytest.mark.parametrize("pair", [(5.0, 5.0), (9.0, 1.0), (math.nan, 1.0), (-math.inf, math.inf), (0.0, math.inf)])
def test_draw_ends_of_axes_that_are_none(pair: tuple[float, float]) -> None:
    curves = values(0.0, 50.0, 30.0)
    assert draw(curves, Frame(80, 20, limits=pair)) == draw(curves, Frame(80, 20))
    if not all(map(math.isfinite, pair)):
        assert draw(curves, Frame(80, 20, x_range=pair)) == draw(curves, Frame(80, 20))


def test_draw_steps_as_far_as_they_go() -> None:
    samples = [Sample(float(x), 1.0, 1.0 + n, 2.0) for n, x in enumerate((2**63 - 4096, 2**63))]
    for x_range in (None, (2.0**62, 2.0**63), (2.0**63, 2.0**63)):
        for kind in AXES:
            lines = text_of(draw([Curve(samples)], Frame(80, 20, x_axis=kind, x_range=x_range)))
            assert any(0x2800 < ord(mark) < 0x2900 for line in lines for mark in line[AXIS_WIDTH:])


@given(ANY, ANY)
@example(0.0, 5e-324)
@example(-MOST, MOST)
@example(1e300, 1e300 + 1e285)
@example(1.0, 1.0)
def test_roomy_holds_what_it_held(low: float, high: float) -> None:
    down, up = roomy(low, high)
    if low < high:
        slack = 1e-15 * (high / 4 - low / 4)
        assert down - slack <= low and high <= up + slack
    else:
        assert repr((down, up)) == repr((low, high))


@given(st.lists(ANY, max_size=20), st.floats())
@example([MOST, MOST, -MOST, MOST], 0.98)
@example([MOST] * 24, 0.98)
@example([1.0], 1.0)
def test_smooth_stays_finite_and_within(numbers: list[float], weight: float) -> None:
    found = [sample.last for sample in smooth(values(*numbers)[0].samples, weight)]
    known = [number for number in numbers if math.isfinite(number)]
    assert len(found) == len(numbers)
    for before, after in zip(numbers, found, strict=True):
        assert math.isfinite(before) == math.isfinite(after)
        if math.isfinite(before):
            slack = 1e-9 * max(map(abs, known))
            assert min(known) / 2 - slack <= after / 2 <= max(known) / 2 + slack


@given(st.lists(st.none() | ANY), st.booleans(), st.none() | ANY)
@example([math.nan, 1.0], True, None)
@example([1.0, 2.0], True, 5e-324)
@example([MOST, 1.0], True, math.nan)
def test_spark_has_a_mark_for_each_value(numbers: list[float | None], ascii_only: bool, top: float | None) -> None:
    drawn = spark(numbers, ascii_only, top)
    assert len(drawn) == len(numbers)
    for mark, number in zip(drawn, numbers, strict=True):
        assert (mark == " ") == (number is None or not math.isfinite(number))


@given(ANY, st.integers(-5, 60), st.booleans())
@example(math.nan, 9, True)
def test_bar_has_its_width(share: float, width: int, ascii_only: bool) -> None:
    drawn = bar(share, width, ascii_only)
    assert len(drawn) == max(width, 0)
    if 0 <= share <= 1 and width > 0:
        assert drawn.count("#" if ascii_only else "█") == round(share * width)


# ---- labels --------------------------------------------------------------------------------------------------------


@given(PLACE, PLACE, st.integers(-1, 40), st.sampled_from(AXES))
@example(0.0, 1e18, 6, "clock")
@example(-1e18, 1e18, 6, "clock")
@example(0.0, 1e300, 6, "relative")
@example(0.0, 5e-324, 6, "epoch")
@example(2**63 - 4096, 2**63, 6, "step")
def test_axis_ticks_are_few_short_and_inside(low: float, high: float, count: int, kind: str) -> None:
    low, high = (min(max(end, -1e307), 1e307) for end in (low, high))
    found = axis_ticks(kind, low, high, count)
    assert len(found) <= 2 * max(count, 1) + 2
    assert all(0 < len(text) <= 17 and text.isascii() for _, text in found)
    assert kind != "clock" or all(text != "-" for _, text in found), "no tick where there is no date"
    slack = 1e-6 * (high - low)
    assert all(low - slack <= at <= high + slack for at, _ in found)


@given(FINITE, FINITE, st.integers(-1, 40))
@example(1.0, 1.0000000000000002, 5)
@example(-1e300, -1e300 + math.ulp(1e300), 40)
@example(1e16, 1e16 + 4, 40)
def test_nice_ticks_are_few(low: float, high: float, count: int) -> None:
    low, high = (min(max(end, -1e307), 1e307) for end in (low, high))
    found = nice_ticks(low, high, count)
    assert len(found) <= max(count, 1) + 2 and all(map(math.isfinite, found))
    assert len(set(found)) == len(found), "no place is marked twice"
    if high > low:
        step = nice_step(low, high, count)
        assert step > 0 and multiples(low, high, step) == found


@given(ANY)
@example(-MOST)
@example(-5e-324)
def test_tick_text_is_short_and_never_zero_for_what_is_not(value: float) -> None:
    text = tick_text(value)
    assert len(text) <= LABEL_WIDTH
    if math.isfinite(value):
        assert (float(text) == 0) == (value == 0)


@given(ANY, st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 3600.0])))
@example(math.nan, 1.0)
@example(math.inf, 1.0)
@example(1e300, 1.0)
@example(1e300, 0.001)
@example(1.0, 0.0)
def test_since_is_short(seconds: float, step: float) -> None:
    assert 0 < len(since(seconds, step)) <= 17


@given(PLACE, st.sampled_from(AXES))
@example(1.7e12, "clock")
@example(math.nan, "clock")
@example(math.inf, "relative")
def test_moment_text_is_short(at: float, kind: str) -> None:
    assert 0 < len(moment_text(kind, at)) <= 24


# ---- places on the axis --------------------------------------------------------------------------------------------

TRACK = st.lists(st.tuples(st.integers(0, 2**63).map(float), FINITE), max_size=5).map(sorted)
STAGES = st.lists(st.tuples(st.integers(0, 2**53), st.floats(0, 1e300), st.floats(0, 1e300)), max_size=3)


@given(st.sampled_from(AXES), FINITE, STAGES, TRACK, ANY)
@example("clock", 0.0, [], [(0.0, -MOST), (2.0**63, MOST)], 2.0**62)
@example("step", 0.0, [], [], math.inf)
def test_places_of_steps_and_steps_of_places(
    kind: str, start: float, stages: list[tuple[int, float, float]], track: list[tuple[float, float]], step: float
) -> None:
    axis = Axis(kind, start, tuple(stages), tuple(track))
    for place in (axis.at(step), step):
        assert -(2**63) <= axis.step_at(place) < 2**63 - 1, "what the database can be asked for"


def test_places_between_the_largest_times_lie_between_them() -> None:
    axis = Axis("clock", 0.0, (), ((0.0, -MOST), (2.0**63, MOST)))
    places = [axis.at(step) for step in (0.0, 2.0**61, 2.0**62, 2.0**63)]
    assert places == pytest.approx([-MOST, -MOST / 2, 0.0, MOST], rel=1e-9)


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_run_with_the_largest_numbers_and_odd_times_has_its_charts(home: Home) -> None:
    """As they lie in the database: a foreign trainer wrote them before its events were looked at closely."""
    run_id = seed_run(home, "extreme", until=330, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    connection = sqlite3.connect(home.database)
    for name in ("loss", "lr"):
        for sign, rest in (("", 0), ("-", 1)):
            sql = f"UPDATE metrics SET value = {sign}1.7976931348623157e308 WHERE name = ? AND global_step % 2 = ?"
            connection.execute(sql, [name, rest])
    connection.execute("UPDATE metrics SET t = t * 1000 WHERE global_step > 200")
    connection.execute("UPDATE metrics SET t = -t WHERE global_step < 100")
    connection.execute("UPDATE metrics SET global_step = ? WHERE name = 'loss' AND global_step = 330", [2**63 - 1])
    connection.execute("DELETE FROM metric_buckets")
    pyramid.fill(connection)
    connection.execute("UPDATE runs SET config = ?", ['{"reference": {"miou": "high"}}'])
    connection.commit()
    connection.close()
    for axis in AXES:
        for log in (False, True):
            for moment, window in ((None, None), (150, (100.0, 300.0)), (2**62, (0.0, 2.0**63))):
                view = charts.View(log=log, weight=0.9, axis=axis, moment=moment, window=window)
                lines = charts.charts(home, [str(run_id)], 120, 40, False, view).lines
                text = "\n".join(text_of(lines))
                assert "loss" in text and any(0x2800 < ord(mark) < 0x2900 for mark in text)


@given(st.lists(st.tuples(FINITE, FINITE, st.integers(0, 4095)), min_size=1, max_size=6), st.integers(0, 80))
def test_embeddings_anywhere_are_drawn(points: list[tuple[float, float, int]], width: int) -> None:
    x, y, label = map(list, zip(*points, strict=True))
    found = Embeddings(1, Projection({"x": x, "y": y, "label": label}))
    lines = graph.scatter(found, (), False, False, width, 20)
    assert any(graph.glyph_of(label[-1]) in text for line in lines[1:] for text, _ in line)


def test_class_pairs_are_drawn_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    reckoned, heat_map = [], graph.heat_map
    monkeypatch.setattr(graph, "heat_map", lambda cells, *more: reckoned.append(len(cells)) or heat_map(cells, *more))
    lines = graph.class_pairs(Graph({"class_pairs": [[0, 4095, 7], [4094, 1, 0]]}), (), False, 60, 20)
    assert len(lines) < 60 and "(4045 classes have no room)" in lines[-1][0][0]
    assert reckoned == [60], "no more classes than cells"
