"""Screen 1: the runs, and everything about the selected one.

Dialogs are loaded when they are opened, so that the first picture comes sooner.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Key
from textual.screen import Screen
from textual.widgets import Static

from mmtui.domain.filters import PINNED
from mmtui.domain.states import RunEvent, RunState, is_legal
from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.services import commands, keeping, queue, supervisors
from mmtui.services.saved_views import SavedView
from mmtui.tui.actions import action_of, bindings, command_text, footer_text
from mmtui.tui.feed import Snapshot, Wanted
from mmtui.tui.layout import PANELS, arrange, is_tiny, is_wide
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.chart import SMOOTHING, ChartPanel
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable

if TYPE_CHECKING:
    from mmtui.tui.app import MmtuiApp
    from mmtui.tui.screens.new_run import NewRun

TITLES = {
    "stages": "stages",
    "graph": "graph sampling",
    "classes": "classes",
    "devices": "devices",
    "log": "output",
}
GROUPINGS = {"": "", "seed": "seeds folded", "sweep": "sweeps folded"}
FIRST_METRICS = ("loss", "miou", "lr")
SORTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("newest first", ()),
    ("best mIoU first", ("-miou",)),
    ("least loss first", ("loss",)),
    ("by name", ("name",)),
)


class RunsScreen(Screen[None]):
    """Runs on the left, the selected run on the right; one panel at a time on a small terminal."""

    BINDINGS: ClassVar = bindings()
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted()
        self.panel = 0
        self.zoomed = False
        self.last_interrupt = 0.0
        self.said = ""
        self.last_command = ""

    @property
    def program(self) -> MmtuiApp:
        """The app, with its own type."""
        return cast("MmtuiApp", self.app)

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
        """Show the newest snapshot."""
        snapshot = self.program.feed.latest
        self._show_header(snapshot)
        table = self.query_one(RunsTable)
        table.columns, table.opened, table.pinned = snapshot.wanted.columns, snapshot.wanted.opened, snapshot.pinned
        table.set_rows(snapshot.rows, snapshot.wanted.offset, snapshot.total)
        ascii_only = self.program.ascii_only
        devices = self.query_one("#devices", LinesPanel)
        devices.show(panels.devices(snapshot.devices, devices.size.width, devices.body_height, ascii_only))
        shown = snapshot.detail is not None and table.run in (None, snapshot.detail.row.id)
        if shown or snapshot.detail is None:
            self._show_run(snapshot)

    def _show_header(self, snapshot: Snapshot) -> None:
        words = ", ".join(f"{count} {state}" for state, count in snapshot.counts.items()) or "no runs"
        serving = snapshot.supervisor
        if serving is not None and not serving.running and (serving.active_runs or serving.queued_runs):
            words += "  ! no supervisor: r starts one"
        words += self.program.link.words()
        text = f" mmtui  {words}" if not snapshot.problem else f" ! {printable(snapshot.problem)}"
        self._set("#header", text)
        self._set("#footer", f" {self.said or footer_text(self.app.size.width - 2)}")

    def _set(self, selector: str, text: str) -> None:
        widget = self.query_one(selector, Static)
        text = text.encode("ascii", "replace").decode() if self.program.ascii_only else text
        if getattr(widget, "shown_text", None) != text:
            widget.shown_text = text  # type: ignore[attr-defined]
            widget.update(text)

    def _show_run(self, snapshot: Snapshot) -> None:
        ascii_only = self.program.ascii_only
        detail = snapshot.detail
        self.query_one(ChartPanel).set_series(snapshot.series, detail)
        stages, graph, classes, log = (
            self.query_one(f"#{name}", LinesPanel) for name in ("stages", "graph", "classes", "log")
        )
        if detail is None:
            for panel in (stages, graph, classes, log):
                panel.show([])
            return
        name = panels.fit(detail.row.name, 40, ascii_only).strip()
        stages.show(panels.stages(detail, stages.size.width, ascii_only), f"run {detail.row.id} {name}")
        names = detail.classes
        graph.show(panels.graph(snapshot.graph, names, graph.size.width, graph.body_height, ascii_only))
        classes.show(panels.classes(snapshot.classes, classes.size.width, classes.body_height, ascii_only))
        log.show(panels.log(snapshot.log, log.body_height, ascii_only))

    def say(self, text: str) -> None:
        """Show a word on what a key did, in the footer, until the next key."""
        self.said = text
        if not self.query("#header"):
            return  # the screen was closed before a thread had its answer
        self._show_header(self.program.feed.latest)

    def on_key(self, event: Key) -> None:
        action = action_of(event.key)
        if action is not None and action.command:
            detail = self.program.feed.latest.detail
            ids = list(self.query_one(RunsTable).marked) or ([detail.row.id] if detail is not None else [])
            self.last_command = command_text(action, ids, self.wanted.filter)
        if self.said:
            self.said = ""
            self._show_header(self.program.feed.latest)

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

    def action_next_panel(self, steps: int) -> None:
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

    def action_next_theme(self) -> None:
        """Other colours."""
        self.say(f"theme: {self.program.next_theme()}")

    def action_repaint(self) -> None:
        """Paint everything again."""
        self.program.repaint()

    def action_copy_id(self) -> None:
        """Copy the selected run's id."""
        detail = self.program.feed.latest.detail
        if detail is not None:
            self.app.copy_to_clipboard(detail.row.id)
            self.say(f"copied: {detail.row.id}")

    def action_show_help(self) -> None:
        """Every key."""
        from mmtui.tui.screens.dialogs import HelpDialog

        self.app.push_screen(HelpDialog())

    def action_show_log(self) -> None:
        """The trainer's output."""
        detail = self.program.feed.latest.detail
        if detail is not None:
            self.program.open_run(detail.row.id, "log")

    def action_leave(self) -> None:
        """Leave; runs go on."""
        self.app.exit(0)

    def action_interrupt(self) -> None:
        """Ctrl-C twice leaves."""
        now = time.monotonic()
        if now - self.last_interrupt < 2.0:
            self.app.exit(0)
        self.last_interrupt = now
        self.say("ctrl+c again, or q, leaves; runs go on. x cancels the selected run")

    def action_open_page(self, number: int) -> None:
        """One of the other screens."""
        self.program.open_page(number)

    def action_mark(self) -> None:
        """Mark the run, or take its mark away."""
        self.query_one(RunsTable).mark()

    def action_sort(self) -> None:
        """The next order of the runs."""
        known = [keys for _, keys in SORTS]
        here = known.index(self.wanted.sort) if self.wanted.sort in known else -1
        words, keys = SORTS[(here + 1) % len(SORTS)]
        self.wanted = replace(self.wanted, sort=keys, offset=0)
        self._note()
        self.say(f"runs: {words}")

    def action_filter(self) -> None:
        """Ask for a filter."""
        from mmtui.tui.screens.commands import FilterDialog

        self.app.push_screen(FilterDialog(self.program.home, self.wanted.filter), self._filter)

    def _filter(self, text: object) -> None:
        if isinstance(text, str):
            self.wanted = replace(self.wanted, filter=text, offset=0, run_id=None)
            table = self.query_one(RunsTable)
            table.selected, table.index = None, 0
            self._note()

    def _note(self) -> None:
        """Filter and order stand in the title of the table."""
        wanted = self.wanted
        order = {keys: text for text, keys in SORTS}.get(wanted.sort, f"by {', '.join(wanted.sort)}")
        words = [f"filter: {wanted.filter}"] if wanted.filter else []
        words += [order] if wanted.sort else []
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

    @work(thread=True, group="queue", exit_on_error=False)
    def _pin(self, run_id: str, on: bool) -> None:
        try:
            keeping.change_tags(self.program.home, run_id, [PINNED] if on else [], [] if on else [PINNED])
        except MmtuiError as error:
            self.app.call_from_thread(self.say, f"! {printable(error.message)}")
            return
        self.program.feed.want(self.wanted, again=True)
        self.app.call_from_thread(self.say, f"run {run_id} is {'pinned' if on else 'no longer pinned'}")

    def action_columns(self) -> None:
        """Choose columns."""
        from mmtui.tui.screens.views import ColumnsDialog

        self.app.push_screen(ColumnsDialog(self.program.home, self.wanted.columns), self._columns)

    def _columns(self, columns: object) -> None:
        if isinstance(columns, tuple):
            self.wanted = replace(self.wanted, columns=columns)
            self._ask()

    def action_views(self) -> None:
        """Views that are kept under a name."""
        from mmtui.tui.screens.views import ViewsDialog

        wanted = self.wanted
        now = SavedView(wanted.filter, wanted.sort, wanted.columns, wanted.group)
        self.app.push_screen(ViewsDialog(self.program.home, now), self._view)

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
        self.say(f"view {name}: {view.command()}")

    def action_command(self) -> None:
        """Ask for a command line and show what it says."""
        from mmtui.tui.screens.commands import CommandDialog

        self.app.push_screen(CommandDialog(self.program.home), self._command)

    def _command(self, text: object) -> None:
        from mmtui.tui.screens.commands import OutputScreen

        if isinstance(text, str) and text.strip():
            self.app.push_screen(OutputScreen(text))

    def action_tell_command(self) -> None:
        """What the last key would be on the command line."""
        self.say(self.last_command or "the last key has no command line")

    def action_copy_command(self) -> None:
        """Copy that."""
        if self.last_command:
            self.app.copy_to_clipboard(self.last_command)
            self.say(f"copied: {self.last_command}")

    def action_new_run(self) -> None:
        """Launch a run."""
        from mmtui.tui.screens.new_run import NewRunDialog

        self.app.push_screen(NewRunDialog(self.program.home), self._launch)

    def action_fork_run(self) -> None:
        """Launch a run like the selected one, but."""
        from mmtui.tui.screens.new_run import NewRun, NewRunDialog

        detail = self.program.feed.latest.detail
        if detail is not None:
            like = NewRun(detail.row.recipe, detail.overrides, "")
            self.app.push_screen(NewRunDialog(self.program.home, like), self._launch)

    def _launch(self, wanted: object) -> None:
        from mmtui.tui.screens.new_run import NewRun

        if isinstance(wanted, NewRun):
            self.last_command = f"mmtui {wanted.command()}"
            self.say(f"queueing {wanted.recipe}")
            self._enqueue(wanted)

    @work(thread=True, group="queue", exit_on_error=False)
    def _enqueue(self, wanted: NewRun) -> None:
        # The command line itself: what can be said there can be said here, and means the same.
        printed = commands.run(self.program.home, f"{wanted.command()} --quiet", 200)
        ids = [line for line in printed if line.isdecimal()]
        if not ids:
            self.app.call_from_thread(self.say, f"! {printable(' '.join(printed))}")
            return
        self.app.call_from_thread(self._launched, ids)

    def _launched(self, ids: list[str]) -> None:
        run_id = ids[-1]
        self.query_one(RunsTable).selected = run_id
        self.wanted = replace(self.wanted, run_id=run_id, offset=0, metric="loss")
        self.program.feed.want(self.wanted, again=True)
        self.say(f"queued run {run_id}" if len(ids) == 1 else f"queued {len(ids)} runs, {ids[0]} to {ids[-1]}")

    @work(thread=True, group="queue", exit_on_error=False)
    def _serve(self) -> None:
        try:
            supervisors.ensure(self.program.home)
        except MmtuiError as error:
            self.app.call_from_thread(self.say, f"! {printable(error.message)}")

    def action_cancel_run(self) -> None:
        """Ask how to stop the selected run."""
        from mmtui.tui.screens.dialogs import CancelDialog

        detail = self.program.feed.latest.detail
        if detail is None:
            return
        if not is_legal(RunState(detail.row.state), RunEvent.CANCEL):
            self.say(f"run {detail.row.id} is {detail.row.state}: there is nothing to cancel")
            return
        self.app.push_screen(CancelDialog(detail, time.time()), self._cancel)

    def _cancel(self, answer: object) -> None:
        detail = self.program.feed.latest.detail
        if detail is not None and answer in ("save", "now"):
            self._wish(detail.row.id, "cancel", {"now": answer == "now"})

    def action_pause_run(self) -> None:
        """Checkpoint and free the device."""
        detail = self.program.feed.latest.detail
        if detail is not None:
            self._wish(detail.row.id, "pause", {})

    def action_resume_run(self) -> None:
        """Resume a paused run, retry an ended one."""
        detail = self.program.feed.latest.detail
        if detail is not None:
            self._wish(detail.row.id, "resume" if detail.row.state == RunState.PAUSED else "retry", {})

    @work(thread=True, group="queue", exit_on_error=False)
    def _wish(self, run_id: str, verb: str, arguments: dict[str, object]) -> None:
        try:
            queue.wish(self.program.home, run_id, verb, arguments)
            supervisors.ensure(self.program.home)
        except MmtuiError as error:
            self.app.call_from_thread(self.say, f"! {printable(error.message)}")
            return
        self.app.call_from_thread(self.say, f"asked: {verb} run {run_id}")
