"""The queue: what trains, what waits and why, and when each will start and end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mmtui.domain import dates
from mmtui.domain.forecasting import Forecast
from mmtui.domain.look import glyph
from mmtui.domain.states import ACTIVE_STATES
from mmtui.domain.text import duration, printable
from mmtui.domain.views import RunRow
from mmtui.paths import Home
from mmtui.services import forecast, runs
from mmtui.tui.widgets.panels import Line, fit


@dataclass(frozen=True)
class QueueView:
    """The queue at one moment; the waiting runs stand in the order in which they start."""

    active: tuple[RunRow, ...]
    waiting: tuple[RunRow, ...]
    expected: dict[str, Forecast]
    closed: str

    @property
    def rows(self) -> tuple[RunRow, ...]:
        """All rows, as shown."""
        return (*self.active, *self.waiting)


def look(home: Home) -> QueueView:
    """Read the queue."""
    active = runs.list_runs(home, states=sorted(ACTIVE_STATES), newest_first=False)
    order = runs.queue_order(home)
    rows = {row.id: row for row in runs.by_ids(home, order)}
    expected = forecast.queue_forecast(home) if active or order else {}
    waiting = tuple(rows[run_id] for run_id in order if run_id in rows)
    return QueueView(tuple(active), waiting, expected, runs.queue_settings(home).get("closed", ""))


def lines(found: QueueView, cursor: str, width: int, ascii_only: bool) -> list[Line]:
    """One line a run; the one with the id ``cursor`` is marked."""
    if not found.rows:
        return [[("nothing trains and nothing waits: press 1 and n to launch a run", "dim")]]
    result: list[Line] = []
    if found.closed:
        result.append([(f"the queue is closed: {printable(found.closed)}; O opens it", "warn")])
    ends = [one.end for one in found.expected.values() if one.end is not None]
    if ends:
        result.append([(f"done about {_clock(max(ends))}, in {duration(max(ends) - time.time())}", "dim")])
    result.append([(f"   {'id':>5} {'state':12}{'name':24} {'starts':>9} {'ends':>9}  reason", "dim")])
    for row in found.rows:
        guess = found.expected.get(row.id)
        times = f"{_clock(guess.start if guess else None):>9} {_clock(guess.end if guess else None):>9}"
        state = f"{glyph(row.state, ascii_only)} {row.state}"
        mark = ">" if row.id == cursor else " "
        text = f" {mark} {row.id:>5} {state:12}{fit(row.name, 24, ascii_only)} {times}  "
        reason = fit(row.reason, max(width - len(text), 8), ascii_only).rstrip()
        result.append([(text + reason, "cursor" if row.id == cursor else "")])
    return result


def _clock(moment: float | None) -> str:
    if moment is None or moment > time.time() + 10 * 365 * 86400:
        return "-"
    shape = "%H:%M:%S" if abs(moment - time.time()) < 86400 else "%d %b"
    return dates.text(moment, shape)
