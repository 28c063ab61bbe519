"""From an event file to rows: read complete lines behind the stored offset, store them with the new one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from engine.events.lines import LONGEST_LINE
from engine.events.reader import NO_EVENT, Event, parse_line
from mmtui.errors import UnreachableError
from mmtui.services.plain_files import open_file
from mmtui.store.db import Database
from mmtui.store.ingest import Batch, ingest

BATCH_BYTES = 4 * 1024 * 1024
NOT_STORED = "it cannot be stored"
TOO_LONG = f"it is longer than {LONGEST_LINE // 2**20} MiB"

logger = logging.getLogger(__name__)


def ingest_file(
    database: Database, path: Path, run_id: int, number: int, offset: int, most: int = 0, lines: int = 0
) -> int:
    """Bring the database up to what an attempt's event file holds; returns the byte offset reached.

    A line that cannot be stored is counted and skipped: whatever a trainer writes, it holds up neither its own
    run nor the others.

    Args:
        offset: what the attempt's row says has been read.
        most: about so many bytes, then it is another run's turn; 0 = all there are.
        lines: at most so many, in one transaction, then the same; 0 = as ``most`` says.

    Raises:
        UnreachableError: the database cannot be written; nothing is lost, the same lines are read again.
        OSError: the file cannot be read.
    """
    end = offset + most if most else None
    while (end is None or offset < end) and (batch := read_batch(path, offset, lines)) is not None:
        try:
            with database.write() as session:
                ingest(session, run_id, number, batch)
            offset = batch.offset
        except UnreachableError:
            raise
        except Exception:
            logger.exception("run %d: a batch at byte %d of %s cannot be stored", run_id, offset, path)
            offset = _line_by_line(database, path, run_id, number, offset, batch.offset)
        if lines:
            break
    return offset


def is_all_read(path: Path, offset: int) -> bool:
    """Whether an event file holds no complete line behind the byte ``offset``."""
    try:
        if path.stat().st_size <= offset:
            return True
    except FileNotFoundError:
        return True
    return read_batch(path, offset, lines=1) is None


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
                ingest(session, run_id, number, Batch((), line.offset, ((offset, NOT_STORED),), str(path)))
        offset = line.offset
    return offset


def read_batch(path: Path, offset: int, lines: int = 0) -> Batch | None:
    """Complete lines behind byte ``offset``, at most some 4 MiB of them; None if there is nothing new.

    A line that is too long is told once, and passed over as it grows: an offset that does not stand behind a newline
    is within such a line.

    Args:
        lines: at most so many; 0 = as many as there are.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        return None
    with file:
        descriptor = file.fileno()
        if offset and os.pread(descriptor, 1, offset - 1) not in (b"\n", b""):
            return _rest_of_a_line(descriptor, offset, str(path))
        chunk = _chunk(descriptor, offset)
    end = chunk.rfind(b"\n")
    if end < 0:
        too_long = len(chunk) > LONGEST_LINE
        return Batch((), offset + len(chunk), ((offset, TOO_LONG),), str(path)) if too_long else None
    return _parse(_split(chunk[: end + 1])[: lines or None], offset, str(path))


def _chunk(descriptor: int, offset: int) -> bytes:
    """A batch of bytes; more where the first line is longer, up to what makes it too long."""
    chunk = os.pread(descriptor, BATCH_BYTES, offset)
    while BATCH_BYTES <= len(chunk) <= LONGEST_LINE and b"\n" not in chunk[-BATCH_BYTES:]:
        more = os.pread(descriptor, min(BATCH_BYTES, LONGEST_LINE + 1 - len(chunk)), offset + len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _rest_of_a_line(descriptor: int, offset: int, file: str) -> Batch | None:
    """What is there of a line that is passed over."""
    chunk = os.pread(descriptor, BATCH_BYTES, offset)
    newline = chunk.find(b"\n")
    end = newline + 1 if newline >= 0 else len(chunk)
    return Batch((), offset + end, (), file) if end else None


def _parse(lines: list[bytes], offset: int, file: str) -> Batch:
    events, corrupt, left_out = [], [], []
    for line in lines:
        event = parse_line(line) if len(line) <= LONGEST_LINE else NO_EVENT
        if isinstance(event, Event):
            events.append(event)
            if words := event.left_out():
                left_out.append((offset, words))
        else:
            corrupt.append((offset, event))
        offset += len(line)
    return Batch(events, offset, corrupt, file, left_out)


def _split(chunk: bytes) -> list[bytes]:
    """Lines by newline alone; ``splitlines`` would also end one at a carriage return."""
    return [line + b"\n" for line in chunk.split(b"\n")[:-1]]
