"""From an event file to rows: read complete lines behind the stored offset, store them with the new one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from engine.events import parse_line
from mmtui.domain.eventline import accept
from mmtui.errors import UnreachableError
from mmtui.store.db import Database
from mmtui.store.ingest import Batch, ingest

BATCH_BYTES = 4 * 1024 * 1024

logger = logging.getLogger(__name__)


def ingest_file(database: Database, path: Path, run_id: int, number: int, offset: int) -> int:
    """Bring the database up to what an attempt's event file holds; returns the byte offset reached.

    A line that cannot be stored is counted and skipped: whatever a trainer writes, it holds up neither its own
    run nor the others.

    Args:
        offset: what the attempt's row says has been read.

    Raises:
        UnreachableError: the database cannot be written; nothing is lost, the same lines are read again.
    """
    while (batch := read_batch(path, offset)) is not None:
        try:
            with database.write() as session:
                ingest(session, run_id, number, batch)
            offset = batch.offset
        except UnreachableError:
            raise
        except Exception:
            logger.exception("run %d: a batch at byte %d of %s cannot be stored", run_id, offset, path)
            offset = _line_by_line(database, path, run_id, number, offset, batch.offset)
    return offset


def _line_by_line(database: Database, path: Path, run_id: int, number: int, offset: int, end: int) -> int:
    """Store what can be stored of a batch that failed as a whole."""
    while offset < end and (line := read_batch(path, offset, lines=1)) is not None:
        try:
            with database.write() as session:
                ingest(session, run_id, number, line)
        except UnreachableError:
            raise
        except Exception:
            with database.write() as session:
                ingest(session, run_id, number, Batch((), line.offset, (offset,), str(path)))
        offset = line.offset
    return offset


def read_batch(path: Path, offset: int, lines: int = 0) -> Batch | None:
    """Complete lines behind byte ``offset``, at most some 4 MiB of them; None if there is nothing new.

    Args:
        lines: at most so many; 0 = as many as there are.
    """
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
    return _parse(_split(chunk[: end + 1])[: lines or None], offset, str(path))


def _parse(lines: list[bytes], offset: int, file: str) -> Batch:
    events, corrupt = [], []
    for line in lines:
        parsed = parse_line(line)
        event = accept(parsed) if parsed is not None else None
        if event is None:
            corrupt.append(offset)
        else:
            events.append(event)
        offset += len(line)
    return Batch(events, offset, corrupt, file)


def _split(chunk: bytes) -> list[bytes]:
    """Lines by newline alone; ``splitlines`` would also end one at a carriage return."""
    return [line + b"\n" for line in chunk.split(b"\n")[:-1]]
