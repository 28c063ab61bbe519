"""Verbs that stay: logs -f, watch, wait, demo."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mmtui.cli import render
from mmtui.cli.diagnostics import Interrupted, say
from mmtui.cli.options import RunArgument, RunsArgument
from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.domain.text import duration, printable
from mmtui.errors import ExitCode, NotFoundError
from mmtui.paths import Home

WATCH_SECONDS = 1.0


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on as the run prints, until it ends")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="last N lines")] = 200,
    attempt: Annotated[int | None, typer.Option("--attempt", help="of this attempt (default: the newest)")] = None,
) -> None:
    """What a run's trainer printed."""
    from mmtui.services import runs

    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    if follow:
        for text in runs.log_follow(home, run_id):
            render.line(text)
        return
    path = runs.log_path(home, run_id, attempt)
    if not path.exists():
        raise NotFoundError(f"run {run_id} has printed nothing yet", f"see why with: mmtui show {run_id}")
    for text in runs.log_tail(home, run_id, lines, attempt):
        render.line(text)


def watch(
    run: Annotated[str, typer.Argument(help="run, or a run directory or events.jsonl of any trainer")] = "@",
) -> None:
    """Follow a run as plain lines until it ends; exit 1 if it did not succeed."""
    from mmtui.services import runs

    if "/" in run or run.endswith(".jsonl"):
        raise typer.Exit(watch_path(Path(run)))
    home = Home.from_environment()
    raise typer.Exit(watch_run(home, runs.resolve(home, run)))


def watch_run(home: Home, run_id: str) -> int:
    """Print a line whenever a run has moved; its exit code."""
    from mmtui.services import demo, runs

    shown = ""
    while True:
        found = runs.get_run(home, run_id)
        text = demo.progress_line(found)
        if text != shown:
            render.line(printable(text))
            shown = text
        if RunState(found.row.state) in FINAL_STATES:
            return int(ExitCode.OK if found.row.state == RunState.SUCCEEDED else ExitCode.FAILED)
        time.sleep(WATCH_SECONDS)


def watch_path(path: Path) -> int:
    """Follow the event file of any trainer that writes docs/events.md's format."""
    from engine.events import attempt_folder, attempt_numbers, read_events

    if path.is_dir():
        numbers = attempt_numbers(path)
        path = attempt_folder(path, numbers[-1]) / "events.jsonl" if numbers else path / "events.jsonl"
    if not path.is_file():
        raise NotFoundError(f"{path} is no event file", "give a run directory or an events.jsonl")
    offset = 0
    while True:
        for offset, event in read_events(path, offset):  # noqa: B007  (the offset is where to go on)
            if event is None:
                continue
            values = event.get("values") or {}
            if event["kind"] == "run_finished":
                render.line(f"finished: {printable(str(values.get('status')))}")
                return int(ExitCode.OK if values.get("status") == "succeeded" else ExitCode.FAILED)
            text = _event_text(event["kind"], values)
            if text:
                render.line(printable(f"{event.get('stage', '')} {event.get('step', '')}  {text}"))
        time.sleep(WATCH_SECONDS)


def _event_text(kind: str, values: dict[str, object]) -> str:
    if kind == "metrics":
        numbers = [f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, int | float)]
        return "  ".join(numbers)
    if kind in ("error", "warning"):
        return f"{kind}: {values.get('text')}"
    return ""


def wait(
    runs: RunsArgument,
    timeout: Annotated[float | None, typer.Option("--timeout", help="give up after so many seconds (exit 124)")] = None,
    any_: Annotated[bool, typer.Option("--any", help="until one of them ends (default: until all have)")] = False,
) -> None:
    """Wait for runs to end; exit 1 if one did not succeed."""
    from mmtui.services import runs as service

    home = Home.from_environment()
    ids = [service.resolve(home, selector) for selector in runs]
    states = service.wait(home, ids, timeout=timeout, any_=any_)
    final = {run_id: state for run_id, state in states.items() if RunState(state) in FINAL_STATES}
    for run_id, state in final.items():
        render.line(f"{run_id} {state}")
    if any(state != RunState.SUCCEEDED for state in final.values()):
        raise typer.Exit(int(ExitCode.FAILED))


def demo() -> None:
    """Train the built-in shapes with and without mix-and-match tuning, and compare them (some two minutes)."""
    from mmtui.services import demo as service
    from mmtui.services import supervisors

    home = Home.from_environment()
    served_before = supervisors.status(home).running
    began = time.monotonic()
    ids = service.start(home)
    say(f"queued runs {' and '.join(ids)} in {home.root}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        from mmtui.cli.app import open_screen

        open_screen(home, ids[0])
    try:
        for text in service.follow(home, ids):
            render.line(printable(text))
    except Interrupted:
        say(f"the runs go on; stop them with: mmtui cancel {' '.join(ids)}")
        raise
    code = _demo_report(home, ids, time.monotonic() - began)
    if not served_before and supervisors.status(home).active_runs == 0:
        supervisors.stop(home)
    raise typer.Exit(code)


def _demo_report(home: Home, ids: list[str], seconds: float) -> int:
    from mmtui.services import runs

    found = [runs.get_run(home, run_id) for run_id in ids]
    for detail in found:
        if detail.row.state != RunState.SUCCEEDED:
            say(f"run {detail.row.id} {detail.row.state}: {printable(detail.row.reason)}")
    if any(detail.row.state != RunState.SUCCEEDED for detail in found):
        return int(ExitCode.FAILED)
    tables = [runs.class_table(home, run_id) for run_id in ids]
    render.line()
    render.class_comparison([detail.row.name for detail in found], [table for table in tables if table is not None])
    render.line(f"\nboth runs took {duration(seconds)}; one seed each, so small differences mean nothing")
    return int(ExitCode.OK)
