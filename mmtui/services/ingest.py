"""From an event file to rows: read complete lines behind the stored offset, store them with the new one."""

from __future__ import annotations

import os
from pathlib import Path

from engine.events import parse_line
from mmtui.store.ingest import Batch

BATCH_BYTES = 4 * 1024 * 1024


def read_batch(path: Path, offset: int) -> Batch | None:
    """Complete lines behind byte ``offset``, at most some 4 MiB of them; None if there is nothing new."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        chunk = os.pread(descriptor, BATCH_BYTES, offset)
        end = chunk.rfind(b"\n")
        while end < 0 and len(chunk) >= BATCH_BYTES:
            # One line longer than the batch: read on until it ends.
            more = os.pread(descriptor, BATCH_BYTES, offset + len(chunk))
            if not more:
                return None
            chunk += more
            end = chunk.rfind(b"\n")
    finally:
        os.close(descriptor)
    if end < 0:
        return None
    return _parse(chunk[: end + 1], offset, str(path))


def _parse(chunk: bytes, offset: int, file: str) -> Batch:
    events, corrupt = [], []
    for line in _split(chunk):
        event = parse_line(line)
        if event is None:
            corrupt.append(offset)
        else:
            events.append(event)
        offset += len(line)
    return Batch(events, offset, corrupt, file)


def _split(chunk: bytes) -> list[bytes]:
    """Lines by newline alone; ``splitlines`` would also end one at a carriage return."""
    return [line + b"\n" for line in chunk.split(b"\n")[:-1]]
