"""Screen 1: the runs, and everything about the selected one.

Dialogs are loaded when they are opened, so that the first picture comes sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Key
from textual.widgets import Static

from mmtui.domain.filters import PINNED
from mmtui.domain.text import printable
from mmtui.services import keeping, supervisors
from mmtui.services.saved_views import SavedView
from mmtui.tui import faults
from mmtui.tui.actions import bindings, footer_text
from mmtui.tui.layout import PANELS, arrange, is_tiny, is_wide
from mmtui.tui.model import Snapshot, Wanted
from mmtui.tui.rows import sort_words
from mmtui.tui.screens.deeds import RunDeeds
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.chart import SMOOTHING, ChartPanel
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable

TITLES = {
    "stages": "stages",
    "graph": "graph sampling",
    "classes": "classes",
    "devices": "devices",
    "log": "output",
}
GROUPINGS = {"": "", "seed": "seeds folded", "sweep": "sweeps folded"}
RUN_PANELS = ("stages", "graph", "classes", "log")
"""Panels about the selected run, besides the chart."""
FIRST_METRICS = ("loss", "miou", "lr")


class RunsScreen(RunDeeds):
    """Runs on the left, the selected run on the right; one panel at a time on a small terminal."""

    NAME = "runs"
    BINDINGS: ClassVar = bindings("runs")

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()
        self.panel = 0
        self.zoomed = False

    def acting_ids(self) -> list[str]:
        """Marked runs; without marks the one under the cursor."""
        if not self.query("#runs"):
            return []
        table = self.query_one(RunsTable)
        detail = self.program.feed.latest.detail
        here = table.run or (detail.row.id if detail is not None else None)
        return list(table.marked) or ([here] if here is not None else [])

    def show_words(self) -> None:
        """Header and footer."""
        self._show_header(self.program.feed.latest)

    def look_again(self) -> None:
        """Read everything anew."""
        self.program.feed.want(self.wanted, again=True)

    def compose(self) -> ComposeResult:
        yield Static("", id="header", markup=False)
        with Container(id="body"):
            yield RunsTable(id="runs")
            yield ChartPanel(id="chart")
            for name in PANELS[1:]:
                yield LinesPanel(TITLES[name], id=name)
        yield Static("", id="footer", markup=False)
        yield Static("this terminal is too small: mmtui needs 60 x 15", id="message", markup=False)

    def on_mount(self) -> None:
        if self.program.select is not None:
            self.wanted = replace(self.wanted, run_id=self.program.select)
            self.query_one(RunsTable).selected = self.program.select
        self.call_after_refresh(self._ask)

    def on_resize(self) -> None:
        self.set_class(is_tiny(*self.app.size), "tiny")
        self._arrange()
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        self._ask()
        self.refresh_all()

    def _arrange(self) -> None:
        """Put every part where the size and the chosen panel want it."""
        width, height = self.app.size
        boxes = arrange(width, max(height - 2, 0), PANELS[self.panel], self.zoomed)
        for part in self.query(LinesPanel):
            box = boxes.get(part.id or "")
            part.display = box is not None
            if box is not None:
                part.styles.offset = (box.x, box.y)
                part.styles.width, part.styles.height = box.width, box.height

    def _ask(self) -> None:
        """Tell the feed what the screen looks at."""
        chart = self.query_one(ChartPanel)
        self.wanted = replace(self.wanted, buckets=chart.buckets)
        self.program.feed.want(self.wanted)

    def refresh_all(self) -> None:
        """Show the newest snapshot; a part that fails says so in its place."""
        snapshot = self.program.feed.latest
        self._show_header(snapshot)
        with faults.outlived(self, "the table of runs"):
            self._show_rows(snapshot)
        devices = self.query_one("#devices", LinesPanel)
        devices.draw(lambda: (self._devices(snapshot, devices), None))
        if snapshot.run_id is None or self.query_one(RunsTable).run in (None, snapshot.run_id):
            self._show_run(snapshot)

    def _show_rows(self, snapshot: Snapshot) -> None:
        table = self.query_one(RunsTable)
        table.columns, table.opened, table.pinned = snapshot.wanted.columns, snapshot.wanted.opened, snapshot.pinned
        table.trouble = snapshot.problem
        table.set_rows(snapshot.rows, snapshot.wanted.offset, snapshot.total)

    def _devices(self, snapshot: Snapshot, panel: LinesPanel) -> list[panels.Line]:
        width, ascii_only = panel.size.width, self.program.ascii_only
        if snapshot.devices is None and snapshot.device_trouble:
            return panels.trouble(snapshot.device_trouble, width, ascii_only)
        return panels.devices(snapshot.devices, width, panel.body_height, ascii_only)

    def _show_header(self, snapshot: Snapshot) -> None:
        with faults.outlived(self, "the header"):
            self.set_text("#header", self._header(snapshot))
        self.set_text("#footer", f" {self.said or footer_text(self.NAME, self.app.size.width - 2)}")

    def _header(self, snapshot: Snapshot) -> str:
        if snapshot.problem:
            return f" ! {printable(snapshot.problem)}"
        words = ", ".join(f"{count} {state}" for state, count in snapshot.counts.items()) or "no runs"
        serving = snapshot.supervisor
        if serving is not None and not serving.running and (serving.active_runs or serving.queued_runs):
            words = f"! no supervisor: r starts one  {words}"
        return f" mmtui  {words}{self.program.link.words()}"

    def _show_run(self, snapshot: Snapshot) -> None:
        chart = self.query_one(ChartPanel)
        if snapshot.trouble:
            chart.set_trouble(snapshot.trouble)
        else:  # where the panel that says it is not shown, the chart says why a run failed or waits
            chart.set_series(snapshot.series, snapshot.detail, not self.query_one("#stages").display)
        for name in RUN_PANELS:
            panel = self.query_one(f"#{name}", LinesPanel)
            panel.draw(partial(self._of_run, snapshot, name, panel))

    def _of_run(self, snapshot: Snapshot, name: str, panel: LinesPanel) -> tuple[list[panels.Line], str | None]:
        """Lines of a panel about the run, and its title if that changes."""
        detail, ascii_only = snapshot.detail, self.program.ascii_only
        width, height = panel.size.width, panel.body_height
        if snapshot.trouble:
            title = f"run {snapshot.run_id}" if name == "stages" else None
            return panels.trouble(snapshot.trouble, width, ascii_only), title
        if detail is None:
            return [], None
        if name == "stages":
            title = f"run {detail.row.id} {panels.fit(detail.row.name, 40, ascii_only).strip()}"
            return panels.stages(detail, width, ascii_only), title
        if name == "graph":
            strategy = panels.strategy_of(detail)
            return panels.graph(snapshot.graph, detail.classes, width, height, ascii_only, strategy), None
        if name == "classes":
            return panels.classes(snapshot.classes, width, height, ascii_only), None
        return panels.log(snapshot.log, height, ascii_only), None

    def on_key(self, event: Key) -> None:
        self.key_pressed(event.key)

    @on(RunsTable.Selected)
    def _on_selected(self, event: RunsTable.Selected) -> None:
        self.wanted = replace(self.wanted, run_id=event.run_id)
        self._ask()

    @on(RunsTable.Scrolled)
    def _on_scrolled(self, event: RunsTable.Scrolled) -> None:
        self.wanted = replace(self.wanted, offset=event.offset, run_id=None)
        self._ask()

    def action_move(self, steps: int) -> None:
        """Move the cursor over the runs."""
        self.query_one(RunsTable).move(steps)

    def action_turn(self, steps: int) -> None:
        """The next panel on a small terminal, or the next one to zoom."""
        self.panel = (self.panel + steps) % len(PANELS)
        self._arrange()
        if is_wide(*self.app.size) and not self.zoomed:
            self.say(f"panel: {PANELS[self.panel]} (enter: full screen)")
        self.call_after_refresh(self._resized)

    def action_zoom(self) -> None:
        """One panel over the whole screen, and back."""
        self.zoomed = not self.zoomed
        self._arrange()
        self.call_after_refresh(self._resized)

    def action_next_metric(self) -> None:
        """Another metric in the chart."""
        names = list(self.program.feed.latest.metrics)
        order = [n for n in FIRST_METRICS if n in names] + [n for n in names if n not in FIRST_METRICS]
        if order:
            here = order.index(self.wanted.metric) if self.wanted.metric in order else -1
            self.wanted = replace(self.wanted, metric=order[(here + 1) % len(order)])
            self._ask()

    def action_log_axis(self) -> None:
        """Logarithmic axis on and off."""
        chart = self.query_one(ChartPanel)
        chart.log_axis = not chart.log_axis
        chart.redraw()

    def action_smooth(self, steps: int) -> None:
        """More or less smoothing; 0 = none."""
        chart = self.query_one(ChartPanel)
        chart.smoothing = 0 if steps == 0 else min(max(chart.smoothing + steps, 0), len(SMOOTHING) - 1)
        chart.redraw()

    def action_reload(self) -> None:
        """Look again; starts a supervisor if runs wait for one."""
        serving = self.program.feed.latest.supervisor
        if serving is not None and not serving.running and (serving.active_runs or serving.queued_runs):
            self._serve()
        self.program.feed.want(self.wanted, again=True)

    def action_leave(self) -> None:
        """Leave; runs go on."""
        self.program.leave()

    def action_mark(self) -> None:
        """Mark the run, or take its mark away."""
        self.query_one(RunsTable).mark()

    def action_mark_range(self) -> None:
        """Mark from here on; the second time up to here."""
        self.say(self.query_one(RunsTable).mark_range())

    def action_sort(self) -> None:
        """Ask for an order of the runs."""
        from mmtui.tui.screens.views import SortDialog

        self.app.push_screen(SortDialog(self.program.home, self.wanted.sort), self._sort)

    def _sort(self, sort: object) -> None:
        if isinstance(sort, tuple):
            self.wanted = replace(self.wanted, sort=sort, offset=0)
            self._note_view()
            self._note()
            self.say(f"runs: {sort_words(sort)}")

    def action_filter(self) -> None:
        """Ask for a filter."""
        from mmtui.tui.screens.commands import FilterDialog

        self.app.push_screen(FilterDialog(self.program.home, self.wanted.filter), self._filter)

    def _filter(self, text: object) -> None:
        if isinstance(text, str):
            self.wanted = replace(self.wanted, filter=text, offset=0, run_id=None)
            self._note_view()
            table = self.query_one(RunsTable)
            table.selected, table.index = None, 0
            self._note()

    def _note(self) -> None:
        """Filter and order stand in the title of the table."""
        wanted = self.wanted
        words = [f"filter: {wanted.filter}"] if wanted.filter else []
        words += [sort_words(wanted.sort)] if wanted.sort else []
        words += [GROUPINGS[wanted.group]] if wanted.group else []
        self.query_one(RunsTable).note = f"  {printable('  '.join(words))}" if words else ""
        self._ask()

    def action_group(self) -> None:
        """Fold runs that differ in their seeds alone, then those of a sweep, then none."""
        names = list(GROUPINGS)
        group = names[(names.index(self.wanted.group) + 1) % len(names)]
        self.wanted = replace(self.wanted, group=group, offset=0, opened=frozenset())
        self._note()
        self.say(GROUPINGS[group] or "runs one by one")

    def action_unfold(self, opening: int) -> None:
        """Show the members of the group under the cursor, or hide them."""
        table = self.query_one(RunsTable)
        if not self.wanted.group or table.selected is None:
            return
        key = table.selected
        if not opening and not key.startswith("group "):
            # From a member to its group.
            key = next((row.key for row in reversed(table.rows[: table.index - table.first_row]) if row.group), key)
            table.selected = key
        opened = self.wanted.opened | {key} if opening else self.wanted.opened - {key}
        self.wanted = replace(self.wanted, opened=opened)
        self._ask()

    def action_pin(self) -> None:
        """Keep the run on top of the list, and over the charts of others."""
        run_id = self.query_one(RunsTable).run
        if run_id is not None:
            self._pin(run_id, run_id not in self.program.feed.latest.pinned)

    def _pin(self, run_id: str, on: bool) -> None:
        def put(there: bool) -> None:
            keeping.change_tags(self.program.home, run_id, [PINNED] if there else [], [] if there else [PINNED])

        words = f"run {run_id} is {'pinned' if on else 'no longer pinned'}"
        self.program.note_command(f"mmtui tag {run_id} --{'add' if on else 'remove'} {PINNED}")
        self.do(words, lambda: put(on), lambda: put(not on))

    def action_columns(self) -> None:
        """Choose columns."""
        from mmtui.tui.screens.views import ColumnsDialog

        self.app.push_screen(ColumnsDialog(self.program.home, self.wanted.columns), self._columns)

    def _columns(self, columns: object) -> None:
        if isinstance(columns, tuple):
            self.wanted = replace(self.wanted, columns=columns)
            self._note_view()
            self._ask()

    def action_views(self) -> None:
        """Views that are kept under a name."""
        from mmtui.tui.screens.views import ViewsDialog

        self.app.push_screen(ViewsDialog(self.program.home, self._shown_view()), self._view)

    def _shown_view(self) -> SavedView:
        wanted = self.wanted
        return SavedView(wanted.filter, wanted.sort, wanted.columns, wanted.group)

    def _note_view(self) -> None:
        """The command line that lists what the table shows now."""
        self.program.note_command(self._shown_view().command())

    def _view(self, answer: object) -> None:
        if not isinstance(answer, tuple):
            return
        name, view = answer
        self.wanted = replace(
            self.wanted,
            filter=view.filter,
            sort=view.sort,
            columns=view.columns,
            group=view.group,
            offset=0,
            opened=frozenset(),
        )
        self._note()
        self.program.note_command(f"mmtui ls --view {name}")
        self.say(f"view {name}: {view.command()}")

    def launched(self, ids: Sequence[str], words: str) -> None:
        """Put the cursor on what was queued: of a sweep on the run that starts first."""
        self.query_one(RunsTable).selected = ids[0]
        self.wanted = replace(self.wanted, run_id=ids[0], offset=0, metric="loss")
        super().launched(ids, words)

    @work(thread=True, group="queue", exit_on_error=False)
    def _serve(self) -> None:
        try:
            supervisors.ensure(self.program.home)
        except Exception as error:
            self.app.call_from_thread(self.program.tell_fault, "starting a supervisor", error)
