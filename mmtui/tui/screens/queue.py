"""Screen 4: the queue, and what one may do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import Binding

from mmtui.domain.states import RunState
from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.services import queue as service
from mmtui.services import runs, supervisors
from mmtui.tui.pages import queue
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.widgets.panels import Line

CLOSED = "closed on the screen"


class QueueScreen(PageScreen):
    """Order, priorities, reasons and forecast; every deed can be undone."""

    TABS = ("queue",)
    HINTS = "J/K move  +/- priority  h hold  D drain  O open  z undo  enter run"
    BINDINGS: ClassVar = [
        Binding("j,down", "choose(1)", "next", show=False),
        Binding("k,up", "choose(-1)", "previous", show=False),
        Binding("J", "shift(1)", "later", show=False),
        Binding("K", "shift(-1)", "earlier", show=False),
        Binding("plus,equals_sign", "priority(1)", "more urgent", show=False),
        Binding("minus", "priority(-1)", "less urgent", show=False),
        Binding("h", "hold", "hold or release", show=False),
        Binding("D", "drain", "drain", show=False),
        Binding("O", "reopen", "open", show=False),
        Binding("z", "undo", "undo", show=False),
        Binding("enter", "show_run", "run", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.found: queue.QueueView | None = None
        self.cursor = ""
        self.undone: list[tuple[str, Callable[[], None]]] = []

    def title_of(self) -> str:
        """How many wait."""
        found = self.found
        return "queue" if found is None else f"queue  {len(found.active)} active, {len(found.waiting)} waiting"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The queue as it is."""
        self.found = found = queue.look(self.program.home)
        ids = [row.id for row in found.rows]
        if self.cursor not in ids:
            self.cursor = ids[0] if ids else ""
        return queue.lines(found, self.cursor, width, self.program.ascii_only)

    def action_choose(self, steps: int) -> None:
        """Another run."""
        ids = [row.id for row in self.found.rows] if self.found is not None else []
        if ids:
            here = ids.index(self.cursor) if self.cursor in ids else 0
            self.cursor = ids[min(max(here + steps, 0), len(ids) - 1)]
            place = ids.index(self.cursor) + 3
            room = max(self.app.size.height - 3, 1)
            self.offset_lines = min(max(self.offset_lines, place - room + 1), place)
            self.redraw()

    def action_shift(self, steps: int) -> None:
        """The chosen run earlier or later."""
        ids = [row.id for row in self.found.waiting] if self.found is not None else []
        if self.cursor not in ids:
            self.say("only runs that wait can be moved")
            return
        here = ids.index(self.cursor)
        other = here + steps
        if not 0 <= other < len(ids):
            return
        home, run_id, neighbour = self.program.home, self.cursor, ids[other]

        def put(later: bool) -> None:
            if later:
                service.move(home, run_id, after=neighbour)
            else:
                service.move(home, run_id, before=neighbour)

        self._do(f"moved run {run_id}", lambda: put(steps > 0), lambda: put(steps < 0))

    def action_priority(self, steps: int) -> None:
        """The chosen run more or less urgent."""
        home, run_id = self.program.home, self.cursor
        if not run_id:
            return
        now = int(runs.values(home, [run_id], ["priority"])[run_id][0])
        self._do(
            f"run {run_id} has priority {now + steps}",
            lambda: service.set_priority(home, run_id, now + steps),
            lambda: service.set_priority(home, run_id, now),
        )

    def action_hold(self) -> None:
        """Hold the chosen run, or release it."""
        home, run_id = self.program.home, self.cursor
        held = any(row.id == run_id and row.state == RunState.HELD for row in self.found.rows) if self.found else False
        if not run_id:
            return
        deed, back = (service.release, service.hold) if held else (service.hold, service.release)
        self._do(
            f"run {run_id} is {'released' if held else 'held'}", lambda: deed(home, run_id), lambda: back(home, run_id)
        )

    def action_drain(self) -> None:
        """Start nothing more."""
        home = self.program.home
        self._do(
            "nothing more is started", lambda: service.close_queue(home, CLOSED), lambda: service.close_queue(home, "")
        )

    def action_reopen(self) -> None:
        """Start runs again."""
        home = self.program.home
        self._do(
            "runs are started again", lambda: service.close_queue(home, ""), lambda: service.close_queue(home, CLOSED)
        )

    def action_undo(self) -> None:
        """Take the last deed back."""
        if not self.undone:
            self.say("there is nothing to undo")
            return
        words, back = self.undone.pop()
        self._act(f"undone: {words}", back, None)

    def action_show_run(self) -> None:
        """Everything about the chosen run."""
        if self.cursor:
            self.app.pop_screen()
            self.program.open_run(self.cursor)

    def _do(self, words: str, deed: Callable[[], None], back: Callable[[], None]) -> None:
        self._act(words, deed, back)

    @work(thread=True, group="queue", exit_on_error=False)
    def _act(self, words: str, deed: Callable[[], None], back: Callable[[], None] | None) -> None:
        try:
            deed()
            found = supervisors.status(self.program.home)
            if not found.running and found.queued_runs:
                supervisors.ensure(self.program.home)
        except MmtuiError as error:
            self.app.call_from_thread(self.say, f"! {printable(error.message)}")
            return
        if back is not None:
            self.undone.append((words, back))
        self.app.call_from_thread(self._done, words)

    def _done(self, words: str) -> None:
        self.say(words)
        self.redraw()
