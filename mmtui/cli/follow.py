"""Verbs that stay: logs -f, watch, wait, demo."""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import UNSERVED, Interrupted, say
from mmtui.domain.options import Argument, JsonOption, RunsArgument, option
from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.domain.text import duration
from mmtui.domain.views import RunDetail
from mmtui.errors import ExitCode, NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services import runs as service

WATCH_SECONDS = 1.0
LOOKS_UNSERVED = 3
"""One that is just being replaced is no reason to say so."""


def logs(
    runs: RunsArgument,
    follow: Annotated[bool, option("--follow", "-f", help="go on as the run prints, until it ends")] = False,
    lines: Annotated[int, option("--lines", "-n", help="last N lines", minimum=0)] = 200,
    attempt: Annotated[int | None, option("--attempt", help="of this attempt (default: the newest)")] = None,
    step: Annotated[
        int | None, option("--step", help="as it was at this step of the whole run, over all attempts", minimum=0)
    ] = None,
) -> None:
    """What trainers printed; with several runs each line begins with its run's id."""
    home = Home.from_environment()
    ids = list(dict.fromkeys(service.resolve(home, selector) for selector in runs))
    if step is not None:
        if follow or attempt is not None or len(ids) > 1:
            raise UsageError("--step is for one run, without --follow and --attempt")
        _log_at(home, ids[0], step, lines)
        return
    if len(ids) > 1:
        _several_logs(home, ids, follow, lines)
        return
    (run_id,) = ids
    if follow:
        if attempt is not None:
            raise UsageError("--follow goes on with the newest attempt; leave out --attempt")
        for text in service.log_follow(home, run_id):
            render.line(text)
        return
    if not service.log_path(home, run_id, attempt).exists():
        which = f"attempt {attempt} of run {run_id}" if attempt is not None else f"run {run_id}"
        raise NotFoundError(f"{which} has printed nothing yet", f"see why with: mmtui show {run_id}")
    for text in service.log_tail(home, run_id, lines, attempt):
        render.line(text)


def _log_at(home: Home, run_id: str, step: int, lines: int) -> None:
    """The output as it was at a step."""
    from mmtui.services.output import printed_until

    found, note = printed_until(home, run_id, step, lines)
    for text in found:
        render.line(text)
    if note:
        say(f"note: {note}")


def _several_logs(home: Home, ids: list[str], follow: bool, lines: int) -> None:
    """Lines of several runs, each behind its run's id; with ``follow`` as they come, until all have ended."""
    width = max(map(len, ids))
    if not follow:
        for run_id in ids:
            for text in service.log_tail(home, run_id, lines):
                render.line(f"{run_id:>{width}} | {text}")
        return
    fresh: queue.Queue[tuple[str, str | None]] = queue.Queue()

    def read(run_id: str) -> None:
        for text in service.log_follow(home, run_id):
            fresh.put((run_id, text))
        fresh.put((run_id, None))

    for run_id in ids:
        threading.Thread(target=read, args=(run_id,), daemon=True).start()
    left = len(ids)
    while left:
        run_id, line = fresh.get()
        left -= line is None
        if line is not None:
            render.line(f"{run_id:>{width}} | {line}")


def watch(
    run: Annotated[
        str, Argument("run (an id, @, @~1), or a run directory or events.jsonl of any trainer", complete="runs")
    ] = "@",
) -> int:
    """Follow a run until it ends, on one screen (plain lines in a pipe); exit 1 if it did not succeed."""
    is_selector = re.fullmatch(r"\d+|@(~\d+)?", run)
    if not is_selector and ("/" in run or run.endswith(".jsonl") or Path(run).exists()):
        return watch_path(Path(run))
    home = Home.from_environment()
    run_id = service.resolve(home, run)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from mmtui.cli.watching import watch_screen

        return watch_screen(home, run_id)
    return watch_run(home, run_id)


class _Unserved:
    """Says once that nobody looks after the runs that one waits for: they would be waited for for ever."""

    def __init__(self, home: Home) -> None:
        self.home, self.looks, self.said = home, 0, False

    def look(self) -> None:
        from mmtui.services import supervisors

        self.looks = 0 if supervisors.is_served(self.home) else self.looks + 1
        if self.looks >= LOOKS_UNSERVED and not self.said:
            self.said = True
            say(f"note: {UNSERVED}")


def watch_run(home: Home, run_id: str) -> int:
    """Print a line whenever a run has moved; its exit code."""
    from mmtui.services import demo, runs

    shown, unserved = "", _Unserved(home)
    while True:
        found = runs.get_run(home, run_id)
        text = demo.progress_line(found)
        if text != shown:
            render.line(text)
            shown = text
        if RunState(found.row.state) in FINAL_STATES:
            return int(ExitCode.OK if found.row.state == RunState.SUCCEEDED else ExitCode.FAILED)
        unserved.look()
        time.sleep(WATCH_SECONDS)


def watch_path(path: Path) -> int:
    """Follow the event file of any trainer that writes docs/events.md's format."""
    from engine.events.records import RunFinished
    from mmtui.services import foreign

    for event in foreign.follow(path, WATCH_SECONDS):
        if isinstance(event.record, RunFinished):
            status = event.record.status
            render.line(f"finished: {status}")
            return int(ExitCode.OK if status == "succeeded" else ExitCode.FAILED)
        text = foreign.describe(event)
        if text:
            render.line(text)
    return int(ExitCode.OK)


def wait(
    runs: RunsArgument,
    timeout: Annotated[
        float | None, option("--timeout", help="give up after so many seconds (exit 124)", minimum=0)
    ] = None,
    any_: Annotated[bool, option("--any", help="until one of them ends (default: until all have)")] = False,
    as_json: JsonOption = False,
) -> int:
    """Wait for runs to end; exit 1 if one did not succeed."""
    if timeout is not None and not timeout >= 0:
        raise UsageError("--timeout: write a number of seconds")
    home = Home.from_environment()
    ids = [service.resolve(home, selector) for selector in runs]
    states = service.wait(home, ids, timeout=timeout, any_=any_, meanwhile=_Unserved(home).look)
    final = {run_id: state for run_id, state in states.items() if RunState(state) in FINAL_STATES}
    if as_json:
        render.document({"runs": [{"id": run_id, "state": state} for run_id, state in states.items()]})
    else:
        for run_id, state in final.items():
            render.line(f"{run_id} {state}")
    failed = any(state != RunState.SUCCEEDED for state in final.values())
    return int(ExitCode.FAILED if failed else ExitCode.OK)


def demo() -> int:
    """Train the built-in shapes without tuning, with mix-and-match and with its contrast; compare (a minute or two)."""
    from mmtui.cli.screen import on_terminal, open_screen
    from mmtui.services import demo as service
    from mmtui.services import supervisors

    home = Home.from_environment()
    served_before = supervisors.status(home).running
    ids = service.start(home)
    say(f"queued runs {', '.join(ids[:-1])} and {ids[-1]} in {home.root}")
    if on_terminal() and os.environ.get("TERM", "dumb") != "dumb":
        code = open_screen(home, ids[0])
        say(f"the runs go on without the screen; compare them with: mmtui compare {' '.join(ids)}")
        return code
    try:
        for text in service.follow(home, ids):
            render.line(text)
    except Interrupted:
        say(f"the runs go on; stop them with: mmtui cancel {' '.join(ids)}")
        raise
    code = _demo_report(home, ids)
    if not served_before:
        service.stop_supervisor_if_idle(home)
    return code


def _demo_report(home: Home, ids: list[str]) -> int:
    from mmtui.services import runs

    found = [runs.get_run(home, run_id) for run_id in ids]
    failed = [detail for detail in found if detail.row.state != RunState.SUCCEEDED]
    for detail in failed:
        say(f"run {detail.row.id} {detail.row.state}: {detail.row.reason}; see: mmtui logs {detail.row.id}")
    tables = [table for run_id in ids if (table := runs.class_table(home, run_id)) is not None]
    if failed or len(tables) < len(ids):
        return int(ExitCode.FAILED)
    render.line()
    render.class_comparison([d.row.name for d in found], tables, ("elapsed", *[_took(d) for d in found]))
    render.line("One seed each and a tiny data set: small differences mean nothing.")
    return int(ExitCode.OK)


def _took(detail: RunDetail) -> str:
    row = detail.row
    return duration(row.ended_at - row.started_at) if row.started_at and row.ended_at else "-"
