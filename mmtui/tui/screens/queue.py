"""Screen 4: the queue, and what one may do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from mmtui.services import queue as service
from mmtui.services import runs, supervisors
from mmtui.tui.actions import bindings
from mmtui.tui.pages import queue
from mmtui.tui.screens.deeds import RunDeeds
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.widgets.panels import Line

CLOSED = "closed on the screen"


class QueueScreen(PageScreen, RunDeeds):
    """Order, priorities, reasons and forecast; every deed can be undone."""

    NAME, TABS = "queue", ("queue",)
    BINDINGS: ClassVar = bindings("queue")

    def __init__(self) -> None:
        super().__init__()
        self.found: queue.QueueView | None = None
        self.cursor = ""

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

    def acting_ids(self) -> list[str]:
        """The chosen run."""
        return [self.cursor] if self.cursor else []

    def action_move(self, steps: int) -> None:
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

        self.program.note_command(f"mmtui mv {run_id} --{'after' if steps > 0 else 'before'} {neighbour}")
        self._deed(f"moved run {run_id}", lambda: put(steps > 0), lambda: put(steps < 0))

    def action_priority(self, steps: int) -> None:
        """The chosen run more or less urgent."""
        home, run_id = self.program.home, self.cursor
        if not run_id:
            return
        now = int(runs.values(home, [run_id], ["priority"])[run_id][0])
        self.program.note_command(f"mmtui priority {now + steps} {run_id}")
        self._deed(
            f"run {run_id} has priority {now + steps}",
            lambda: service.set_priority(home, run_id, now + steps),
            lambda: service.set_priority(home, run_id, now),
        )

    def action_drain(self) -> None:
        """Start nothing more, or start runs again."""
        home = self.program.home
        closed = bool(self.found is not None and self.found.closed)
        words = "runs are started again" if closed else "nothing more is started"
        before = self.found.closed if self.found is not None else ""
        self.program.note_command(f"mmtui queue {'open' if closed else 'drain'}")
        self._deed(
            words,
            lambda: service.close_queue(home, "" if closed else CLOSED),
            lambda: service.close_queue(home, before),
        )

    def action_show_run(self) -> None:
        """Everything about the chosen run."""
        if self.cursor:
            self.app.pop_screen()
            self.program.open_run(self.cursor)

    def _deed(self, words: str, deed: Callable[[], None], back: Callable[[], None]) -> None:
        """Change the queue; what waits and may start gets a supervisor."""

        def act() -> None:
            deed()
            found = supervisors.status(self.program.home)
            if not found.running and found.queued_runs:
                supervisors.ensure(self.program.home)

        self.do(words, act, back)
