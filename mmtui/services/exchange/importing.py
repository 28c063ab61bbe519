"""Runs that another trainer logged: an event file in this program's format, or TensorBoard's.

Nothing of an import is to be seen before all of it is here (``mmtui.services.unfinished``).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.json_types import JsonObject
from mmtui.domain.states import RunEvent
from mmtui.errors import MmtuiError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import run_history, unfinished
from mmtui.services.exchange import eventfile, tensorboard_reader
from mmtui.services.exchange.counting import counted
from mmtui.services.exchange.tensorboard_reader import LoggedRun, Scalars
from mmtui.services.ingest import BATCH_BYTES, ingest_file
from mmtui.services.run_folders import LOGGED, highest_folder, write_manifest
from mmtui.services.text_limits import check_lengths, fitting
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, add_attempt, insert_run, read_attempt, transition
from mmtui.store.session import reading

LINES_AT_ONCE = 10_000
_FAILED = ("failed", "crashed")

Progress = Callable[[int, int], None]
"""Called with how much of the work is done, and how much there is in all, in bytes of the source read and stored."""


@dataclass(slots=True)
class Imported:
    """A run that was taken in, with sentences about what of its source was left out or changed."""

    run_id: str
    name: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imports:
    """What an import has brought: runs, and sentences about folders that held nothing to import."""

    runs: list[Imported]
    empty: list[str]


@dataclass(frozen=True, slots=True)
class _Source:
    """One run to be: its name and the size of its files. ``lines`` reads them, calling back with bytes read."""

    name: str
    size: int
    lines: Callable[[list[str], Callable[[int], None]], Iterator[bytes]]
    """(notes to add to, progress) -> lines of an event file; none where it holds nothing to import."""


def _untold(_done: int, _total: int) -> None:
    """Nobody looks on."""


def take_in(home: Home, source: Path, name: str = "", progress: Progress = _untold) -> Imports:
    """Make finished runs of what another trainer logged: all of them, or none.

    An event file is one run. Of TensorBoard each folder with event files is one, called ``FOLDER/train`` and the like,
    and several are a group. A run whose own events say that it failed is a failed one, any other has succeeded.

    Args:
        name: instead of the file's or the folder's.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it holds nothing that could be imported.
        RefusedError: it holds more than one import takes.
        UnreachableError: it cannot be read or stored.
    """
    check_lengths("name", [name])
    sources = _sources(source, name)
    group = fitting("group", name or source.name) if len(sources) > 1 else ""
    home.create()
    database = Database(home)
    try:
        unfinished.remove_abandoned(database, home)
        return _Import(database, home, source, group, progress).all_of(sources)
    except OSError as error:
        raise UnreachableError(f"{error.filename or source}: {error.strerror or error}") from None
    finally:
        database.close()


def _sources(source: Path, name: str) -> list[_Source]:
    if source.suffix == ".jsonl":
        eventfile.check(source)
        return [_Source(name or source.parent.name, source.stat().st_size, _of_event_file(source))]
    found = tensorboard_reader.find(source)
    sizes = [sum(file.stat().st_size for file in run.files) for run in found]
    above = source.name if source.is_dir() else found[0].name
    named = [(name or above) + run.name.removeprefix(above) for run in found]
    links = tensorboard_reader.linked_folders(source)
    return [
        _Source(*item, _of_tensorboard(run, () if index else links))
        for index, (item, run) in enumerate(zip(zip(named, sizes, strict=True), found, strict=True))
    ]


def _of_event_file(source: Path) -> Callable[[list[str], Callable[[int], None]], Iterator[bytes]]:
    def lines(notes: list[str], progress: Callable[[int], None]) -> Iterator[bytes]:
        filler = eventfile.StepFiller()
        yield from eventfile.lines(source, filler, progress)
        notes += filler.notes()

    return lines


def _of_tensorboard(
    run: LoggedRun, passed_over: Sequence[Path]
) -> Callable[[list[str], Callable[[int], None]], Iterator[bytes]]:
    def lines(notes: list[str], progress: Callable[[int], None]) -> Iterator[bytes]:
        if passed_over:
            links = counted(len(passed_over), "linked folder")
            notes.append(f"left out: {links}, such as {passed_over[0]}: import what it leads to by its own path")
        scalars = tensorboard_reader.read(run, progress)
        notes += scalars.notes
        yield from _event_lines(scalars, notes)

    return lines


def _event_lines(scalars: Scalars, notes: list[str]) -> Iterator[bytes]:
    """The scalars as event lines, in the order of their times. A value that is no finite number is null there."""
    infinite = 0
    for seq, point in enumerate(scalars.points, 1):
        infinite += math.isinf(point.value)
        event: JsonObject = {"v": 1, "seq": seq, "t": point.time, "kind": "metrics", "stage": LOGGED}
        event |= {"step": point.step, "global_step": point.step}
        event["values"] = {point.tag: point.value if math.isfinite(point.value) else None}
        yield json.dumps(event).encode() + b"\n"
    if infinite:
        notes.append(eventfile.INFINITE.format(counted(infinite, "infinite value")))


class _Import:
    """One import on its way."""

    def __init__(self, database: Database, home: Home, source: Path, group: str, progress: Progress) -> None:
        self.database, self.home, self.source, self.group = database, home, source, group
        self.progress = progress
        self.done, self.total = 0, 0
        self.begun: list[int] = []
        """Runs that have rows."""

    def all_of(self, sources: list[_Source]) -> Imports:
        """Take in every source, and show the runs when all are here."""
        self.total = 2 * sum(source.size for source in sources)  # read, then stored
        complete: list[Imported] = []
        empty: list[str] = []
        try:
            for source in sources:
                notes: list[str] = []
                imported = self._one(source, notes)
                if imported is None:
                    empty.append(f"{source.name} has no scalars" + "".join(f"; {note}" for note in notes))
                else:
                    complete.append(imported)
            if not complete:
                raise UsageError(f"{self.source} has no scalars that can be read", "\n  ".join(empty[:5]))
            self._show([int(run.run_id) for run in complete])
        except BaseException:
            with suppress(MmtuiError):  # of a full disk, say: the next import removes what is left
                for run_id in self.begun:
                    unfinished.remove(self.database, self.home, run_id)
            raise
        return Imports(complete, empty)

    def _one(self, source: _Source, notes: list[str]) -> Imported | None:
        """Take in one source; its run lies in the trash. None if it holds nothing."""
        lines = source.lines(notes, self._advance)
        first = next(lines, None)
        if first is None:
            self._advance(source.size)
            return None
        new = self._new(fitting("name", source.name))
        run_id = self._insert(new)
        paths = self.home.run(str(run_id))
        file = paths.events(1)
        file.parent.mkdir(parents=True, mode=0o700)
        write_manifest(paths, str(run_id), new)
        _write(file, first, lines)
        self._store(run_id, file, source.size)
        if not self._holds_something(run_id):
            notes += run_history.line_warnings(self.home, str(run_id))
            unfinished.remove(self.database, self.home, run_id)
            self.begun.remove(run_id)
            return None
        notes += run_history.line_warnings(self.home, str(run_id))
        return Imported(str(run_id), source.name, notes)

    def _holds_something(self, run_id: int) -> bool:
        """Whether a single event of the source could be read."""
        with reading(self.home) as reader:
            return reader.has_events(run_id)

    def _new(self, name: str) -> NewRun:
        return NewRun(name, LOGGED, 0, {}, (), {}, [(LOGGED, 0)], ("imported",), self.group, held=True)

    def _insert(self, new: NewRun) -> int:
        with self.database.write(durable=True) as session:
            run_id = insert_run(session, new, above=highest_folder(self.home))
            unfinished.hide(session, run_id, unfinished.IMPORT)
            add_attempt(session, run_id, 1, began=None, ended=None, host="")
        self.begun.append(run_id)
        return run_id

    def _store(self, run_id: int, file: Path, size: int) -> None:
        """Bring the database up to what the file holds."""
        length = max(file.stat().st_size, 1)
        offset, told = 0, 0
        while (reached := ingest_file(self.database, file, run_id, 1, offset, most=BATCH_BYTES)) > offset:
            offset = reached
            self._advance(size * offset // length - told)
            told = size * offset // length

    def _show(self, run_ids: list[int]) -> None:
        """Give the runs the state in which they ended, and take them out of the trash."""
        with self.database.write(durable=True) as session:
            for run_id in run_ids:
                unfinished.show(session, run_id)
                failed = read_attempt(session, run_id, 1).outcome in _FAILED
                transition(session, run_id, RunEvent.RELEASE)
                transition(session, run_id, RunEvent.START)
                end = RunEvent.EXIT_ERROR if failed else RunEvent.EXIT_OK
                transition(session, run_id, end, reason=f"imported from {self.source}")

    def _advance(self, count: int) -> None:
        self.done += count
        self.progress(min(self.done, self.total), self.total)


def _write(file: Path, first: bytes, lines: Iterator[bytes]) -> None:
    """Write a private file whole, onto the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(first)
        stream.writelines(lines)
        stream.flush()
        os.fsync(descriptor)
