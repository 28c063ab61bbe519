"""Runs folded for the screen: those of a sweep, or those that differ in their seeds alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mmtui.domain.states import RunState
from mmtui.domain.statistics import Summary, summary
from mmtui.domain.views import RunRow
from mmtui.paths import Home
from mmtui.services import runs, seeds

EDITABLE = frozenset({RunState.QUEUED.value, RunState.HELD.value})


@dataclass(frozen=True)
class Group:
    """Several runs as one line.

    Attributes:
        key: what they have in common; the same as long as they do.
        title: the recipe and what is special, or the name of the sweep.
        rows: the runs, newest first.
        states: how many are in each state.
        miou: mean and spread over those that succeeded, percent; None without any.
    """

    key: str
    title: str
    rows: tuple[RunRow, ...]
    states: dict[str, int]
    miou: Summary | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes the mean doubtful: the doubts about any run that it is of."""
        return tuple(dict.fromkeys(doubt for row in _measured(self.rows) for doubt in row.doubts))

    @property
    def id(self) -> str:
        """Stands for the group where a run's id would stand for a run."""
        return f"group {self.key}"

    @property
    def progress(self) -> float:
        """Share of all steps of all runs that are done."""
        return sum(row.progress for row in self.rows) / len(self.rows)


class Folds:
    """What runs have in common but their seeds; remembered, because it never changes once a run has started."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._known: dict[str, seeds.FoldKey] = {}

    def keys(self, rows: Sequence[RunRow]) -> dict[str, seeds.FoldKey]:
        """The key of each run, by id."""
        missing = [row.id for row in rows if row.id not in self._known or row.state in EDITABLE]
        self._known.update(seeds.keys_of(self.home, missing))
        return {row.id: self._known[row.id] for row in rows if row.id in self._known}


def grouped(home: Home, filter_text: str, by: str, sort: Sequence[str], folds: Folds) -> list[Group | RunRow]:
    """Groups of the runs that a filter lets pass, in the order of their first run; a run on its own stays a run.

    Args:
        by: ``seed`` or ``sweep``.
        sort: as for ``runs.find``; where that is by mean IoU, groups stand by their mean.

    Raises:
        UsageError: the filter or the order is wrong.
    """
    found = [row for row, _ in runs.find(home, filter_text, sort=sort)[0]]
    keys: dict[str, Hashable]
    if by == "sweep":
        keys = {row.id: row.group or row.id for row in found}
        titles = {key: str(key) for key in keys.values()}
    else:
        folds_of = folds.keys(found)
        changed = seeds.changed_in(list(dict.fromkeys(folds_of.values())))
        keys = {row.id: folds_of.get(row.id, row.id) for row in found}
        titles = {key: " ".join((str(key[0]), *words)) for key, words in changed.items()}
    members: dict[Hashable, list[RunRow]] = {}
    for row in found:
        members.setdefault(keys[row.id], []).append(row)
    result = [_line(titles.get(key, ""), several) for key, several in members.items()]
    if list(sort) == ["-miou"]:
        result.sort(key=lambda one: -_mean(one))
    return result


def _line(title: str, rows: list[RunRow]) -> Group | RunRow:
    if len(rows) == 1:
        return rows[0]
    values = [value for row in _measured(rows) if (value := row.metrics["miou"]) is not None]
    newest = max(rows, key=lambda row: int(row.id))
    oldest = min(rows, key=lambda row: int(row.id))
    states = dict(sorted(Counter(row.state for row in rows).items()))
    ordered = tuple(sorted(rows, key=lambda row: -int(row.id)))
    return Group(oldest.id, title or newest.name, ordered, states, summary(values) if values else None)


def _measured(rows: Sequence[RunRow]) -> list[RunRow]:
    return [row for row in rows if row.state == RunState.SUCCEEDED and row.metrics["miou"] is not None]


def _mean(one: Group | RunRow) -> float:
    if isinstance(one, Group):
        return one.miou.mean if one.miou else -1.0
    value = one.metrics["miou"]
    return -1.0 if value is None else value
