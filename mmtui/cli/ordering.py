"""Verbs that change the order of the queue, or what waits in it."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.domain import dates
from mmtui.domain.lengths import MOST_HOURS
from mmtui.domain.options import Argument, JsonOption, QuietOption, RunArgument, RunsArgument, option
from mmtui.domain.states import ACTIVE_STATES
from mmtui.errors import UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.domain.forecasting import Forecast

ACTIONS = ("status", "drain", "open")
DRAINED = "the queue is drained: nothing is started until it is opened (mmtui queue open)"


def mv(
    run: RunArgument,
    before: Annotated[str, option("--before", help="put it before this run", complete="runs")] = "",
    after: Annotated[str, option("--after", help="put it after this run", complete="runs")] = "",
    top: Annotated[bool, option("--top", help="put it first")] = False,
    bottom: Annotated[bool, option("--bottom", help="put it last")] = False,
    quiet: QuietOption = False,
) -> None:
    """Move a waiting run in the queue; it takes the priority of its new neighbour."""
    from mmtui.services import queue as service
    from mmtui.services import runs

    if sum((bool(before), bool(after), top, bottom)) != 1:
        raise UsageError("say where to: --before RUN, --after RUN, --top or --bottom")
    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    anchors = [runs.resolve(home, selector) if selector else "" for selector in (before, after)]
    if run_id in anchors:
        raise UsageError(f"run {run_id} cannot be moved next to itself")
    service.move(home, run_id, before=anchors[0], after=anchors[1], bottom=bottom)
    line = runs.queue_order(home)
    render.line(run_id) if quiet else say(
        f"run {run_id} is number {line.index(run_id) + 1} of {len(line)} in the queue"
    )


def priority(
    value: Annotated[int, Argument("higher starts earlier; new runs have 0")],
    runs: RunsArgument,
    quiet: QuietOption = False,
) -> None:
    """Give runs another priority: mmtui priority 5 @"""
    from mmtui.services import queue as service
    from mmtui.services import runs as lookup

    home = Home.from_environment()
    for run_id in service.set_priorities(home, lookup.resolve_all(home, runs), value):
        render.line(run_id) if quiet else say(f"run {run_id} has priority {value}")


def edit(
    run: RunArgument,
    overrides: Annotated[list[str] | None, Argument("key=value; none: open $EDITOR", complete="keys")] = None,
    quiet: QuietOption = False,
) -> None:
    """Change the recipe of a run that has not started."""
    from mmtui.services import editing, runs

    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    texts = list(overrides or []) or _from_editor(home, run_id)
    if not texts:
        say(f"run {run_id} is unchanged")
        return
    editing.edit(home, run_id, texts)
    render.line(run_id) if quiet else say(f"run {run_id} now has {shlex.join(texts)}")


def _from_editor(home: Home, run_id: str) -> list[str]:
    """Overrides for every value that was changed in an editor."""
    from mmtui.services import recipes

    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("without a terminal give the changes as key=value")
    return recipes.changed_in_editor(home.run(run_id).recipe)


def queue(
    action: Annotated[str, Argument("status, drain (finish what runs, start nothing) or open")] = "status",
    limit: Annotated[
        list[str] | None, option("--limit", help="GROUP=N: most runs of a group at once; N=0: no limit")
    ] = None,
    budget: Annotated[
        list[str] | None, option("--budget", help="GROUP=HOURS: device hours of a group in all; 0: no limit")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Short status: supervisor, numbers of runs, what is active, the order of those that wait."""
    from mmtui.services import queue as service

    home = Home.from_environment()
    if action not in ACTIONS:
        raise UsageError(f"mmtui queue {action}: write one of {', '.join(ACTIONS)}")
    limits, budgets = [_limit(text) for text in limit or ()], [_budget(text) for text in budget or ()]
    for group, most in limits:
        service.limit_group(home, group, most)
    for group, hours in budgets:
        service.set_budget(home, group, hours)
    if action != "status":
        service.close_queue(home, DRAINED if action == "drain" else "")
        _serve(home)
    _status(home, as_json)


def _limit(text: str) -> tuple[str, int | None]:
    """Group and number of ``--limit``; None = no limit."""
    group, _, number = text.rpartition("=")
    if not group or not re.fullmatch("[0-9]{1,15}", number):
        raise UsageError(f"--limit {text}: write GROUP=N, for example --limit sweep-12=2")
    return group, int(number) or None


def _budget(text: str) -> tuple[str, float | None]:
    """Group and hours of ``--budget``; None = no limit."""
    group, _, number = text.rpartition("=")
    if not group or not re.fullmatch(r"[0-9]+(\.[0-9]+)?h?", number):
        raise UsageError(f"--budget {text}: write GROUP=HOURS, for example --budget sweep-12=20")
    hours = float(number.removesuffix("h"))
    if hours > MOST_HOURS:
        raise UsageError(f"--budget {text}: write at most {MOST_HOURS:,} hours")
    return group, hours or None


def _serve(home: Home) -> None:
    from mmtui.services import supervisors

    found = supervisors.status(home)
    if not found.running and (found.active_runs or found.queued_runs):
        note = supervisors.ensure(home).note
        if note:
            say(f"note: {note}")


def _status(home: Home, as_json: bool) -> None:
    from mmtui.services import forecast, runs, supervisors

    counts, status = runs.count_runs(home), supervisors.status(home)
    busy = runs.list_runs(home, states=sorted(ACTIVE_STATES), newest_first=False)
    line, settings = runs.queue_order(home), runs.queue_settings(home)
    expected = forecast.queue_forecast(home) if busy or line else {}
    if as_json:
        active = [jsonform.run(row) for row in busy]
        limits = runs.group_limits(settings)
        extra = {
            "waiting": line,
            "closed": settings.get("closed", ""),
            "limits": limits,
            "forecast": {run_id: jsonform.forecast(found) for run_id, found in expected.items()},
        }
        render.document({"supervisor": jsonform.supervisor(status), "counts": counts, "active": active, **extra})
        return
    word = f"runs (pid {status.pid})" if status.running else "does not run"
    totals = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no runs yet"
    render.line(f"supervisor {word}; {totals}")
    if status.note:
        say(f"note: {status.note}")
    if settings.get("closed"):
        say(settings["closed"])
    shown = [*busy, *runs.by_ids(home, line[:20])]
    if shown:
        render.runs_table(shown, time.time())
        _say_when(expected)
    if len(line) > 20:
        say(f"{len(line) - 20} more runs wait")


def _say_when(expected: Mapping[str, Forecast]) -> None:
    """When runs start and end, by the clock; and when all is done."""
    rows = [
        (run_id, _clock(found.start) if found.start else "runs", _clock(found.end), _range(found))
        for run_id, found in list(expected.items())[:20]
        if found.start or found.end
    ]
    if rows:
        render.line("")
        render.table(("run", "starts", "ends", "between"), rows, right=(0,))
    ends = [found.end for found in expected.values()]
    known = [end for end in ends if end is not None]
    if len(known) > 1:
        unknown = len(ends) - len(known)
        rest = f"; of {unknown} more nothing like them was ever seen" if unknown else ""
        say(f"the queue is expected to be done at {_clock(max(known))}{rest}")


def _clock(moment: float | None) -> str:
    """Time of day, with the date unless it is today."""
    found, today = dates.local(moment), dates.local(time.time())
    same = found is not None and today is not None and found.date() == today.date()
    return dates.text(moment, "%H:%M:%S" if same else "%Y-%m-%d %H:%M", "?")


def _range(found: Forecast) -> str:
    if found.earliest is None or found.latest is None:
        return ""
    return f"{_clock(found.earliest)} and {_clock(found.latest)}"
