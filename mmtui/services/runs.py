"""What front ends ask about runs. Reads only; no SQLAlchemy is loaded."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.events.reader import Event
from mmtui.domain import filters
from mmtui.domain.states import FINAL_STATES, TOLD_FIRST, RunState
from mmtui.domain.text import printable
from mmtui.domain.views import ClassTable, GraphStats, Point, Relative, RunDetail, RunRow, Series
from mmtui.errors import NotFoundError, TimedOutError, UsageError
from mmtui.paths import Home
from mmtui.services.plain_files import open_file
from mmtui.services.unfinished import is_unfinished
from mmtui.store import cells
from mmtui.store.filters import keys_of
from mmtui.store.queries import families
from mmtui.store.queries import runs as asked
from mmtui.store.reader import Reader
from mmtui.store.session import inside, reading

LOG_TAIL_BYTES = 256 * 1024
_ID_DIGITS = 18
"""No id has more."""


def list_runs(
    home: Home,
    *,
    limit: int | None = None,
    offset: int = 0,
    states: Sequence[str] | None = None,
    newest_first: bool = True,
) -> list[RunRow]:
    """Runs by id; none where there is no database yet."""
    with reading(home) as reader:
        return reader.runs(states=states, limit=limit, offset=offset, newest_first=newest_first)


def find(
    home: Home,
    text: str = "",
    *,
    states: Sequence[str] = (),
    sort: Sequence[str] = (),
    columns: Sequence[str] = (),
    limit: int | None = None,
    offset: int = 0,
) -> tuple[list[tuple[RunRow, tuple[Any, ...]]], int]:
    """Runs that a filter lets pass with the values of chosen columns, and how many there are without the limit.

    Raises:
        UsageError: the filter, a sort key or a column is wrong.
    """
    node = filters.parse(text, time.time()) if text.strip() else None
    if states:
        only = filters.In(filters.Operand("state"), tuple(states), False)
        node = only if node is None else filters.Both("and", (node, only))
    ordered = [(filters.parse_operand(name.removeprefix("-")), name.startswith("-")) for name in sort]
    chosen = [filters.parse_operand(name) for name in columns]
    with reading(home) as reader:
        if reader.connection() is None:
            return [], 0
        wanted = [*(keys_of(node) if node else []), *(operand for operand, _ in ordered), *chosen]
        _check_keys(reader, [operand for operand in wanted if operand.kind == "key"])
        found = reader.select(node, ordered, chosen, limit, offset)
        complete = not offset and (limit is None or len(found) < limit)
        total = len(found) if complete else reader.count_where(node or filters.EVERYTHING)
    return found, total


def _check_keys(reader: Reader, operands: Sequence[filters.Operand]) -> None:
    """A name that no run's recipe has is a slip."""
    if not operands:
        return
    keys = reader.config_keys()
    for operand in operands:
        if keys and not any(key == operand.name or key.endswith(f".{operand.name}") for key in keys):
            short = [key.rpartition(".")[2] for key in keys]
            near = filters.suggestion(operand.name, [*filters.COLUMNS, *short, *keys])
            raise UsageError(
                f"column {operand.column}: no run has '{operand.name}'{near}",
                f"columns are {', '.join(filters.COLUMNS)}; of a metric say what to take: max {operand.name}",
            )


def values(home: Home, ids: Sequence[str], columns: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Values of chosen columns of some runs, by id."""
    only = filters.In(filters.Operand("id"), tuple(float(run_id) for run_id in ids), False)
    chosen = [filters.parse_operand(name) for name in columns]
    with reading(home) as reader:
        _check_keys(reader, [operand for operand in chosen if operand.kind == "key"])
        return {row.id: found for row, found in reader.select(only, [], chosen)}


@contextmanager
def sql(home: Home, text: str) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Column names of a query, and its rows as they come. It can only read; ctrl-C ends it.

    Raises:
        UsageError: the query is wrong, would do more than read, or needs too much memory.
        NotFoundError: there is no database yet.
    """
    from mmtui.store.read_only import reading as answered
    from mmtui.store.views import add_views

    with Reader(home) as reader:  # a connection of its own: it may do nothing else from here on
        connection = reader.connection()
        if connection is None:
            raise NotFoundError("there is no database yet", "queue a run first")
        add_views(connection)
        with answered(connection, text) as found:
            yield found


def queue_order(home: Home) -> list[str]:
    """Queued and held runs in the order in which they will start."""
    with reading(home) as reader:
        return [str(run_id) for run_id in reader.waiting_ids()]


def queue_settings(home: Home) -> dict[str, str]:
    """What holds for the queue as a whole: ``closed`` (why nothing starts), ``limit:GROUP``."""
    with reading(home) as reader:
        return reader.settings()


def group_limits(settings: Mapping[str, str]) -> dict[str, int | None]:
    """Most runs of a group at once, of the settings of the queue; None where the setting cannot be read."""
    return {group: None if most is None else int(most) for group, most in cells.by_group(settings, "limit").items()}


def by_ids(home: Home, ids: Sequence[str]) -> list[RunRow]:
    """Rows of these runs, in this order."""
    with reading(home) as reader:
        return reader.rows([int(run_id) for run_id in ids])


def count_runs(home: Home) -> dict[str, int]:
    """Number of runs in each state that has some: what goes on first, then what waits, then what has ended."""
    with reading(home) as reader:
        counts = reader.counts()
    return {state.value: counts[state.value] for state in TOLD_FIRST if state.value in counts}


def pinned(home: Home) -> list[str]:
    """Ids of the runs that are kept on top of the list, newest first."""
    with reading(home) as reader:
        return [str(run_id) for run_id in asked.pinned(reader)]


def resolve_all(home: Home, selectors: Iterable[str]) -> list[str]:
    """The ids that selectors mean, each once.

    Raises:
        NotFoundError: see ``resolve``.
    """
    with reading(home) as reader:
        ids = reader.ids()
        return list(dict.fromkeys(_resolved(reader, ids, selector) for selector in selectors))


def resolve(home: Home, selector: str) -> str:
    """The id a selector means: an id, ``@`` (the last run), ``@~2`` (the third last).

    Raises:
        NotFoundError: there is no such run.
    """
    with reading(home) as reader:
        return _resolved(reader, reader.ids(), selector)


def _resolved(reader: Reader, ids: Sequence[int], selector: str) -> str:
    back = re.fullmatch(r"@(?:~([0-9]+))?", selector)
    if back:
        digits = (back.group(1) or "0").lstrip("0")
        if len(digits) <= _ID_DIGITS and (steps := int(digits or 0)) < len(ids):
            return str(ids[-1 - steps])
        raise NotFoundError(f"'{selector}' goes further back than there are runs: {len(ids)}")
    if not re.fullmatch(r"[0-9]+", selector):
        raise NotFoundError(f"no run '{selector}'", "give an id, @ (the last) or @~1 (the one before it)")
    # Never the run that only begins with these digits: 1 would mean 12 as soon as run 1 is removed.
    number = selector.lstrip("0")
    if len(number) > _ID_DIGITS or not number or int(number) not in ids:
        raise _missing(reader, number or "0")
    return number


def _missing(reader: Reader, run_id: str) -> NotFoundError:
    """That there is no such run, and where it is if it was removed."""
    possible = re.fullmatch(f"[0-9]{{1,{_ID_DIGITS}}}", run_id) is not None
    removed = asked.reason_of_removed(reader, int(run_id)) if possible else None
    if removed is not None and not is_unfinished(removed):
        return NotFoundError(f"run {run_id} is in the trash", f"bring it back with: mmtui restore {run_id}")
    hint = "list them with: mmtui ls" if asked.any_there(reader) else "there are no runs yet"
    return NotFoundError(f"no run {run_id}", hint)


def get_run(home: Home, run_id: str) -> RunDetail:
    """Everything about one run.

    Raises:
        NotFoundError: there is no such run.
    """
    with reading(home) as reader:
        found = reader.run(int(run_id)) if re.fullmatch("[0-9]{1,18}", run_id) else None
        if found is None:
            raise _missing(reader, run_id)
    return found


def family(home: Home, run_id: str, most: int = 40) -> list[Relative]:
    """The runs that a run descends from, itself, and those that descend from it (at most so many), as a tree."""
    with reading(home) as reader:
        return families.family(reader, int(run_id), most)


def class_table(home: Home, run_id: str, step: int | None = None, *, until: int | None = None) -> ClassTable | None:
    """Per-class IoU of the newest evaluation (up to a global step), or of the one at a step; None before the first."""
    with reading(home) as reader:
        return reader.class_table(int(run_id), step, until)


def metric_names(home: Home, run_id: str) -> list[str]:
    """Metrics a run has logged."""
    with reading(home) as reader:
        return reader.metric_names(int(run_id))


def points(home: Home, run_id: str, metric: str, *, all_attempts: bool = False) -> list[Point]:
    """Every point of a metric; tails that a later attempt did again are left out unless asked for."""
    with reading(home) as reader:
        return list(reader.points(int(run_id), metric, all_attempts=all_attempts))


def series(
    home: Home,
    run_id: str,
    metric: str,
    *,
    max_buckets: int = 400,
    stage: str | None = None,
    within: tuple[int, int] | None = None,
) -> Series:
    """A metric reduced for drawing: min/max buckets over global steps, the same for the same points.

    Args:
        within: the first and the last global step of interest, None: all.
    """
    with reading(home) as reader:
        found, count = reader.series(int(run_id), metric, max_buckets, stage, within)
    return Series(run_id, metric, found, count)


def graph_stats(home: Home, run_id: str) -> GraphStats | None:
    """The newest graph-sampling statistics; None before the first."""
    found = graph_history(home, run_id, 1)
    return found[-1] if found else None


def graph_history(home: Home, run_id: str, limit: int = 100, *, until: int | None = None) -> list[GraphStats]:
    """The newest graph-sampling statistics (up to a global step), oldest first."""
    with reading(home) as reader:
        return reader.graphs(int(run_id), limit, until)


def events(home: Home, run_id: str, kind: str | None = None) -> list[Event]:
    """Events that are no metrics, oldest first."""
    with reading(home) as reader:
        return reader.events(int(run_id), kind)


def log_path(home: Home, run_id: str, attempt: int | None = None) -> Path:
    """Where the trainer of an attempt (default: the newest) writes what it prints."""
    number = attempt if attempt is not None else max(get_run(home, run_id).row.attempt, 1)
    return home.run(run_id).log(number)


def log_tail(home: Home, run_id: str, lines: int = 200, attempt: int | None = None) -> list[str]:
    """Last lines that the trainer printed; control characters are spelled out."""
    path = log_path(home, run_id, attempt)
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines()[-lines:]] if lines > 0 else []


def log_follow(home: Home, run_id: str, poll: float = 0.25) -> Iterator[str]:
    """Lines as the trainer prints them, over all attempts to come, until the run is final."""
    assert not inside(home), "in a snapshot no line would ever be new"
    attempt = max(get_run(home, run_id).row.attempt, 1)
    offset, rest = 0, b""
    while True:
        row = get_run(home, run_id).row
        path = home.run(run_id).log(attempt)
        if path.is_file():
            with open_file(path) as file:
                file.seek(offset)
                fresh = file.read(LOG_TAIL_BYTES)
            offset += len(fresh)
            *complete, rest = (rest + fresh).split(b"\n")
            if len(rest) > LOG_TAIL_BYTES:
                # A line without an end is shown in pieces: it may have gigabytes.
                complete, rest = [*complete, rest], b""
            yield from (printable(line.decode(errors="replace")) for line in complete)
            if fresh:
                continue
        if row.attempt > attempt:
            attempt, offset, rest = attempt + 1, 0, b""
        elif RunState(row.state) in FINAL_STATES:
            if rest:
                yield printable(rest.decode(errors="replace"))
            return
        else:
            time.sleep(poll)


def wait(
    home: Home,
    run_ids: Sequence[str],
    *,
    timeout: float | None = None,
    any_: bool = False,
    poll: float = 0.2,
    meanwhile: Callable[[], object] = bool,
) -> dict[str, str]:
    """States of runs once all (or any) of them are final.

    Args:
        poll: seconds between two looks.
        meanwhile: called after each look that finds them not final.

    Raises:
        TimedOutError: they are not within ``timeout`` seconds.
    """
    assert not inside(home), "in a snapshot no run would ever end"
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        states = {run_id: get_run(home, run_id).row.state for run_id in run_ids}
        done = [RunState(state) in FINAL_STATES for state in states.values()]
        if all(done) or (any_ and any(done)):
            return states
        if deadline is not None and time.monotonic() >= deadline:
            waiting = ", ".join(f"{run_id} ({state})" for run_id, state in states.items())
            raise TimedOutError(f"still waiting after {timeout:g} s for: {waiting}")
        meanwhile()
        time.sleep(poll)
