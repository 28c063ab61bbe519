"""Follow the event file of a trainer that is not in the queue: any program that writes docs/events.md's format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.events import Event, attempt_folder, attempt_numbers, read_events, records
from mmtui.domain.text import number
from mmtui.errors import NotFoundError


def follow(path: Path, poll: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[Event]:
    """Events of a file, or of the newest attempt of a run directory, as they are written; it never ends by itself.

    Args:
        path: an events.jsonl, or a run directory with attempts/NNN/events.jsonl or its own events.jsonl.
        poll: seconds between two looks.

    Raises:
        NotFoundError: there is no event file.
    """
    file = _event_file(path)
    if not file.is_file():
        raise NotFoundError(f"{file} is no event file", "give a run directory or an events.jsonl")
    offset = 0
    while True:
        current = _event_file(path)
        if current != file or current.stat().st_size < offset:
            # A new attempt, or the file was begun again.
            file, offset = current, 0
        for reached, event in read_events(file, offset):
            offset = reached
            if event is not None:
                yield event
        sleep(poll)


def _event_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [attempt_folder(path, number) / "events.jsonl" for number in reversed(attempt_numbers(path))]
    return next((file for file in files if file.is_file()), path / "events.jsonl")


def describe(event: Event) -> str:
    """One line for a person; "" for an event that is not worth one."""
    text = _described(event.record)
    where = f"{event.stage} {event.step}" if event.stage else ""
    return "" if text is None else f"{where}  {text}".strip()


def _described(told: records.Record) -> str | None:
    match told:
        case records.Metrics():
            return "  ".join(f"{name} {number(value)}" for name, value in told.numbers.items())
        case records.Error() | records.Warning():
            return f"{told.KIND}: {told.text or ''}"
        case records.StageStarted():
            return f"begins, {_or(told.total_steps)} steps"
        case records.DataCache():
            done = "read from" if told.found else "decoded into"
            return f"{told.label or ''} images, {_or(told.bytes)} bytes, {done} {_or(told.folder)}"
        case records.Weights():
            return f"weights of {_or(told.file)}: {_or(told.loaded)} keys loaded"
        case records.Progress():
            return f"{told.text or ''} {_or(told.done, '')}/{_or(told.total, '')}"
    return None


def _or(value: object, unknown: str = "?") -> str:
    return unknown if value is None else str(value)
