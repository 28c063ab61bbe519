"""Screens 2, 3 and 5: one run in tabs, several compared, the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding

from mmtui.domain.text import printable, shorten
from mmtui.services import devices as service
from mmtui.services import runs
from mmtui.tui.pages import charts, classes, compare, devices, facts, graph, predictions
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.widgets.chart import SMOOTHING
from mmtui.tui.widgets.panels import Line

CURSOR_STEP = 0.02


class RunScreen(PageScreen):
    """Everything about one run; runs that are marked lie over its charts."""

    TABS = ("charts", "graph", "classes", "predictions", "log", "config", "history")
    BINDINGS: ClassVar = [
        Binding("left,h", "aside(-1)", "left", show=False),
        Binding("right,l", "aside(1)", "right", show=False),
        Binding("L", "log_axis", "log axis", show=False),
        Binding("w", "by_time", "time axis", show=False),
        Binding("plus,equals_sign", "smooth(1)", "smoother", show=False),
        Binding("minus", "smooth(-1)", "rougher", show=False),
        Binding("0", "reset_view", "reset", show=False),
        Binding("i", "zoom(0.5)", "zoom in", show=False),
        Binding("I", "zoom(2.0)", "zoom out", show=False),
        Binding("s", "sort", "sort", show=False),
    ]
    _KEYS: ClassVar = {
        "charts": "left/right values  i/I zoom  +/- smooth  L log axis  w time  0 reset",
        "classes": "s sort",
        "predictions": "left/right image",
    }

    def __init__(self, run_id: str, marked: Sequence[str] = (), tab: int = 0) -> None:
        super().__init__(tab)
        self.run_id, self.others = run_id, [other for other in marked if other != run_id]
        self.view, self.smoothing = charts.View(), 0
        self.number, self.sort = 0, 0

    def title_of(self) -> str:
        """The run's id and name."""
        detail = self.program.feed.latest.detail
        name = shorten(printable(detail.row.name), 50) if detail is not None and detail.row.id == self.run_id else ""
        return f"run {self.run_id}  {name}"

    def hints(self) -> str:
        """Keys of the tab."""
        return f"{super().hints()}{self._KEYS.get(self.TABS[self.tab], '')}"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The lines of a tab."""
        home, ascii_only = self.program.home, self.program.ascii_only
        if tab == "charts":
            return charts.charts(home, [self.run_id, *self.others], width, height, ascii_only, self.view)
        if tab == "graph":
            return graph.graph(home, self.run_id, width, height, ascii_only)
        if tab == "classes":
            against = self.others[0] if self.others else ""
            return classes.classes(home, self.run_id, width, ascii_only, self.sort, against)
        if tab == "predictions":
            return predictions.predictions(home, self.run_id, width, height, ascii_only, self.number)
        if tab == "log":
            return [[(text, "")] for text in runs.log_tail(home, self.run_id, 2000)] or [[("nothing printed", "dim")]]
        if tab == "config":
            return facts.config(home, self.run_id, width, ascii_only)
        return facts.history(home, self.run_id, width, ascii_only)

    def action_aside(self, steps: int) -> None:
        """Move the cursor of the charts, or to another image."""
        if self.TABS[self.tab] == "predictions":
            self.number += steps
        else:
            at = (1.0 if steps < 0 else 0.0) if self.view.cursor is None else self.view.cursor + steps * CURSOR_STEP
            self.view = replace(self.view, cursor=min(max(at, 0.0), 1.0))
        self.redraw()

    def action_zoom(self, factor: float) -> None:
        """Narrow or widen the part of the axis that is drawn, around the cursor."""
        low, high = self.view.window
        span = min((high - low) * factor, 1.0)
        middle = low + (self.view.cursor if self.view.cursor is not None else 0.5) * (high - low)
        low = min(max(middle - span / 2, 0.0), 1.0 - span)
        self.view = replace(self.view, window=(low, low + span), cursor=0.5 if self.view.cursor is not None else None)
        self.redraw()

    def action_log_axis(self) -> None:
        """Logarithmic axis on and off."""
        self.view = replace(self.view, log=not self.view.log)
        self.redraw()

    def action_by_time(self) -> None:
        """Minutes instead of steps, and back."""
        self.view = replace(self.view, by_time=not self.view.by_time)
        self.redraw()

    def action_smooth(self, steps: int) -> None:
        """More or less smoothing."""
        self.smoothing = min(max(self.smoothing + steps, 0), len(SMOOTHING) - 1)
        self.view = replace(self.view, weight=SMOOTHING[self.smoothing])
        self.redraw()

    def action_reset_view(self) -> None:
        """Everything as it was."""
        self.view, self.smoothing = charts.View(), 0
        self.redraw()

    def action_sort(self) -> None:
        """The next order of the classes."""
        self.sort = (self.sort + 1) % len(classes.SORTS)
        self.redraw()
        self.say(f"classes: {classes.SORTS[self.sort]}")


class CompareScreen(PageScreen):
    """Marked runs beside each other."""

    TABS = ("compare",)

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self.ids = list(ids)

    def title_of(self) -> str:
        """Which runs."""
        return f"compare runs {', '.join(self.ids)}"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The comparison."""
        if len(self.ids) < 2:
            return [[("mark two runs or more with space (on screen 1), then press 3 or c", "dim")]]
        return compare.compare(self.program.home, self.ids, width, height, self.program.ascii_only)


class DevicesScreen(PageScreen):
    """GPUs, processor, memory, and their history."""

    TABS = ("devices",)

    def title_of(self) -> str:
        """The screen's name."""
        return "devices"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """Now, and before."""
        now = service.snapshot(self.program.home)
        return devices.devices(self.program.home, now, width, self.program.ascii_only)
