"""Small charts of every metric of a run, with a cursor for all of them, and other runs over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmtui.domain.look import run_colors
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import printable
from mmtui.domain.views import Bucket, RunDetail
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages.compose import column_width, columns
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import AXIS_WIDTH, Curve, Frame, Sample, draw, smooth

LEAST_WIDTH = 46
HEIGHT = 9
FIRST = ("loss", "miou", "lr")


@dataclass(frozen=True)
class View:
    """How the charts are looked at.

    Attributes:
        log: logarithmic value axis.
        weight: of the exponential mean, 0 = none.
        by_time: minutes since the run began instead of steps.
        moment: global step at which values are read, None: the newest.
        window: shares of the axis between which the charts are drawn.
        only: one metric over the whole screen, "" = all.
    """

    log: bool = False
    weight: float = 0.0
    by_time: bool = False
    moment: int | None = None
    window: tuple[float, float] = (0.0, 1.0)
    only: str = ""


def charts(
    home: Home, ids: Sequence[str], width: int, height: int, ascii_only: bool, view: View = View()
) -> list[Line]:
    """Charts of all metrics of the first run; the others lie over them."""
    details = [runs.get_run(home, run_id) for run_id in dict.fromkeys(ids)]
    names = metrics(home, ids[0])
    if not names:
        return [[("nothing has been logged yet", "dim")]]
    if view.only in names:
        chart = _chart(home, details, view.only, width, max(height - 2, HEIGHT), ascii_only, view)
        return [*_legend(details, ascii_only), *chart] if len(details) > 1 else chart
    each = column_width(width, LEAST_WIDTH, len(names))
    tall = max(HEIGHT, min(height // max(-(-len(names) // max(width // each, 1)), 1), 16) - 2)
    blocks = [_chart(home, details, name, each, tall, ascii_only, view) for name in names]
    lines = columns(blocks, width, LEAST_WIDTH)
    return [*_legend(details, ascii_only), *lines] if len(details) > 1 else lines


def metrics(home: Home, run_id: str) -> list[str]:
    """What a run has logged, the telling ones first."""
    names = runs.metric_names(home, run_id)
    return [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]


def _legend(details: Sequence[RunDetail], ascii_only: bool) -> list[Line]:
    colors = run_colors([detail.row.id for detail in details])
    return [
        [
            (f"run {detail.row.id} {fit(detail.row.name, 20, ascii_only).strip()}   ", colors[detail.row.id])
            for detail in details
        ]
    ]


def _chart(
    home: Home, details: Sequence[RunDetail], metric: str, width: int, height: int, ascii_only: bool, view: View
) -> list[Line]:
    most = max((width - AXIS_WIDTH) * 2, 16)
    found = [runs.series(home, detail.row.id, metric, max_buckets=most).buckets for detail in details]
    starts = [detail.row.started_at or 0.0 for detail in details]
    samples = [
        [(bucket, _sample(bucket, start, view)) for bucket in buckets]
        for buckets, start in zip(found, starts, strict=True)
    ]
    xs = [sample.x for several in samples for _, sample in several]
    if not xs:
        return [[(metric, "title"), (" has no points", "dim")]]
    low, span = min(xs), (max(xs) - min(xs)) or 1.0
    low, high = low + view.window[0] * span, low + view.window[1] * span
    colors = list(run_colors([detail.row.id for detail in details]).values())
    curves = [
        c for number, several in enumerate(samples) for c in _curves(several, number, colors[number], view, low, high)
    ]
    first = details[0]
    at = _at(samples[0], view.moment)
    marks = [] if view.by_time else [(float(s.offset), s.name) for s in first.stages if low <= s.offset <= high]
    if at is not None and low <= at <= high:
        marks.append((at, "^" if ascii_only else "▲"))
    reference = (first.config.get("reference") or {}).get("miou") if metric == "miou" else None
    frame = Frame(
        width=width,
        height=height,
        log=view.log,
        ascii_only=ascii_only,
        marks=marks,
        reference=float(reference) if reference is not None else None,
        unit="min" if view.by_time else "step",
        growing=RunState(first.row.state) in ACTIVE_STATES and view.window == (0.0, 1.0),
    )
    kept = [sample for bucket, sample in samples[0] if not bucket.superseded]
    return [_title(metric, kept, at), *draw(curves, frame)]


def _at(several: Sequence[tuple[Bucket, Sample]], moment: int | None) -> float | None:
    """Where on the axis a global step lies: at the last point up to it."""
    if moment is None or not several:
        return None
    before = [sample.x for bucket, sample in several if bucket.x <= moment and not bucket.superseded]
    return before[-1] if before else several[0][1].x


def _title(metric: str, kept: Sequence[Sample], at: float | None) -> Line:
    line: Line = [(f"{printable(metric)} ", "title")]
    if not kept:
        return line
    if at is None:
        return [*line, (f"{kept[-1].last:.5g}", "")]
    near = min(kept, key=lambda sample: abs(sample.x - at))
    return [*line, (f"{near.last:.5g} at {near.x:.6g}", "warn")]


def _sample(bucket: Bucket, start: float, view: View) -> Sample:
    x = (bucket.time - start) / 60 if view.by_time else bucket.x
    return Sample(x, bucket.low, bucket.high, bucket.last)


def _curves(
    several: Sequence[tuple[Bucket, Sample]], number: int, style: str, view: View, low: float, high: float
) -> list[Curve]:
    lost: dict[int, list[Sample]] = {}
    kept: list[Sample] = []
    for bucket, sample in several:
        if low <= sample.x <= high:
            (lost.setdefault(bucket.attempt, []) if bucket.superseded else kept).append(sample)
    curves = [Curve(part, dim=True) for part in lost.values()] if number == 0 else []
    if view.weight and kept and number == 0:
        curves.append(Curve(kept, dim=True))
    return [*curves, Curve(smooth(kept, view.weight), style=style)]
