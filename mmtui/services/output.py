"""What the trainers of a run printed, attempt after attempt: all of it, or as it was when a step was done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from engine.events import Event, parse_line, whole_lines
from mmtui.domain.text import printable, size
from mmtui.errors import NotFoundError
from mmtui.paths import Home
from mmtui.services.plain_files import open_file
from mmtui.services.runs import get_run
from mmtui.store.session import reading

WINDOW_BYTES = 512 * 1024
"""So much of the end is read; what stands before it is counted and named."""
SCANNED_BYTES = 64 * 1024 * 1024
"""Longest output in which a step is looked for line by line."""
_NEAR_BYTES = 1 << 16
_PROGRESS = re.compile(rb"(\w+) (\d{1,15})/\d+  ")
_TIME = re.compile(rb"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)")


@dataclass(frozen=True)
class Output:
    """Lines with control characters spelled out.

    Attributes:
        lines: (text, whether it is a word of this program and not of the trainer).
        note: how the step was found in the output where that is not exact, "" where it is.
    """

    lines: tuple[tuple[str, bool], ...]
    note: str = ""


@dataclass(frozen=True)
class _Part:
    """The output of one attempt, up to a byte."""

    number: int
    path: Path
    end: int
    began: str


def read_output(home: Home, run_id: str, until: int | None = None, window: int = WINDOW_BYTES) -> Output:
    """The output of all attempts, at most the last ``window`` bytes of it.

    Args:
        until: global step: as it was when the run had done this step and nothing of the next one was known. Attempts
            that a later one did over are part of it: they had been printed by then.

    Raises:
        NotFoundError: there is no such run.
    """
    detail = get_run(home, run_id)
    last, note = max((a.number for a in detail.attempts), default=0), ""
    with reading(home) as reader:
        resumed = reader.resumed_at(int(run_id))
    if until is not None:
        last = max((n for n, step in resumed.items() if step < until), default=min(resumed, default=last))
    parts = []
    for attempt in detail.attempts:
        path = home.run(run_id).log(attempt.number)
        if attempt.number > last or not path.is_file():
            continue
        end = path.stat().st_size
        if until is not None and attempt.number == last:
            offsets = {stage.name: stage.offset for stage in detail.stages}
            end, note = _place(path, until, offsets)
        heading = ", ".join(filter(None, (f"attempt {attempt.number}", attempt.begins())))
        parts.append(_Part(attempt.number, path, end, heading))
    return Output(tuple(_lines(run_id, parts, window)), note)


def _lines(run_id: str, parts: Sequence[_Part], window: int) -> list[tuple[str, bool]]:
    """The end of what the parts hold, a heading before each if there are several."""
    found: list[list[tuple[str, bool]]] = []
    for part in reversed(parts):
        begin = max(part.end - window, 0)
        text = _bytes(part.path, begin, part.end)
        window -= len(text)
        if begin:
            text = text.partition(b"\n")[2]
        lines = [(printable(line), False) for line in text.decode(errors="replace").splitlines()]
        heading = [(part.began, True)] if len(parts) > 1 else []
        if begin:
            told = f"{size(begin)} before this are not shown: mmtui logs {run_id} --attempt {part.number} -n 1000000"
            heading.append((told, True))
        found.append([*heading, *lines])
        if window <= 0:
            break
    return [line for several in reversed(found) for line in several]


def _bytes(path: Path, begin: int, end: int) -> bytes:
    with open_file(path) as file:
        file.seek(begin)
        return file.read(max(end - begin, 0))


def _place(log: Path, step: int, offsets: Mapping[str, int]) -> tuple[int, str]:
    """Where in the output of an attempt a global step was done, and how that is known if not exactly."""
    whole_file = log.stat().st_size
    event = last_event(log.with_name("events.jsonl"), step)
    if event is not None and event.printed is not None:
        return min(event.printed, whole_file), ""
    if whole_file <= SCANNED_BYTES:
        end = _by_progress(log, step, offsets)
        if end is not None:
            return end, "found by its progress lines"
        end = _by_time(log, event.t) if event is not None else None
        if end is not None:
            return end, "found by the times in its lines"
    return whole_file, f"where step {step} stands in it is not known: all of it is shown"


def last_event(path: Path, step: int) -> Event | None:
    """The last event of a file up to a global step, found by halving: steps never go back within an attempt."""
    try:
        file = open_file(path)
    except OSError:
        return None
    with file:
        low, high = 0, path.stat().st_size
        while high - low > _NEAR_BYTES:
            middle = (low + high) // 2
            file.seek(middle)
            start = middle + next((length for length, _ in whole_lines(file)), 0)  # behind the rest of a line
            file.seek(start)
            reached, event = next(((at, e) for at, e in _events(file, start) if e is not None), (high, None))
            if event is None or reached >= high or event.global_step > step:
                high = middle
            else:
                low = reached
        file.seek(low)
        found = None
        for _, event in _events(file, low):
            if event is not None and event.global_step > step:
                break
            found = event or found
    return found


def _events(file: BinaryIO, offset: int) -> Iterator[tuple[int, Event | None]]:
    """(where it begins, event or None) of each complete line."""
    for length, line in whole_lines(file):
        event = parse_line(line, kinds=()) if line is not None else None
        yield offset, event if isinstance(event, Event) else None
        offset += length


def _by_progress(log: Path, step: int, offsets: Mapping[str, int]) -> int | None:
    """Behind the last progress line up to a step; None if there is none. For output without positions."""
    end, offset, known = 0, 0, False
    with open_file(log) as file:
        while line := file.readline(_NEAR_BYTES):
            offset += len(line)
            match = _PROGRESS.match(line)
            stage = match[1].decode(errors="replace") if match else ""
            if match and stage in offsets:
                known = True
                if offsets[stage] + int(match[2]) > step:
                    return end
                end = offset
    return log.stat().st_size if known else None


def _by_time(log: Path, time: float) -> int | None:
    """Before the first line that carries a later time; None if no line carries one."""
    offset, known = 0, False
    with open_file(log) as file:
        while line := file.readline(_NEAR_BYTES):
            match = _TIME.match(line)
            told = _seconds(match[1].decode()) if match else None
            known = known or told is not None
            if told is not None and told > time:
                return offset
            offset += len(line)
    return offset if known else None


def _seconds(text: str) -> float | None:
    """Unix seconds of a time that a line begins with; one without a zone is of this machine's."""
    try:
        return datetime.fromisoformat(text.replace(",", ".")).timestamp()
    except (ValueError, OverflowError):
        return None


def printed_until(home: Home, run_id: str, step: int, lines: int) -> tuple[list[str], str]:
    """The last lines of the output as it was at a step, and how the step was found, for the command line.

    Raises:
        NotFoundError: there is no such run, or nothing had been printed.
    """
    found = read_output(home, run_id, step, SCANNED_BYTES)
    if not found.lines:
        raise NotFoundError(f"run {run_id} had printed nothing by step {step}", f"see why with: mmtui show {run_id}")
    return [text for text, _ in found.lines[-lines:]] if lines else [], found.note
