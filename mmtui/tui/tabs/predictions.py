"""The tab of a run's predictions."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from mmtui.tui.pages import predictions
from mmtui.tui.tabs.base import RunPage, RunTab
from mmtui.tui.widgets.panels import Line


class PredictionsTab(RunTab):
    """Image, truth, prediction and errors of a validation image; left and right change the image."""

    NAME = "predictions"

    def __init__(self, page: RunPage) -> None:
        super().__init__(page)
        self.number = 0
        self.alone = ""
        """The picture that is shown alone, one of ``predictions.ALONE``; "" = all."""

    def lines(self, width: int, height: int) -> list[Line]:
        """The pictures, and how good the prediction is."""
        page, program = self.page, self.page.program
        choice = predictions.Choice(self.number, self.alone, page.view.moment)
        return predictions.predictions(
            program.home, page.run_id, width, height, program.look, choice, program.no_pictures
        )

    def aside(self, steps: int) -> bool:
        """Another image."""
        self.number += steps
        self.page.redraw()
        return True

    def slide(self, steps: int) -> bool:
        """The evaluation before or behind the one that is shown; behind the last one is the newest of everything."""
        page = self.page
        known = predictions.moments(page.program.home, page.run_id)
        if not known:
            return False
        here = len(known) - 1 if page.view.moment is None else bisect_right(known, page.view.moment) - 1
        there = max(here + steps, 0)
        page.view = replace(page.view, moment=known[there] if there < len(known) - 1 else None)
        page.redraw()
        return True

    def show_alone(self) -> bool:
        """The prediction over the whole screen, and back."""
        return self._show("" if self.alone else "prediction")

    def next_pane(self, steps: int) -> bool:
        """The next picture, alone."""
        here = predictions.ALONE.index(self.alone) if self.alone else -1
        return self._show(predictions.ALONE[(here + steps) % len(predictions.ALONE)])

    def _show(self, kind: str) -> bool:
        self.alone, self.page.offset_lines = kind, 0
        self.page.redraw()
        return True

    def next_way(self) -> bool:
        """Pictures as blocks, by kitty's protocol, as sixel."""
        self.page.say(self.page.program.next_way())
        self.page.redraw()
        return True
