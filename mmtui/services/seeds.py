"""Runs that differ in their seeds alone, folded into one line: mean, spread, and whether it is more than noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmtui.domain.states import RunState
from mmtui.domain.statistics import Comparison, Summary, summary, welch
from mmtui.paths import Home
from mmtui.services.comparing import FREE, flat
from mmtui.services.overrides import as_typed
from mmtui.store.queries import folds
from mmtui.store.queries.folds import SeedRun, Trained
from mmtui.store.session import reading

FoldKey = tuple[Any, ...]
"""Recipe, then (key, value as JSON) of everything in its configuration that counts."""
_FREE = frozenset({*FREE, "seed", "data.root"})
_FREE_SECTIONS = ("reference.", "runtime.")


@dataclass(frozen=True)
class Fold:
    """Runs that differ in their seeds alone.

    Attributes:
        recipe: name of their recipe.
        changed: keys in which folds of the same recipe differ, ``key=value``.
        ids: all of them, oldest first.
        seeds: of the runs with a value.
        values: mean IoU of those that succeeded, percent.
        summary: of the values; None if none succeeded.
        doubts: what makes any of the values doubtful.
        against: compared with the best fold; None for the best itself, or without values.
        overrides: what was typed to queue the newest, without the seed.
    """

    recipe: str
    changed: tuple[str, ...]
    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    summary: Summary | None
    against: Comparison | None
    doubts: tuple[str, ...]
    overrides: tuple[str, ...]

    def more(self) -> str:
        """The command that queues the seeds it still needs for its difference to the best to show; "" if none."""
        if self.against is None or self.against.needed is None or self.against.significant:
            return ""
        missing = self.against.needed - len(self.values)
        if missing < 1:
            return ""
        first = max(self.seeds, default=-1) + 1
        words = as_typed(("mmtui", "run", self.recipe, *self.overrides))
        return f"{words} seed={first}..{first + missing - 1}" if missing > 1 else f"{words} seed={first}"


def fold(home: Home, ids: Sequence[str]) -> list[Fold]:
    """Folds of these runs, the best mean first; those without a value last."""
    with reading(home) as reader:
        runs = folds.seed_runs(reader, [int(run_id) for run_id in ids])
    groups: dict[FoldKey, list[SeedRun]] = {}
    for run in runs:
        groups.setdefault(_same(run.trained), []).append(run)
    best = max((_values(runs) for runs in groups.values() if _values(runs)), key=lambda v: sum(v) / len(v), default=[])
    changed = changed_in(list(groups))
    found = [_fold(runs, changed[key], best) for key, runs in groups.items()]
    return sorted(found, key=lambda one: -(one.summary.mean if one.summary else -1.0))


def _same(trained: Trained) -> FoldKey:
    """What runs of a fold have in common."""
    from engine.config.determining import meaning

    config = flat(trained.config)
    kept = [(k, json.dumps(meaning(k, v))) for k, v in config if k not in _FREE and not k.startswith(_FREE_SECTIONS)]
    place = _forked_at(trained)
    # A fork has had another training than a run of the same recipe that was trained whole.
    return (trained.recipe, *sorted([*kept, *([("from", json.dumps(place))] if place else [])]))


def _forked_at(trained: Trained) -> str:
    """``RUN@STEP`` of a fork, "" of any other run."""
    origin = trained.origin
    return f"{origin.get('run')}@{origin.get('global_step')}" if origin else ""


def changed_in(keys: Sequence[FoldKey]) -> dict[FoldKey, tuple[str, ...]]:
    """For each key the ``name=value`` in which it differs from another of the same recipe."""
    common: dict[str, set[tuple[str, str]]] = {}
    for recipe, *pairs in keys:
        common[recipe] = common[recipe] & {*pairs} if recipe in common else {*pairs}
    return {
        key: tuple(f"{name}={value}" for name, value in key[1:] if (name, value) not in common[key[0]]) for key in keys
    }


def keys_of(home: Home, ids: Sequence[str]) -> dict[str, FoldKey]:
    """What each of these runs has in common with those that differ in their seeds alone."""
    with reading(home) as reader:
        found = folds.trained(reader, [int(run_id) for run_id in ids])
        return {str(run_id): _same(trained) for run_id, trained in found}


def _measured(runs: Sequence[SeedRun]) -> list[SeedRun]:
    return [run for run in runs if run.state == RunState.SUCCEEDED and run.miou is not None]


def _values(runs: Sequence[SeedRun]) -> list[float]:
    return [run.miou for run in _measured(runs) if run.miou is not None]


def _fold(runs: Sequence[SeedRun], changed: tuple[str, ...], best: list[float]) -> Fold:
    values = _values(runs)
    against = None if not values or values == best else welch(values, best)
    return Fold(
        recipe=runs[0].trained.recipe,
        changed=changed,
        ids=tuple(str(run.run_id) for run in runs),
        seeds=tuple(run.seed for run in runs),
        values=tuple(values),
        summary=summary(values) if values else None,
        against=against,
        doubts=tuple(dict.fromkeys(doubt for run in _measured(runs) for doubt in run.doubts)),
        overrides=(
            *(text for text in runs[-1].overrides if not text.startswith("seed=")),
            *(("--from", place) if (place := _forked_at(runs[-1].trained)) else ()),
        ),
    )
