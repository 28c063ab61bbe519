"""Screens 2, 3 and 5: one run in tabs, several compared, the devices."""

from __future__ import annotations

from bisect import bisect_right
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
"""Share of what is drawn by which one key moves the slider."""
SLIDER = 24


class RunScreen(PageScreen):
    """Everything about one run; runs that are marked lie over its charts."""

    TABS = ("charts", "graph", "classes", "predictions", "log", "config", "history")
    BINDINGS: ClassVar = [
        Binding("left,h", "aside(-1)", "left", show=False),
        Binding("right,l", "aside(1)", "right", show=False),
        Binding("comma,less_than_sign", "slide(-1)", "earlier", show=False),
        Binding("full_stop,greater_than_sign", "slide(1)", "later", show=False),
        Binding("L", "log_axis", "log axis", show=False),
        Binding("w", "by_time", "time axis", show=False),
        Binding("plus,equals_sign", "smooth(1)", "smoother", show=False),
        Binding("minus", "smooth(-1)", "rougher", show=False),
        Binding("0", "reset_view", "reset", show=False),
        Binding("i", "zoom(0.5)", "zoom in", show=False),
        Binding("I", "zoom(2.0)", "zoom out", show=False),
        Binding("s", "sort", "sort", show=False),
        Binding("enter", "one_chart", "one chart", show=False),
        Binding("m", "next_metric", "next metric", show=False),
        Binding("p", "next_way", "how pictures are drawn", show=False),
    ]
    _KEYS: ClassVar = {
        "charts": "left/right earlier, later  enter one  m metric  i/I zoom  +/- smooth  L log  w time  0 reset",
        "graph": "left/right earlier, later  0 newest",
        "classes": "left/right earlier, later  0 newest  s sort",
        "predictions": "left/right image  , . evaluation  enter one alone  m which  p pixels",
    }

    def __init__(self, run_id: str, marked: Sequence[str] = (), tab: int = 0) -> None:
        super().__init__(tab)
        self.run_id, self.others = run_id, [other for other in marked if other != run_id]
        self.view, self.smoothing = charts.View(), 0
        self.number, self.sort = 0, 0
        self.last = 0
        self.alone = ""

    def title_of(self) -> str:
        """The run's id and name, and the slider when it is not at the newest."""
        detail = self.program.feed.latest.detail
        detail = detail if detail is not None and detail.row.id == self.run_id else None
        name = shorten(printable(detail.row.name), 50) if detail is not None else ""
        if self.view.moment is None:
            return f"run {self.run_id}  {name}"
        place = round((SLIDER - 1) * self.view.moment / max(self.last, 1))
        line = "".join("●" if index == place else "─" for index in range(SLIDER))
        if self.program.ascii_only:
            line = line.replace("●", "o").replace("─", "-")
        stages = detail.stages if detail is not None else ()
        stage = next((stage.name for stage in reversed(stages) if stage.offset < self.view.moment), "")
        return f"run {self.run_id}  as of step {self.view.moment} of {self.last}  {line}  {stage}  (0: newest)"

    def hints(self) -> str:
        """Keys of the tab."""
        return f"{super().hints()}{self._KEYS.get(self.TABS[self.tab], '')}"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The lines of a tab."""
        home, ascii_only = self.program.home, self.program.ascii_only
        if tab == "charts":
            return charts.charts(home, [self.run_id, *self.others], width, height, ascii_only, self.view)
        if tab == "graph":
            return graph.graph(home, self.run_id, width, height, ascii_only, self.view.moment)
        if tab == "classes":
            against = self.others[0] if self.others else ""
            return classes.classes(home, self.run_id, width, ascii_only, self.sort, against, self.view.moment)
        if tab == "predictions":
            choice = predictions.Choice(self.number, self.alone, self.view.moment)
            return predictions.predictions(
                home, self.run_id, width, height, self.program.look, choice, self.program.no_pictures
            )
        if tab == "log":
            return [[(text, "")] for text in runs.log_tail(home, self.run_id, 2000)] or [[("nothing printed", "dim")]]
        if tab == "config":
            return facts.config(home, self.run_id, width, ascii_only)
        return facts.history(home, self.run_id, width, ascii_only)

    def action_aside(self, steps: int) -> None:
        """Another image; on the other tabs another moment."""
        if self.TABS[self.tab] == "predictions":
            self.number += steps
            self.redraw()
        else:
            self.action_slide(steps)

    def action_slide(self, steps: int) -> None:
        """Move the slider: every tab shows the run as it was at that step."""
        self.last = self._last_step()
        if self.TABS[self.tab] == "predictions" and (known := predictions.moments(self.program.home, self.run_id)):
            self._to_evaluation(known, steps)
            return
        low, high = self.view.window
        far = max(round(self.last * (high - low) * CURSOR_STEP), 1)
        here = self.last if self.view.moment is None else self.view.moment
        moment = here + steps * far
        self.view = replace(self.view, moment=None if moment >= self.last else max(moment, 0))
        self.redraw()

    def _to_evaluation(self, known: Sequence[int], steps: int) -> None:
        """The evaluation before or behind the one that is shown; behind the last one is the newest of everything."""
        here = len(known) - 1 if self.view.moment is None else bisect_right(known, self.view.moment) - 1
        there = max(here + steps, 0)
        self.view = replace(self.view, moment=known[there] if there < len(known) - 1 else None)
        self.redraw()

    def _last_step(self) -> int:
        """Steps of the whole run that are done."""
        stages = runs.get_run(self.program.home, self.run_id).stages
        return max((stage.offset + stage.step for stage in stages), default=0)

    def action_zoom(self, factor: float) -> None:
        """Narrow or widen the part of the axis that is drawn, around the cursor."""
        low, high = self.view.window
        span = min((high - low) * factor, 1.0)
        middle = (low + high) / 2
        if self.view.moment is not None and self.last:
            middle = self.view.moment / self.last
        low = min(max(middle - span / 2, 0.0), 1.0 - span)
        self.view = replace(self.view, window=(low, low + span))
        self.redraw()

    def action_one_chart(self) -> None:
        """One chart or picture over the whole screen, and back."""
        if self.TABS[self.tab] == "predictions":
            self._show_alone("" if self.alone else "prediction")
            return
        names = charts.metrics(self.program.home, self.run_id)
        if self.TABS[self.tab] == "charts" and names:
            self.view = replace(self.view, only="" if self.view.only else names[0])
            self.offset_lines = 0
            self.redraw()

    def action_next_metric(self) -> None:
        """The next metric or picture over the whole screen."""
        if self.TABS[self.tab] == "predictions":
            here = predictions.ALONE.index(self.alone) if self.alone else -1
            self._show_alone(predictions.ALONE[(here + 1) % len(predictions.ALONE)])
            return
        names = charts.metrics(self.program.home, self.run_id)
        if self.TABS[self.tab] == "charts" and names:
            here = names.index(self.view.only) if self.view.only in names else -1
            self.view = replace(self.view, only=names[(here + 1) % len(names)])
            self.offset_lines = 0
            self.redraw()

    def _show_alone(self, kind: str) -> None:
        self.alone, self.offset_lines = kind, 0
        self.redraw()

    def action_next_way(self) -> None:
        """Pictures as blocks, by kitty's protocol, as sixel."""
        if self.TABS[self.tab] == "predictions":
            self.say(self.program.next_way())
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
