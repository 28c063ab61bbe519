"""Follow the event file of a trainer that is not in the queue: any program that writes docs/events.md's format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.events import attempt_folder, attempt_numbers, read_events
from mmtui.domain.eventline import accept
from mmtui.domain.text import number
from mmtui.errors import NotFoundError


def follow(path: Path, poll: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[dict[str, Any]]:
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
        for reached, line in read_events(file, offset):
            offset = reached
            event = accept(line) if line is not None else None
            if event is not None:
                yield event
        sleep(poll)


def _event_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [attempt_folder(path, number) / "events.jsonl" for number in reversed(attempt_numbers(path))]
    return next((file for file in files if file.is_file()), path / "events.jsonl")


def describe(event: dict[str, Any]) -> str:
    """One line for a person; "" for an event that is not worth one."""
    kind, values = event["kind"], event["values"]
    where = f"{event['stage']} {event['step']}".strip() if event["stage"] else ""
    if kind == "metrics":
        text = "  ".join(
            f"{name} {number(value)}"
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )
    elif kind in ("error", "warning"):
        text = f"{kind}: {values.get('text', '')}"
    elif kind == "stage_started":
        text = f"begins, {values.get('total_steps', '?')} steps"
    elif kind == "data_cache":
        done = "read from" if values.get("found") else "decoded into"
        text = f"{values.get('label', '')} images, {values.get('bytes', '?')} bytes, {done} {values.get('folder', '?')}"
    elif kind == "weights":
        text = f"weights of {values.get('file', '?')}: {values.get('loaded', '?')} keys loaded"
    elif kind == "progress":
        text = f"{values.get('text', '')} {values.get('done', '')}/{values.get('total', '')}"
    else:
        return ""
    return f"{where}  {text}".strip()
