"""The tab of a run's classes."""

from __future__ import annotations

from collections.abc import Sequence

from mmtui.services import run_history
from mmtui.tui.pages import classes
from mmtui.tui.screens.baseline import BaselineDialog
from mmtui.tui.tabs.base import RunPage, RunTab
from mmtui.tui.widgets.panels import Line


class ClassesTab(RunTab):
    """IoU of each class, beside that of another run; ``s`` sorts, ``B`` chooses the other run."""

    NAME = "classes"

    def __init__(self, page: RunPage) -> None:
        super().__init__(page)
        self.order = 0
        self.against: str | None = None
        """The run that was chosen to compare with, "" = none; None: not chosen yet."""

    def lines(self, width: int, height: int) -> list[Line]:
        """Table, confusions and classes taken for another."""
        page, program = self.page, self.page.program
        view = classes.View(self.order, self.baseline(), page.view.moment)
        size, focus = (width, height), page.focus_on(self.NAME)
        return page.taken(classes.classes(program.home, page.run_id, size, program.ascii_only, view, focus))

    def pane_names(self) -> Sequence[str]:
        """The panels."""
        return classes.PANES

    def baseline(self) -> str:
        """The run that is compared with: the one chosen, else the first that is marked."""
        return (self.page.others[0] if self.page.others else "") if self.against is None else self.against

    def choose_baseline(self) -> bool:
        """Ask for it."""
        page = self.page
        rows = run_history.baselines(page.program.home, page.run_id, tuple(page.others))
        page.ask(BaselineDialog(rows, self.baseline()), self._have_baseline)
        return True

    def _have_baseline(self, answer: object) -> None:
        if isinstance(answer, str):
            self.against = answer
            self.page.redraw()

    def sort(self) -> bool:
        """The next order of the classes."""
        self.order = (self.order + 1) % len(classes.SORTS)
        self.page.redraw()
        self.page.say(f"classes: {classes.SORTS[self.order]}")
        return True
