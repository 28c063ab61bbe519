"""Screens 2, 3 and 5: one run in tabs, several compared, the devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from mmtui.domain.text import printable, shorten
from mmtui.domain.views import DeviceSnapshot
from mmtui.errors import MmtuiError
from mmtui.services import devices as service
from mmtui.services import forks, runs
from mmtui.tui.actions import bindings
from mmtui.tui.pages import compare, devices
from mmtui.tui.screens.charted import ChartedScreen
from mmtui.tui.screens.deeds import RunDeeds
from mmtui.tui.screens.dialogs import Dialog
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.run_request import like_run
from mmtui.tui.tabs import RUN_TABS
from mmtui.tui.tabs.base import RunTab
from mmtui.tui.tabs.log import LogTab
from mmtui.tui.widgets.panels import Line

SLIDER = 24
SEEN = 1800
"""Snapshots that the devices screen remembers: an hour of them."""


class RunScreen(ChartedScreen, RunDeeds):
    """Everything about one run in tabs; runs that are marked lie over its charts."""

    TABS = tuple(kind.NAME for kind in RUN_TABS)
    FOLLOWED = frozenset(kind.NAME for kind in RUN_TABS if kind.FOLLOWED)
    NAME = "run"
    BINDINGS: ClassVar = bindings("run")

    def __init__(self, run_id: str, marked: Sequence[str] = (), tab: int = 0) -> None:
        super().__init__(tab)
        self.run_id, self.others = run_id, [other for other in marked if other != run_id]
        self.tabs = [kind(self) for kind in RUN_TABS]

    @property
    def open_tab(self) -> RunTab:
        """The tab that is open."""
        return self.tabs[self.tab]

    def run_ids(self) -> list[str]:
        """The run, and those over its charts."""
        return [self.run_id, *self.others]

    def pane_names(self, tab: str) -> list[str]:
        """Panels of a tab."""
        return list(self.tabs[self.TABS.index(tab)].pane_names())

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
        step = f"step {self.view.moment} of {self.last}"
        return f"run {self.run_id}  as of {step}  {line}  {printable(stage)}  (0: newest)"

    def acting_ids(self) -> list[str]:
        """The run."""
        return [self.run_id]

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The lines of a tab."""
        return self.tabs[self.TABS.index(tab)].lines(width, height)

    def rows_of_body(self) -> int:
        """Lines between the title and the footer."""
        return self.app.size.height - 3

    def ask(self, dialog: Dialog, answered: Callable[[object], None]) -> None:
        """Open a dialog."""
        self.app.push_screen(dialog, answered)

    def show(self) -> None:
        """Put the part that fits on the screen."""
        self.open_tab.before_showing()
        super().show()

    def action_fork_here(self) -> None:
        """Launch a run that begins at this run's newest checkpoint at or before the slider."""
        home, step = self.program.home, self.view.moment
        try:
            detail = runs.get_run(home, self.run_id)
            origin = forks.checkpoint_at(home, self.run_id, step).origin
        except MmtuiError as error:
            self.say(f"! {printable(error.message)}")
            return
        place = f"{self.run_id}@{origin.global_step}"
        title = f"Fork run {self.run_id} at its checkpoint of step {origin.global_step} ({origin.stage} {origin.step})"
        like = replace(like_run(home, detail), options=("--from", place))
        self.app.push_screen(NewRunDialog(home, like, title), self._launch)

    def action_show_log(self) -> None:
        """The tab with the trainer's output."""
        self.action_turn(self.TABS.index(LogTab.NAME) - self.tab)

    # ---- keys that mean something of their own on some tabs

    def action_aside(self, steps: int) -> None:
        """Another image; on the other tabs another moment."""
        if not self.open_tab.aside(steps):
            self.action_slide(steps)

    def action_slide(self, steps: int) -> None:
        """Move the slider: every tab shows the run as it was at that step; on predictions
        from evaluation to evaluation."""
        if not self.open_tab.slide(steps):
            super().action_slide(steps)

    def action_alone(self) -> None:
        """The marked panel, or one picture, over the whole screen, and back."""
        if not self.open_tab.show_alone():
            super().action_alone()

    def action_next_pane(self, steps: int) -> None:
        """Mark another panel; of predictions the next picture alone."""
        if not self.open_tab.next_pane(steps):
            super().action_next_pane(steps)

    def action_next_one(self, steps: int) -> None:
        """The next place of the words that are looked for, or another class in the drawing of a graph."""
        self.open_tab.next_one(steps)

    def action_next_way(self) -> None:
        """Pictures as blocks, by kitty's protocol, as sixel."""
        self.open_tab.next_way()

    def action_search(self) -> None:
        """Ask for words to look for in the output."""
        self.open_tab.search()

    def action_sort(self) -> None:
        """The next order of the classes."""
        self.open_tab.sort()

    def action_baseline(self) -> None:
        """Choose the run whose classes are compared with."""
        self.open_tab.choose_baseline()


class CompareScreen(ChartedScreen, RunDeeds):
    """Marked runs beside each other."""

    NAME, TABS = "compare", ("compare",)
    BINDINGS: ClassVar = bindings("compare")

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self.ids = list(ids)

    def title_of(self) -> str:
        """Which runs."""
        return f"compare runs {', '.join(self.ids)}"

    def acting_ids(self) -> list[str]:
        """All of them."""
        return self.ids

    def run_ids(self) -> list[str]:
        """All of them."""
        return self.ids

    def pane_names(self, tab: str) -> list[str]:
        """Tables, and a chart for each metric."""
        return compare.pane_names(self.program.home, self.ids) if len(self.ids) > 1 else []

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The comparison."""
        if len(self.ids) < 2:
            return [[("mark two runs or more with space (on screen 1), then press 3 or c", "dim")]]
        size, ascii_only = (width, height), self.program.ascii_only
        focus = self.focus_on(tab)
        return self.taken(compare.compare(self.program.home, self.ids, size, ascii_only, self.view, focus))


class DevicesScreen(PageScreen):
    """GPUs, processor, memory, and their history."""

    NAME, TABS = "devices", ("devices",)
    BINDINGS: ClassVar = bindings("devices")
    LIVE_SECONDS = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.seen: deque[DeviceSnapshot] = deque(maxlen=SEEN)
        self.trainers: service.Trainers | None = None

    def title_of(self) -> str:
        """The screen's name."""
        return "devices"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """Now, and before."""
        now = service.snapshot(self.program.home)
        self.trainers = self.trainers or service.Trainers(self.program.home)
        lines = devices.devices(self.program.home, now, width, self.program.ascii_only, self.seen, self.trainers.look())
        self.seen.append(now)
        return lines
