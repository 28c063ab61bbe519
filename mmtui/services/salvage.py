"""What only a damaged database tells: notes, tags, and what else a person has set by hand after queueing.

Folders of runs hold everything that trainers write, and what a run was queued with. The rest is read from the file that
was kept, one row and, if need be, one cell at a time: a bad page hides nothing that lies on others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from engine.events.numbers import LARGEST_INTEGER
from engine.json_types import Json
from mmtui.paths import Home
from mmtui.services.text_limits import fitting
from mmtui.store import cells, damaged_file
from mmtui.store.damaged_file import DamagedFile, UnreadableError
from mmtui.store.db import Database
from mmtui.store.queries import known
from mmtui.store.session import reading

_FEW = 10
_IF_FAILED = ("hold", "cancel", "run")
Cell: TypeAlias = "str | int | float"
"""A cell that is what it should be."""
_WORDS = "notes, tags and what else was set by hand"


@dataclass
class Salvaged:
    """What could be read of a kept file.

    Attributes:
        runs: {run: {column: cell}}, of runs that the file knows.
        unread: runs of which at least one cell cannot be read.
        settings: rows of the table of settings.
        settings_read: whether these are all that there were.
    """

    runs: dict[int, dict[str, Cell]] = field(default_factory=dict)
    unread: set[int] = field(default_factory=set)
    settings: dict[str, str] = field(default_factory=dict)
    settings_read: bool = True


def take_over(home: Home, kept: str, made: Collection[str] | None = None) -> Iterator[str]:
    """Give runs back what the kept file says of them; yields what became of it, in sentences.

    Args:
        kept: name of the file in the data directory.
        made: only these runs, and no settings: the database as it is now was chosen by a person. None: all of them.
    """
    with reading(home) as reader:
        names = known.names(reader)
    if made is not None:
        names = {run_id: name for run_id, name in names.items() if str(run_id) in made}
    if made is not None and not names:
        return
    found = read(home.root / kept, names)
    changed = _write(home, found, with_settings=made is None)
    yield from _told(found, changed, kept, with_settings=made is None)


def _told(found: Salvaged, changed: int, kept: str, *, with_settings: bool) -> Iterator[str]:
    if changed:
        yield f"{_WORDS}: {_runs(changed)} got them back"
    elif not found.unread:
        yield f"{_WORDS}: no run had any that are not there"
    if found.unread:
        ids = sorted(found.unread)
        shown = ", ".join(map(str, ids[:_FEW])) + (", ..." if len(ids) > _FEW else "")
        yield f"{_WORDS} cannot be read, or not all, of {_runs(len(ids))} ({shown}); the file is kept as {kept}"
    if with_settings and found.settings:
        yield f"settings of the queue are back: {', '.join(sorted(found.settings))}"
    if with_settings and not found.settings_read:
        rules = "limits and budgets of groups, and whether the queue is closed"
        yield f"{rules}, cannot all be read: set them again; the file is kept as {kept}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def read(file: Path, names: Mapping[int, str]) -> Salvaged:
    """What a damaged file tells of runs, and its settings. Whatever is wrong with it, nothing is raised.

    Args:
        names: {run: its name}; a row with another name is damaged, or another run's.
    """
    found = Salvaged()
    try:
        with damaged_file.opened(file) as kept:
            columns = kept.columns()
            for run_id, name in names.items():
                _read_run(kept, run_id, name, columns, found)
            _read_settings(kept, found)
    except (UnreadableError, OSError, ValueError):
        found.unread |= names.keys() - found.runs.keys()
        found.settings_read = False
    return found


def _read_run(kept: DamagedFile, run_id: int, name: str, columns: Collection[str], found: Salvaged) -> None:
    """The cells of one run, each that can be read and is what it should be."""
    try:
        stored = kept.run(run_id, ["name", *(column for column in _CELLS if column in columns)])
    except UnreadableError:
        found.unread.add(run_id)
        return
    if stored is None:
        return  # a run that it never knew
    if _decoded(stored.get("name")) != name:
        found.unread.add(run_id)
        return
    read = found.runs[run_id] = {}
    for column, check in _CELLS.items():
        try:
            read[column] = check(stored[column], run_id)
        except (KeyError, ValueError, TypeError):
            found.unread.add(run_id)


def _read_settings(kept: DamagedFile, found: Salvaged) -> None:
    """From both ends: what lies behind a bad page is reached from the other one."""
    for backwards in (False, True):
        try:
            for key, value in kept.settings(backwards=backwards):
                name, text = _decoded(key), _decoded(value)
                if _is_setting(name or "", text or ""):
                    found.settings[name or ""] = text or ""
                elif name is None or text is None or name.partition(":")[0] in _NUMBERS:
                    found.settings_read = False
        except UnreadableError:
            found.settings_read = False


_NUMBERS = ("limit", "budget")


def _is_setting(key: str, value: str) -> bool:
    """Whether a row is one that a person has set, and says what such a row may say."""
    kind, _, group = key.partition(":")
    if kind in _NUMBERS and group:
        return cells.by_group({key: value}, kind)[group] is not None
    if kind == "failfast" and group:
        return value == "1"
    return key == "closed" and len(value) > 0 and fitting("note", value) == value


def _decoded(cell: object) -> str | None:
    """A text that is one, None where it is none."""
    try:
        return cell.decode("utf-8") if isinstance(cell, bytes) else None
    except UnicodeDecodeError:
        return None


def _text(cell: object) -> str:
    found = _decoded(cell)
    if found is None:
        raise ValueError("it is no text")
    return found


def _list(cell: object) -> list[Json]:
    found = json.loads(_text(cell))
    if not isinstance(found, list):
        raise ValueError("it is no list")
    return found


def _number(cell: object) -> float | int:
    if not isinstance(cell, int | float) or cells.number(cell) is None or abs(cell) > LARGEST_INTEGER:
        raise ValueError("it is no number")
    return cell


def _whole(cell: object) -> int:
    if not isinstance(cell, int):
        raise ValueError("it is no whole number")
    return int(_number(cell))


def _from_zero(cell: object) -> float:
    found = _number(cell)
    if found < 0:
        raise ValueError("it is below zero")
    return float(found)


def _tags(cell: object) -> str:
    return json.dumps(list(dict.fromkeys(fitting("tag", tag) for tag in _list(cell))))


def _after(cell: object, run_id: int) -> str:
    found = _list(cell)
    if not all(isinstance(other, int) and 0 < other < run_id for other in found):
        raise ValueError("it waits for no run before it")
    return json.dumps(found)


def _if_failed(cell: object) -> str:
    found = _text(cell)
    if found not in _IF_FAILED:
        raise ValueError("it is no such word")
    return found


_CELLS: dict[str, Callable[[object, int], Cell]] = {
    "note": lambda cell, _: fitting("note", _text(cell)),
    "tags": lambda cell, _: _tags(cell),
    "run_group": lambda cell, _: fitting("group", _text(cell)),
    "priority": lambda cell, _: _whole(cell),
    "position": lambda cell, _: float(_number(cell)),
    "not_before": lambda cell, _: _from_zero(cell),
    "after": _after,
    "if_failed": lambda cell, _: _if_failed(cell),
    "time_limit": lambda cell, _: _from_zero(cell),
}
"""Columns that a person sets and that no folder tells, or not as they are now; each cell as it may be stored."""


def _write(home: Home, found: Salvaged, *, with_settings: bool) -> int:
    """Put it into the database; returns how many runs it changes."""
    from mmtui.store.runs import set_setting
    from mmtui.store.tables import Run

    changed, database = 0, Database(home)
    try:
        with database.write(durable=True) as session:
            for run_id, read in found.runs.items():
                run = session.get(Run, run_id)
                if run is None:
                    continue
                new = {column: cell for column, cell in read.items() if getattr(run, column) != cell}
                for column, cell in new.items():
                    setattr(run, column, cell)
                session.add(run)
                changed += bool(new.keys() - {"position"})  # where it waits is worth no word
            for key, value in found.settings.items() if with_settings else ():
                set_setting(session, key, value)
    finally:
        database.close()
    return changed
