"""Screens 2, 3 and 5: one run in tabs, several compared, the devices."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from mmtui.domain.text import printable, shorten
from mmtui.domain.views import DeviceSnapshot
from mmtui.errors import MmtuiError
from mmtui.services import devices as service
from mmtui.services import forks, run_history, runs
from mmtui.tui.actions import bindings
from mmtui.tui.pages import charts, classes, compare, devices, facts, graph, log, predictions, run_devices
from mmtui.tui.screens.baseline import BaselineDialog
from mmtui.tui.screens.charted import ChartedScreen
from mmtui.tui.screens.commands import SearchDialog
from mmtui.tui.screens.deeds import RunDeeds
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.run_request import like_run
from mmtui.tui.widgets.panels import Line

SLIDER = 24
SEEN = 1800
"""Snapshots that the devices screen remembers: an hour of them."""


class RunScreen(ChartedScreen, RunDeeds):
    """Everything about one run; runs that are marked lie over its charts."""

    TABS = ("charts", "graph", "classes", "predictions", "log", "devices", "config", "history")
    FOLLOWED = frozenset({"log"})
    NAME = "run"
    BINDINGS: ClassVar = bindings("run")

    def __init__(self, run_id: str, marked: Sequence[str] = (), tab: int = 0) -> None:
        super().__init__(tab)
        self.run_id, self.others = run_id, [other for other in marked if other != run_id]
        self.number, self.sort = 0, 0
        self.shown_class: int | None = None
        self.against: str | None = None
        """The baseline that was chosen, "" = none; None: not chosen yet."""
        self.wanted, self.seeking = "", False
        self.found: tuple[str, list[int]] = ("", [])
        """What was looked for in the lines that are shown, and where it stands."""
        self.place = -1
        self.alone = ""

    def run_ids(self) -> list[str]:
        """The run, and those over its charts."""
        return [self.run_id, *self.others]

    def pane_names(self, tab: str) -> list[str]:
        """Panels of a tab."""
        if tab == "charts":
            return charts.metrics(self.program.home, self.run_id)
        return list({"graph": graph.PANES, "classes": classes.PANES}.get(tab, ()))

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
        home, ascii_only = self.program.home, self.program.ascii_only
        size, focus = (width, height), self.focus_on(tab)
        if tab == "charts":
            return self.taken(charts.charts(home, self.run_ids(), width, height, ascii_only, self.view, focus))
        if tab == "graph":
            chosen = self.shown_class
            return self.taken(graph.graph(home, self.run_id, size, ascii_only, self.view.moment, chosen, focus))
        if tab == "classes":
            view = classes.View(self.sort, self.baseline(), self.view.moment)
            return self.taken(classes.classes(home, self.run_id, size, ascii_only, view, focus))
        if tab == "predictions":
            choice = predictions.Choice(self.number, self.alone, self.view.moment)
            return predictions.predictions(
                home, self.run_id, width, height, self.program.look, choice, self.program.no_pictures
            )
        if tab == "log":
            wanted = self.wanted
            lines, places = log.log(home, self.run_id, width, ascii_only, self.view.moment, wanted)
            self.found = (wanted, places)
            return lines
        if tab == "devices":
            return run_devices.run_devices(home, self.run_id, width, height, ascii_only, self.view)
        if tab == "config":
            return facts.config(home, self.run_id, width, ascii_only)
        return facts.history(home, self.run_id, width, ascii_only, self.view.moment)

    def action_aside(self, steps: int) -> None:
        """Another image; on the other tabs another moment."""
        if self.TABS[self.tab] == "predictions":
            self.number += steps
            self.redraw()
        else:
            self.action_slide(steps)

    def action_next_one(self, steps: int) -> None:
        """The next place of the words that are looked for, or another class in the drawing of a graph."""
        if self.TABS[self.tab] == "graph":
            self._next_class(steps)
        else:
            self._next_place(steps)

    def _next_class(self, steps: int) -> None:
        found = graph.classes_of(self.program.home, self.run_id, self.view.moment)
        if found:
            here = graph.chosen_class(found, self.shown_class)
            order = sorted(found)
            self.shown_class = order[(order.index(here) + steps) % len(order)]
            self.redraw()

    def baseline(self) -> str:
        """The run whose classes are compared with: the one chosen, else the first that is marked."""
        return (self.others[0] if self.others else "") if self.against is None else self.against

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

    def action_baseline(self) -> None:
        """Choose the run whose classes are compared with."""
        if self.TABS[self.tab] == "classes":
            rows = run_history.baselines(self.program.home, self.run_id, tuple(self.others))
            self.app.push_screen(BaselineDialog(rows, self.baseline()), self._have_baseline)

    def _have_baseline(self, answer: object) -> None:
        if isinstance(answer, str):
            self.against = answer
            self.redraw()

    def action_show_log(self) -> None:
        """The tab with the trainer's output."""
        self.action_turn(self.TABS.index("log") - self.tab)

    def action_slide(self, steps: int) -> None:
        """Move the slider: every tab shows the run as it was at that step; on predictions
        from evaluation to evaluation."""
        if self.TABS[self.tab] == "predictions" and (known := predictions.moments(self.program.home, self.run_id)):
            self._to_evaluation(known, steps)
        else:
            super().action_slide(steps)

    def _to_evaluation(self, known: Sequence[int], steps: int) -> None:
        """The evaluation before or behind the one that is shown; behind the last one is the newest of everything."""
        here = len(known) - 1 if self.view.moment is None else bisect_right(known, self.view.moment) - 1
        there = max(here + steps, 0)
        self.view = replace(self.view, moment=known[there] if there < len(known) - 1 else None)
        self.redraw()

    def action_alone(self) -> None:
        """The marked panel, or one picture, over the whole screen, and back."""
        if self.TABS[self.tab] == "predictions":
            self._show_alone("" if self.alone else "prediction")
        else:
            super().action_alone()

    def action_next_pane(self, steps: int) -> None:
        """Mark another panel; of predictions the next picture alone."""
        if self.TABS[self.tab] == "predictions":
            here = predictions.ALONE.index(self.alone) if self.alone else -1
            self._show_alone(predictions.ALONE[(here + steps) % len(predictions.ALONE)])
        else:
            super().action_next_pane(steps)

    def _show_alone(self, kind: str) -> None:
        self.alone, self.offset_lines = kind, 0
        self.redraw()

    def action_next_way(self) -> None:
        """Pictures as blocks, by kitty's protocol, as sixel."""
        if self.TABS[self.tab] == "predictions":
            self.say(self.program.next_way())
            self.redraw()

    def action_search(self) -> None:
        """Ask for words to look for in the output."""
        if self.TABS[self.tab] == "log":
            self.app.push_screen(SearchDialog(self.wanted), self._search)

    def _search(self, words: object) -> None:
        if isinstance(words, str):
            self.wanted, self.seeking = words, bool(words)
            self.redraw()

    def show(self) -> None:
        """Put the part that fits on the screen; after a search that is where the words stand."""
        if self.seeking and self.found[0] == self.wanted and self.TABS[self.tab] == "log":
            self.seeking = False
            places = self.found[1]
            here = next((i for i, place in enumerate(places) if place >= self.offset_lines), len(places) - 1)
            self._go_to(here)
        super().show()

    def _next_place(self, steps: int) -> None:
        places = self.found[1]
        if self.TABS[self.tab] != "log" or not self.wanted:
            return
        if steps > 0:
            here = next((i for i, place in enumerate(places) if place > self.place), 0)
        else:
            here = next((i for i in reversed(range(len(places))) if places[i] < self.place), len(places) - 1)
        self._go_to(here)
        super().show()

    def _go_to(self, index: int) -> None:
        """Show one of the places that were found."""
        places = self.found[1]
        if not places:
            self.said = f"'{printable(self.wanted)}' does not occur in what is shown"
            return
        self.place, self.following = places[index], False
        self.offset_lines = self.place - (self.app.size.height - 3) // 2
        self.said = f"{index + 1} of {len(places)}  '{shorten(printable(self.wanted), 40)}'  n next  N before"

    def action_sort(self) -> None:
        """The next order of the classes."""
        self.sort = (self.sort + 1) % len(classes.SORTS)
        self.redraw()
        self.say(f"classes: {classes.SORTS[self.sort]}")


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
