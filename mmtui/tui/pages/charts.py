"""Small charts of every metric of a run, with a cursor for all of them, and other runs over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.events.numbers import finite
from mmtui.domain.look import run_colors
from mmtui.domain.numbers import floored
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import fixed, number, printable
from mmtui.domain.views import Bucket, EvaluationMark, Point, RunDetail
from mmtui.paths import Home
from mmtui.services import run_history, runs
from mmtui.tui.pages.axes import WORDS, Axis, axis_of
from mmtui.tui.pages.compose import column_width, wrapped
from mmtui.tui.pages.panes import FIRST_PANE, MARKS, Focus, Laid, Pane, focused, lay
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import AXIS_WIDTH, Curve, Frame, Sample, draw, roomy, smooth
from mmtui.tui.widgets.ticks import moment_text

LEAST_WIDTH = 46
HEIGHT, MOST_HEIGHT = 9, 22
FIRST = ("loss", "miou", "lr")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FEW = 24
"""Up to so many points each gets a mark of its own."""


@dataclass(frozen=True)
class View:
    """How the charts are looked at.

    Attributes:
        log: logarithmic value axis.
        weight: of the exponential mean, 0 = none.
        axis: ``step``, ``epoch``, ``clock`` or ``relative``.
        moment: global step of the first run at which values are read, None: the newest.
        window: global steps of the first run between which the charts are drawn, None: all.
        follow: the window moves along with the newest step.
        top: which of the runs lies over the others.
    """

    log: bool = False
    weight: float = 0.0
    axis: str = "step"
    moment: int | None = None
    window: tuple[float, float] | None = None
    follow: bool = False
    top: int = 0


ALL = View()


@dataclass(frozen=True)
class _Run:
    """One of the runs of the charts."""

    detail: RunDetail
    axis: Axis
    color: str
    letter: str

    def last(self) -> float:
        """Where its newest step lies."""
        step = float(last_step(self.detail))
        if self.axis.kind in ("clock", "relative"):
            newest = max(self.detail.last_event_at or 0.0, *(time for _, time in self.axis.track))
            return self.axis.place(step, newest)
        return self.axis.at(step)


@dataclass(frozen=True)
class _Picture:
    """What all charts of a page share."""

    home: Home
    runs: tuple[_Run, ...]
    view: View
    x_range: tuple[float, float]
    cursor: float | None
    growing: bool
    evaluations: tuple[EvaluationMark, ...]
    ascii_only: bool
    series: Mapping[tuple[str, str], tuple[Bucket, ...]]
    read: Mapping[tuple[str, str], Point]
    most: int

    @property
    def zoomed(self) -> bool:
        return self.view.window is not None


def charts(
    home: Home,
    ids: Sequence[str],
    width: int,
    height: int,
    ascii_only: bool,
    view: View = ALL,
    focus: Focus = FIRST_PANE,
) -> Laid:
    """Charts of all metrics of the first run; the others lie over them."""
    names = metrics(home, ids[0])
    if not names:
        return Laid([[("nothing has been logged yet", "dim")]])
    each = width if focus.alone else column_width(width, LEAST_WIDTH, len(names))
    picture = _picture(home, ids, names, ascii_only, view, max((each - AXIS_WIDTH) * 2, 16))
    head = _head(picture, width)
    laid = _laid(picture, names, width, max(height - len(head), HEIGHT), focus)
    return Laid([*head, *laid.lines], laid.first + len(head), laid.behind + len(head))


def metrics(home: Home, run_id: str) -> list[str]:
    """What a run has logged, the telling ones first."""
    names = runs.metric_names(home, run_id)
    return [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]


def last_step(detail: RunDetail) -> int:
    """Steps of the whole run that are done; a run from elsewhere may tell of none of its stages."""
    begun = [stage for stage in detail.stages if stage.started_at is not None or stage.step]
    return max([detail.global_step, *(stage.offset + stage.step for stage in begun)])


def _picture(home: Home, ids: Sequence[str], names: Sequence[str], ascii_only: bool, view: View, most: int) -> _Picture:
    details = [runs.get_run(home, run_id) for run_id in dict.fromkeys(ids)]
    images = [run_history.images(home, detail.row.id) for detail in details]
    if view.axis == "epoch" and not all(images):
        view = replace(view, axis="step")
    series = run_history.all_series(home, [detail.row.id for detail in details], names, most)
    tracks = [series[detail.row.id, names[0]] for detail in details]
    colors = run_colors([detail.row.id for detail in details])
    found = tuple(
        _Run(detail, axis_of(detail, view.axis, told, track), colors[detail.row.id], LETTERS[number % len(LETTERS)])
        for number, (detail, told, track) in enumerate(zip(details, images, tracks, strict=True))
    )
    cursor = None if view.moment is None else found[0].axis.at(view.moment)
    # At the cursor the point itself is read, however coarse the drawing is.
    steps = {} if cursor is None else {run.detail.row.id: run.axis.step_at(cursor) for run in found}
    if view.moment is not None:
        steps[ids[0]] = view.moment
    active = any(RunState(run.detail.row.state) in ACTIVE_STATES for run in found)
    return _Picture(
        home=home,
        runs=found,
        view=view,
        x_range=_x_range(found, view, active),
        cursor=cursor,
        growing=active and (view.window is None or view.follow),
        evaluations=tuple(run_history.evaluations(home, details[0].row.id)),
        ascii_only=ascii_only,
        series=series,
        read=run_history.values_at(home, steps, names),
        most=most,
    )


def _x_range(found: Sequence[_Run], view: View, active: bool) -> tuple[float, float]:
    """Ends of the x axis, the same for all charts; with room on the right where values are still coming."""
    axis = found[0].axis
    if view.window is not None:
        low, high = view.window
        if view.follow:
            high = float(last_step(found[0].detail))
            high = roomy(0.0, high)[1] if active and high > 0 else high
            low = max(high - (view.window[1] - view.window[0]), 0.0)
        return axis.at(low), max(axis.at(high), axis.at(low) + 1e-9)
    low = min(run.axis.start for run in found) if axis.kind == "clock" else 0.0
    high = max(run.last() for run in found)
    high = high if high > low else low + 1.0
    return low, roomy(low, high)[1] if active else high


def _head(picture: _Picture, width: int) -> list[Line]:
    """How the charts are looked at, and which run is which."""
    view, dim = picture.view, "dim"
    line: Line = [(f"x: {WORDS[view.axis]}", dim)]
    if picture.cursor is not None:
        line.append((f"  cursor at {moment_text(view.axis, picture.cursor)}", "warn"))
    if picture.zoomed:
        ends = " to ".join(moment_text(view.axis, end).removeprefix(f"{view.axis} ") for end in picture.x_range)
        line.append((f"  zoom {ends}{', following' if view.follow else ''}", "warn"))
    if view.weight:
        line.append((f"  smoothing {view.weight:g}", "warn"))
    if view.log:
        line.append(("  log", "warn"))
    if picture.evaluations:
        line.append((f"  {'v' if picture.ascii_only else '▾'} evaluation", dim))
    if len(picture.runs) == 1:
        return [line]
    room = max(width // len(picture.runs) - 10, 8)
    legend: Line = []
    for place, run in enumerate(picture.runs):
        name = fit(run.detail.row.name, min(room, 24), picture.ascii_only).strip()
        on_top = " (top)" if place == view.top % len(picture.runs) else ""
        legend.append((f"{run.letter} run {run.detail.row.id} {name}{on_top}   ", run.color))
    return [line, legend]


def _laid(picture: _Picture, names: Sequence[str], width: int, height: int, focus: Focus) -> Laid:
    """Panels of the metrics that change; those that never do, or were measured once, share a few lines."""
    focus = replace(focus, name=focus.name or names[0])
    told = {} if focus.alone else _in_words(picture, names)
    words: list[Line] = []
    if told:
        spans = [("  never changes, or measured once:", "dim")]
        for name, text in told.items():
            mark = MARKS[1 if picture.ascii_only else 0] if name == focus.name else ""
            spans.append((f"{mark}{printable(name)} {text}", "title" if mark else "dim"))
        words = wrapped(spans, width)
    drawn = [name for name in names if name not in told]
    fine = _zoomed(picture, [focused(names, focus)] if focus.alone else drawn)
    picture = replace(picture, series={**picture.series, **fine})
    panes = [Pane(name, _drawer(picture, name, focus.alone)) for name in drawn]
    room = height - (len(words) + 1 if words else 0)
    laid = lay(panes, (width, room), LEAST_WIDTH, focus, picture.ascii_only, picture.home)
    if not words:
        return laid
    lines = [*laid.lines, [], *words]
    return Laid(lines, len(laid.lines), len(lines)) if focus.name in told else replace(laid, lines=lines)


def _in_words(picture: _Picture, names: Sequence[str]) -> dict[str, str]:
    """Metrics that need no chart, and what to say instead.

    That is one and the same value in all runs, at three points or more; or one point in each run, but of mean IoU,
    which has the published value for company.
    """
    found: dict[str, str] = {}
    for name in names:
        several = [(run.letter, picture.series[run.detail.row.id, name]) for run in picture.runs]
        buckets = [bucket for _, series in several for bucket in series]
        values = {value for bucket in buckets for value in (bucket.low, bucket.high)}
        if len(values) == 1 and sum(bucket.count for bucket in buckets) >= 3:
            found[name] = number(values.pop(), 5)
        elif name not in FIRST and all(sum(bucket.count for bucket in series) <= 1 for _, series in several):
            letters = len(several) > 1
            found[name] = " ".join(
                f"{f'{letter} ' if letters else ''}{number(series[0].last, 5)}" for letter, series in several if series
            )
    return found


def _drawer(picture: _Picture, metric: str, alone: bool) -> Callable[[int, int], list[Line]]:
    def drawn(width: int, height: int) -> list[Line]:
        tall = max(height - 1, HEIGHT)
        return _chart(picture, metric, width, tall if alone else min(tall, MOST_HEIGHT))

    return drawn


def _chart(picture: _Picture, metric: str, width: int, height: int) -> list[Line]:
    found = [picture.series[run.detail.row.id, metric] for run in picture.runs]
    if not any(found):
        return [[(printable(metric), "title"), (" has no points", "dim")]]
    several = len(picture.runs) > 1
    order = _order(len(picture.runs), picture.view.top)
    curves = [
        curve
        for number in order
        for curve in _curves(picture.runs[number], found[number], picture.view.weight, several)
    ]
    published = _published(picture, metric)
    frame = Frame(
        width=width,
        height=height,
        log=picture.view.log,
        ascii_only=picture.ascii_only,
        marks=_stage_marks(picture),
        spots=[picture.runs[0].axis.place(mark.global_step, mark.time) for mark in picture.evaluations],
        cursor=picture.cursor,
        references=published,
        x_axis=picture.view.axis,
        x_range=picture.x_range,
        growing=picture.growing,
    )
    return [_title(picture, metric, found, published), *draw(curves, frame)]


def _order(count: int, top: int) -> list[int]:
    """Runs from the one that lies lowest to the one on top; the first lies on top at the beginning."""
    top %= count
    return [*(number for number in reversed(range(count)) if number != top), top]


def _zoomed(picture: _Picture, names: Sequence[str]) -> dict[tuple[str, str], tuple[Bucket, ...]]:
    """These metrics, as fine as a chart can show them where it is zoomed into; all runs at one go."""
    low, high = picture.x_range
    ends: dict[tuple[str, str], tuple[float, float]] = {}
    for run in picture.runs if picture.zoomed else ():
        for name in names:
            found = picture.series[run.detail.row.id, name]
            inside = [i for i, bucket in enumerate(found) if low <= run.axis.place(bucket.x, bucket.time) <= high]
            if inside:
                before = found[inside[0] - 1].x if inside[0] else -1.0
                ends[run.detail.row.id, name] = before, found[min(inside[-1] + 1, len(found) - 1)].x
    within = {key: (floored(before) + 1, floored(behind)) for key, (before, behind) in ends.items()}
    fine = run_history.parts_of_series(picture.home, within, picture.most)
    return {
        key: (
            *(bucket for bucket in picture.series[key] if bucket.x <= before),
            *fine[key],
            *(bucket for bucket in picture.series[key] if bucket.x > behind),
        )
        for key, (before, behind) in ends.items()
    }


def _curves(run: _Run, buckets: Sequence[Bucket], weight: float, several: bool) -> list[Curve]:
    """Lines of a run: tails that were done again, what was smoothed, and the line itself, one for each stage.

    Stages minimise losses of their own: no line leads from one to the next, and no mean is taken over both.
    """
    lost: dict[int, list[Sample]] = {}
    kept: dict[str, list[Sample]] = {}
    for bucket in buckets:
        sample = Sample(run.axis.place(bucket.x, bucket.time), bucket.low, bucket.high, bucket.last)
        if bucket.superseded:
            lost.setdefault(bucket.attempt, []).append(sample)
        else:
            kept.setdefault(stage_at(run.detail, bucket.x), []).append(sample)
    few = sum(map(len, kept.values())) <= FEW
    curves = [Curve(part, dim=True) for part in lost.values()]
    if weight:
        curves += [Curve(part, dim=True, points=few) for part in kept.values()]
    lines = [Curve(smooth(part, weight), run.color, points=few and not weight) for part in kept.values()]
    if several and lines:
        lines[-1] = replace(lines[-1], label=run.letter)
    return [*curves, *lines]


def stage_at(detail: RunDetail, step: float) -> str:
    """The stage that a finished step belongs to, "" before the first."""
    return next((stage.name for stage in reversed(detail.stages) if stage.offset < step), "")


def _stage_marks(picture: _Picture) -> list[tuple[float, str]]:
    """Where the first run's stages began; the one that was going on where the axis begins stands at its left end."""
    run, low = picture.runs[0], picture.x_range[0]
    marks: list[tuple[float, str]] = []
    for stage in run.detail.stages:
        if stage.started_at is None:
            continue
        at = run.axis.place(stage.offset, stage.started_at)
        if at <= low:
            marks = [(low, stage.name)]
        else:
            marks.append((at, stage.name))
    return marks


def _published(picture: _Picture, metric: str) -> tuple[float, ...]:
    """Mean IoUs that the runs' recipes name as published."""
    if metric != "miou":
        return ()
    found = [published_miou(run.detail) for run in picture.runs]
    return tuple(dict.fromkeys(value for value in found if value is not None))


def published_miou(detail: RunDetail) -> float | None:
    """The mean IoU that a run's recipe names as published, None where it names none."""
    return finite(detail.section("reference").get("miou"))


def _title(picture: _Picture, metric: str, found: Sequence[Sequence[Bucket]], published: Sequence[float]) -> Line:
    """The metric and the value of every run at the cursor, or the newest."""
    line: Line = [(f"{printable(metric)} ", "title")]
    for run, buckets in zip(picture.runs, found, strict=True):
        kept = [bucket.last for bucket in buckets if not bucket.superseded]
        point = picture.read.get((run.detail.row.id, metric))
        if picture.cursor is None:
            value = number(kept[-1], 5) if kept else "-"
        else:
            value = number(point.value, 5) if point is not None else "-"
        if len(picture.runs) > 1:
            line.append((f" {run.letter} {value}", run.color))
            continue
        line.append((value, "" if picture.cursor is None else "warn"))
        if point is not None:
            place = run.axis.place(point.global_step, point.time)
            line.append((f" at {moment_text(picture.view.axis, place)}", "dim"))
    if published:
        line.append((f"  published {', '.join(fixed(value, 1) for value in published)}", "reference"))
    return line
