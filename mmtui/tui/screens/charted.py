"""What screens with panels and charts have in common: the marked panel, the axis, zoom, cursor, smoothing."""

from __future__ import annotations

import math
from dataclasses import replace

from mmtui.services import runs
from mmtui.tui.pages import charts
from mmtui.tui.pages.axes import AXES, WORDS
from mmtui.tui.pages.panes import Focus, Laid, focused
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.widgets.chart import SMOOTHING
from mmtui.tui.widgets.panels import Line

CURSOR_STEP = 0.02
"""Share of what is drawn by which one key moves the slider."""
PAN_STEP = 0.25
"""Share of what is drawn by which one key moves what is drawn."""


class ChartedScreen(PageScreen):
    """A page of panels; ``m`` marks one, ``enter`` shows it alone."""

    def __init__(self, tab: int = 0) -> None:
        super().__init__(tab)
        self.view, self.smoothing = charts.View(), 0
        self.focus_of: dict[str, Focus] = {}
        self.last = 0
        self.marked_lines = (0, 0)
        self.to_marked = False

    # ---- what a screen says of itself

    def run_ids(self) -> list[str]:
        """The runs of the charts; the first gives the axis."""
        raise NotImplementedError

    def pane_names(self, tab: str) -> list[str]:
        """Names of a tab's panels, [] for a tab without."""
        raise NotImplementedError

    # ---- panels

    def focus_on(self, tab: str) -> Focus:
        """The marked panel of a tab."""
        return self.focus_of.get(tab, Focus())

    def taken(self, laid: Laid) -> list[Line]:
        """Lines of a tab; where its marked panel lies is remembered."""
        self.marked_lines = (laid.first, laid.behind)
        return laid.lines

    def show(self) -> None:
        """Put the part that fits on the screen; after another panel was marked, the part with that panel."""
        if self.to_marked and not self.dirty:
            self.to_marked = False
            room = max(self.app.size.height - 3, 1)
            first, behind = self.marked_lines
            if first < self.offset_lines or behind > self.offset_lines + room:
                self.offset_lines = first if behind - first > room else max(min(first, behind - room), 0)
            if first < room and behind <= room:
                self.offset_lines = 0
        super().show()

    def action_next_pane(self, steps: int) -> None:
        """Mark another panel."""
        tab = self.TABS[self.tab]
        names = self.pane_names(tab)
        if names:
            focus = self.focus_on(tab)
            here = names.index(focused(names, focus))
            self.focus_of[tab] = replace(focus, name=names[(here + steps) % len(names)])
            self.to_marked = True
            self.redraw()

    def action_alone(self) -> None:
        """The marked panel over the whole screen, and back."""
        tab = self.TABS[self.tab]
        names = self.pane_names(tab)
        if names:
            focus = self.focus_on(tab)
            self.focus_of[tab] = Focus(focused(names, focus), not focus.alone)
            self.offset_lines, self.to_marked = 0, focus.alone
            self.redraw()

    # ---- the cursor

    def action_aside(self, steps: int) -> None:
        """Another moment."""
        self.action_slide(steps)

    def action_slide(self, steps: int) -> None:
        """Move the cursor: every tab shows the run as it was at that step."""
        low, high = self._window()
        far = max(round((high - low) * CURSOR_STEP), 1)
        here = self.last if self.view.moment is None else self.view.moment
        moment = here + steps * far
        self.view = replace(self.view, moment=None if moment >= self.last else max(moment, 0))
        self._keep_in_view()
        self.redraw()

    def _window(self) -> tuple[float, float]:
        """Steps between which charts are drawn now."""
        self.last = charts.last_step(runs.get_run(self.program.home, self.run_ids()[0])) if self.run_ids() else 0
        window = self.view.window or (0.0, float(self.last))
        if self.view.window and self.view.follow:
            window = (self.last - (window[1] - window[0]), float(self.last))
        return window

    def _keep_in_view(self) -> None:
        """Move the window so that the cursor is in it."""
        if self.view.window is None:
            return
        low, high = self._window()
        at = self.last if self.view.moment is None else self.view.moment
        moved = min(at - low, 0) + max(at - high, 0)
        if moved or self.view.follow:
            self.view = replace(self.view, window=(low + moved, high + moved), follow=False)

    # ---- the axis

    def action_zoom(self, factor: float) -> None:
        """Narrow or widen the part of the axis that is drawn, around the cursor."""
        low, high = self._window()
        span = max((high - low) * factor, 2.0)
        if span >= self.last:
            self.view = replace(self.view, window=None, follow=False)
        else:
            middle = (low + high) / 2 if self.view.moment is None else float(self.view.moment)
            low = min(max(middle - span / 2, 0.0), self.last - span)
            self.view = replace(self.view, window=(low, low + span))
        self.redraw()

    def action_pan(self, steps: int) -> None:
        """Move the part of the axis that is drawn; a cursor stays in it."""
        if self.view.window is None:
            self.say("zoom in with i first")
            return
        low, high = self._window()
        span = high - low
        low = min(max(low + steps * span * PAN_STEP, 0.0), self.last - span)
        moment = self.view.moment
        if moment is not None:
            moment = min(max(moment, math.ceil(low)), math.floor(low + span))
        self.view = replace(self.view, window=(low, low + span), follow=False, moment=moment)
        self.redraw()

    def action_follow(self) -> None:
        """The newest again, and what is drawn moves along with it."""
        self.view = replace(self.view, moment=None, follow=self.view.window is not None)
        self.redraw()
        self.say("following the newest step")

    def action_next_axis(self) -> None:
        """Steps, epochs, time of day, time since the start."""
        kind = AXES[(AXES.index(self.view.axis) + 1) % len(AXES)]
        self.view = replace(self.view, axis=kind)
        self.redraw()
        self.say(f"x axis: {WORDS[kind]}")

    def action_log_axis(self) -> None:
        """Logarithmic value axis on and off."""
        self.view = replace(self.view, log=not self.view.log)
        self.redraw()

    def action_next_on_top(self) -> None:
        """Another run's curves over the others."""
        count = len(self.run_ids())
        if count > 1:
            self.view = replace(self.view, top=(self.view.top + 1) % count)
            self.redraw()
        else:
            self.say("one run alone: mark others on screen 1 to lay them over it")

    def action_smooth(self, steps: int) -> None:
        """More or less smoothing."""
        self.smoothing = min(max(self.smoothing + steps, 0), len(SMOOTHING) - 1)
        self.view = replace(self.view, weight=SMOOTHING[self.smoothing])
        self.redraw()

    def action_reset_view(self) -> None:
        """Everything as it was."""
        self.view, self.smoothing = charts.View(), 0
        self.redraw()
