"""The event file: one JSON object a line, schema version 1 (docs/events.md). No torch in here.

The writer is the trainer, alone; readers are a supervisor and anybody who wants to look.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

VERSION = 1
KINDS = frozenset(
    {
        "run_started",
        "stage_started",
        "stage_data",
        "weights",
        "class_weights",
        "progress",
        "metrics",
        "graph",
        "confusion",
        "image",
        "projection",
        "checkpoint",
        "best",
        "early_stop",
        "warning",
        "supervision",
        "heartbeat",
        "stage_finished",
        "stage_reused",
        "data",
        "data_cache",
        "probe",
        "error",
        "run_finished",
    }
)
SUPERVISION = "supervision"
"""What a ``warning`` is about that makes the score doubtful; it is shown beside the score."""
LONGEST_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is written and read, its newline counted: a longer one is no event."""
LARGEST_STEP = 2**53
"""Largest ``seq``, ``step`` and ``global_step``: every reader, JavaScript's among them, holds such a number exactly."""
_BLOCK_BYTES = 1 << 16
OUTPUT = "output.log"
"""What a trainer prints goes into this file beside its events, where somebody has wired it so."""


def finite(value: Any) -> Any:
    """The value with every NaN and infinity, however deep, replaced by None: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def attempt_folder(run_dir: Path, number: int) -> Path:
    """Folder of attempt ``number`` (1, 2, ...) of a run."""
    return run_dir / "attempts" / f"{number:03d}"


def attempt_numbers(run_dir: Path) -> list[int]:
    """Numbers of all attempts of a run that have a folder, ascending. One called 0001, or in other digits, is none."""
    folder = run_dir / "attempts"
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if re.fullmatch(r"[0-9]{3,18}", entry.name))
    return sorted(int(name) for name in names if attempt_folder(run_dir, int(name)).name == name)


def last_seq(path: Path) -> int:
    """``seq`` of the last complete line that can be read, 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        for line in _lines_from_the_end(file):
            try:
                seq = json.loads(line)["seq"]
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                continue
            if type(seq) is int and 0 <= seq <= LARGEST_STEP:
                return seq
    return 0


def cut_torn_line(path: Path) -> int:
    """Remove what stands behind the last newline: a line that was not written whole. Returns bytes removed."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size, keep = file.seek(0, os.SEEK_END), _behind_the_last_newline(file)
        if keep < size:
            file.truncate(keep)
        return size - keep


def _behind_the_last_newline(file: BinaryIO) -> int:
    for start, block in _blocks_from_the_end(file, file.seek(0, os.SEEK_END)):
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0


def _lines_from_the_end(file: BinaryIO) -> Iterator[bytes]:
    """Complete lines without their newline, the last one first; those that are too long are left out."""
    end = _behind_the_last_newline(file)
    if not end:
        return
    pieces: list[bytes] = []
    length = 0
    for _, block in _blocks_from_the_end(file, end - 1):
        for number, piece in enumerate(reversed(block.split(b"\n"))):
            if number:
                # A newline stands before what was gathered: that is a whole line.
                if length < LONGEST_LINE:
                    yield b"".join(reversed(pieces))
                pieces, length = [], 0
            length += len(piece)
            pieces = [*pieces, piece] if length < LONGEST_LINE else []
    if length < LONGEST_LINE:
        yield b"".join(reversed(pieces))


def _blocks_from_the_end(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """(where it begins, bytes) of the blocks before ``end``, the last one first."""
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        yield start, file.read(end - start)
        end = start


def output_descriptor(folder: Path) -> int | None:
    """Descriptor (1 or 2) by which this process prints into the attempt's output file, None if it prints elsewhere."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), (folder / OUTPUT).stat()):
                return descriptor
        except OSError:
            continue
    return None


class EventWriter:
    """Appends events of one attempt. Safe to use from several threads.

    Where what this process prints goes into ``output.log`` beside the events, every event tells how many bytes that
    file held: so the output can be shown as it was at any step.

    Args:
        path: the attempt's events.jsonl; made if absent, a torn last line is cut off.
        first_seq: sequence number of the next event (see ``open_for_attempt``).
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path, first_seq: int = 1, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        self.path = path
        self._clock = clock
        self._seq = first_seq
        self._lock = threading.Lock()
        self._stage, self._step, self._global_step = "", 0, 0
        self._last_written = 0.0
        self._output = output_descriptor(path.parent)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def open_for_attempt(cls, run_dir: Path, attempt: int, clock: Callable[[], float] = time.time) -> EventWriter:
        """Open attempt ``attempt``; ``seq`` goes on after the last event of this and all earlier attempts."""
        numbers = [n for n in attempt_numbers(run_dir) if n <= attempt]
        seq = max((last_seq(attempt_folder(run_dir, n) / "events.jsonl") for n in numbers), default=0)
        return cls(attempt_folder(run_dir, attempt) / "events.jsonl", seq + 1, clock)

    def at(self, stage: str, step: int, global_step: int) -> None:
        """Where the run is now; later events carry it."""
        with self._lock:
            self._stage, self._step, self._global_step = stage, step, global_step

    @property
    def stage(self) -> str:
        """The stage the run is in, "" outside one."""
        return self._stage

    @property
    def step(self) -> int:
        """Finished steps of the stage."""
        return self._step

    @property
    def moment(self) -> str:
        """Stage and finished steps, as part of file names: ``segment_00000200``."""
        return f"{self._stage or 'run'}_{self._step:08d}"

    def emit(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one event; one that is longer than readers take becomes a warning that names it.

        Raises:
            OSError: the disk does not take the whole line.
        """
        with self._lock:
            event = {
                "v": VERSION,
                "seq": self._seq,
                "t": round(self._clock(), 3),
                "kind": kind,
                "stage": self._stage,
                "step": self._step,
                "global_step": self._global_step,
                **self._printed(),
                "values": finite(values),
            }
            self._write(_encoded(event))
            self._seq += 1
            self._last_written = time.monotonic()

    def _printed(self) -> dict[str, int]:
        return {} if self._output is None else {"printed": os.fstat(self._output).st_size}

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if written != len(line):
            # A full disk takes part of a line: take it back, so that the file never holds a torn line in the middle.
            size = os.fstat(self._file).st_size
            os.ftruncate(self._file, size - written)
            raise OSError(errno.ENOSPC, "no space left on device", str(self.path))

    def quiet_seconds(self) -> float:
        """Seconds since the last event."""
        return time.monotonic() - self._last_written

    def close(self) -> None:
        """Close the file; events after that raise."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SilentWriter(EventWriter):
    """Writes nothing: what the processes beside rank 0 of a distributed run report to."""

    def __init__(self) -> None:
        self.path = Path(os.devnull)
        self._lock = threading.Lock()
        self._stage, self._step, self._global_step = "", 0, 0
        self._last_written = 0.0
        self._file = -1

    def emit(self, kind: str, values: Mapping[str, Any]) -> None:
        """Nothing happens."""


class Heartbeat:
    """A thread that writes ``heartbeat`` events while nothing else is written.

    Args:
        writer: where to.
        interval: seconds of silence after which one is written.
    """

    def __init__(self, writer: EventWriter, interval: float = 5.0) -> None:
        self._writer, self._interval = writer, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval / 2):
            if self._writer.quiet_seconds() >= self._interval:
                try:
                    self._writer.emit("heartbeat", {"rss": resident_bytes()})
                except OSError:
                    # The disk is full; the training thread meets the same error and reports it.
                    return


def resident_bytes() -> int | None:
    """Memory of this process, bytes; None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _encoded(event: Mapping[str, Any]) -> bytes:
    """The line of an event."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8: as JSON's own escapes they can be read, and told apart.
    line = text.encode(errors="backslashreplace") + b"\n"
    if len(line) <= LONGEST_LINE:
        return line
    left_out = f"an event '{event['kind']}' of {len(line) / 2**20:.0f} MiB was left out: a line has at most 16 MiB"
    return _encoded({**event, "kind": "warning", "values": {"text": left_out}})


def whole_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Complete lines from where a file stands: (bytes of the line, the line or None where it is too long)."""
    while line := file.readline(LONGEST_LINE):
        length, fits = len(line), line.endswith(b"\n")
        whole = line if fits else None
        while not fits:
            line = file.readline(_BLOCK_BYTES)
            if not line:
                return
            length, fits = length + len(line), line.endswith(b"\n")
        yield length, whole


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Complete lines from byte ``offset``: (offset behind the line, event or None where it cannot be read)."""
    with path.open("rb") as file:
        file.seek(offset)
        for length, line in whole_lines(file):
            offset += length
            yield offset, parse_line(line) if line is not None else None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The event of one line, None if it is not one: no JSON object, or without seq, kind and a number t."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    if type(event.get("seq")) is not int or type(event.get("t")) not in (int, float):
        return None
    return event
