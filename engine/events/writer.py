"""The writer of an event file: the trainer, alone."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.events import lines
from engine.events.layout import attempt_folder, attempt_numbers, output_descriptor
from engine.events.lines import cut_torn_line, last_seq
from engine.json_types import Json, JsonObject

VERSION = 1
"""Of the schema (docs/events.md)."""


def finite_values(values: Mapping[str, object]) -> JsonObject:
    """The values with every NaN and infinity, however deep, replaced by None: JSON has neither.

    Raises:
        TypeError: JSON has no form for one of them.
    """
    return {str(name): _finite(value) for name, value in values.items()}


def _finite(value: object) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} is no value of JSON")


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

    def emit(self, kind: str, values: Mapping[str, object]) -> None:
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
                "values": finite_values(values),
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

    def emit(self, kind: str, values: Mapping[str, object]) -> None:
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


def _encoded(event: Mapping[str, object]) -> bytes:
    """The line of an event."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8: as JSON's own escapes they can be read, and told apart.
    line = text.encode(errors="backslashreplace") + b"\n"
    if len(line) <= lines.LONGEST_LINE:
        return line
    left_out = f"an event '{event['kind']}' of {len(line) / 2**20:.0f} MiB was left out: a line has at most 16 MiB"
    return _encoded({**event, "kind": "warning", "values": {"text": left_out}})
