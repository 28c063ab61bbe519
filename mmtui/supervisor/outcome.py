"""What became of a trainer that is gone, and whether it is started again."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.own_code import OTHER_CODE
from mmtui.domain.states import RunEvent, RunState
from mmtui.domain.text import printable
from mmtui.paths import RunPaths
from mmtui.services.plain_files import open_file
from mmtui.store.tables import Attempt, Run

BACK_OFF_SECONDS = (0.0, 2.0, 4.0, 8.0)
"""Waits before the 1st, 2nd, ... new start without progress; after the fifth loss the run stays interrupted."""
EXIT_LOCKED = 75
"""The launcher's word for: another trainer of this run still lives."""
DISK_FULL = "the disk is full: free some space, then retry the run; it goes on from its last checkpoint"
TAIL_BYTES = 64 * 1024
"""So much of the end of an output is looked at: it may have gigabytes."""
LONGEST_REASON = 1_000
_ASKED = {RunState.STOPPING: "cancelled", RunState.PAUSING: "paused"}


@dataclass(frozen=True)
class Ending:
    """The event to apply, why, and in how many seconds to start again (None = not by itself)."""

    event: RunEvent
    outcome: str
    reason: str = ""
    error: str = ""
    retry_in: float | None = None
    vanished: int = 0


def judge(
    run: Run, attempt: Attempt, exit_code: int | None, log: Path, now: float, *, disk_full: bool = False
) -> Ending:
    """The trainer's own last word first, then its exit code; silence means that it vanished.

    Args:
        exit_code: None when the trainer was no child of this supervisor.
        log: what the trainer printed.
        disk_full: whether the disk was found full: then the trainer could not say so itself.
    """
    if attempt.outcome == "succeeded":
        return Ending(RunEvent.EXIT_OK, "succeeded")
    if attempt.outcome == "failed":
        return Ending(RunEvent.EXIT_ERROR, "failed", run.error)
    if attempt.outcome == "stopped":
        return _again(run, RunEvent.EXIT_STOPPED, "stopped", "its trainer was told to stop")
    if exit_code is not None and 0 < exit_code < 128 and exit_code != EXIT_LOCKED:
        # It left by itself and could not write why, as on a full disk; starting again would meet the same.
        spoken = last_line(log)
        text = f"the trainer left with code {exit_code}: {spoken}"
        if spoken.startswith(f"error: {OTHER_CODE}"):
            text = spoken.removeprefix("error: ")  # it ended before it could write an event
        if disk_full and "disk is full" not in text:
            text = f"{DISK_FULL} (the trainer left with code {exit_code})"
        return Ending(RunEvent.EXIT_ERROR, "failed", text, text)
    return _again(run, RunEvent.VANISHED, "vanished", f"its trainer vanished{_how(exit_code)}")


def last_written(files: RunPaths, attempt: Attempt, now: float) -> float:
    """When a trainer that is gone last wrote something, Unix time from its start to now; now if it wrote nothing.

    A machine that was off, or a supervisor that was, for a day makes no attempt a day longer.
    """
    moments = []
    for file in (files.events(attempt.number), files.log(attempt.number)):
        with suppress(OSError):
            moments.append(file.stat().st_mtime)
    return min(max([attempt.spawned_at, *moments]), now) if moments else now


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    return f" (killed by signal {-exit_code})" if exit_code < 0 else f" (exit code {exit_code})"


def _again(run: Run, event: RunEvent, outcome: str, why: str) -> Ending:
    """Back into the queue, later each time, until it has vanished too often without getting on.

    A run that was told to go stays where it is.
    """
    if run.state in _ASKED:
        word = _ASKED[RunState(run.state)]
        reason = f"{word} at step {run.global_step}; goes on from its last checkpoint if asked to"
        return Ending(event, outcome, reason)
    vanished = 1 if run.global_step > run.vanished_at_step else run.vanished + 1
    if vanished > len(BACK_OFF_SECONDS):
        reason = f"{why} {vanished} times at step {run.global_step} without getting on; retry it by hand"
        return Ending(event, outcome, reason, vanished=vanished)
    reason = f"{why} at step {run.global_step}; goes on from its last checkpoint"
    return Ending(event, outcome, reason, retry_in=BACK_OFF_SECONDS[vanished - 1], vanished=vanished)


def last_line(log: Path) -> str:
    """Last line a trainer printed that says something, its last ``LONGEST_REASON`` characters."""
    try:
        with open_file(log) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return "it printed nothing"
    spoken = printable(next((line for line in reversed([part.strip() for part in text.splitlines()]) if line), ""))
    if not spoken:
        return "it printed nothing"
    return spoken if len(spoken) <= LONGEST_REASON else f"…{spoken[1 - LONGEST_REASON :]}"
