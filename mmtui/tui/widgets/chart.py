"""The chart panel: one metric of one run over the steps of all its stages."""

from __future__ import annotations

from engine.events.numbers import finite
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.views import Bucket, RunDetail, Series
from mmtui.tui.widgets.lines import LinesPanel, in_its_place
from mmtui.tui.widgets.panels import Line, standing, why
from mmtui.tui.widgets.plot import Curve, Frame, Sample, chart_buckets, draw, smooth

SMOOTHING = (0.0, 0.6, 0.8, 0.9, 0.95, 0.98)


class ChartPanel(LinesPanel):
    """A line chart; earlier attempts' tails that were done again are dim."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("loss", id=id)
        self.log_axis = False
        self.smoothing = 0
        self._series: Series | None = None
        self._detail: RunDetail | None = None
        self._explains = False
        self._trouble = ""

    @property
    def buckets(self) -> int:
        """How many buckets the panel can show: one per dot column."""
        return chart_buckets(self.size.width)

    def set_series(self, series: Series | None, detail: RunDetail | None, explains: bool = False) -> None:
        """Show another series; ``explains``: below why its run failed or waits, if it does."""
        self._series, self._detail, self._explains, self._trouble = series, detail, explains, ""
        self.redraw()

    def set_trouble(self, text: str) -> None:
        """Show why there is no chart."""
        self._series, self._detail, self._trouble = None, None, text
        self.redraw()

    @in_its_place
    def redraw(self) -> None:
        """Draw what is there with the present size and settings."""
        if self.size.width == 0:
            return
        if self._trouble:
            self.show_trouble(self._trouble)
            return
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        series, head = self._series, self._head(ascii_only)
        frame = Frame(
            width=self.size.width,
            height=max(self.body_height - len(head), 1),
            log=self.log_axis,
            ascii_only=ascii_only,
            marks=[(float(s.offset), s.name) for s in self._detail.stages] if self._detail else [],
            references=self._references(),
            growing=self._detail is not None and RunState(self._detail.row.state) in ACTIVE_STATES,
        )
        self.show([*head, *draw(self._curves(), frame)], self._title(series))

    def _head(self, ascii_only: bool) -> list[Line]:
        detail = self._detail
        if not self._explains or detail is None or not why(detail):
            return []
        return standing(detail, self.size.width, ascii_only)

    def _title(self, series: Series | None) -> str:
        if series is None:
            return "chart"
        text = series.metric
        if series.buckets:
            text += f" {series.buckets[-1].last:.4g}"
        if self.smoothing:
            text += f"  smoothed {SMOOTHING[self.smoothing]}"
        if self.log_axis:
            text += "  log"
        return text

    def _references(self) -> tuple[float, ...]:
        """The published mean IoU, where the chart shows mean IoU and the recipe names one."""
        if self._series is None or self._detail is None or self._series.metric != "miou":
            return ()
        value = finite(self._detail.section("reference").get("miou"))
        return (value,) if value is not None else ()

    def _curves(self) -> list[Curve]:
        if self._series is None:
            return []
        kept = [b for b in self._series.buckets if not b.superseded]
        lost: dict[int, list[Bucket]] = {}
        for bucket in self._series.buckets:
            if bucket.superseded:
                lost.setdefault(bucket.attempt, []).append(bucket)
        curves = [Curve(_samples(part), dim=True) for part in lost.values()]
        weight = SMOOTHING[self.smoothing]
        if weight and kept:
            curves.append(Curve(_samples(kept), dim=True))
        curves.append(Curve(smooth(_samples(kept), weight)))
        return curves

    def on_resize(self) -> None:
        self.redraw()


def _samples(buckets: list[Bucket]) -> list[Sample]:
    return [Sample(b.x, b.low, b.high, b.last) for b in buckets]
