"""Runs set side by side: which settings differ, what came of them, and why two are not the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.json_types import Json, JsonObject
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.views import RunDetail, RunRow
from mmtui.paths import Home
from mmtui.services import runs

OUTCOME = ("state", "miou", "loss", "took")
FREE = frozenset({"name", "description"})
"""Keys that say nothing about what is computed."""
HOW = ("runtime.", "reference.")
"""Keys that say how it is computed, or what it is compared with: they explain least."""

Plain: TypeAlias = "str | int | float | bool | None"
"""A value as it is shown and written as JSON."""


@dataclass(frozen=True)
class Difference:
    """One thing in which two runs differ."""

    area: str
    name: str
    first: Plain
    second: Plain


def flat(config: Mapping[str, Json], above: str = "") -> Iterator[tuple[str, Json]]:
    """Dotted keys and values; lists are values."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _meant(config: Mapping[str, Json]) -> JsonObject:
    """Every key of a recipe; two words for the same are no difference either."""
    from engine.config.determining import meaning

    return {key: meaning(key, value) for key, value in flat(_completed(config))}


def _completed(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """A recipe with the defaults of keys that did not exist when its run was queued: they are no difference."""
    from pydantic import ValidationError

    from engine.config.schema import stored_recipe

    try:
        return stored_recipe(config).model_dump(mode="json")
    except ValidationError:
        return config  # of a newer or a foreign schema


def table(home: Home, ids: Sequence[str], further: Sequence[str] = ()) -> list[tuple[str, tuple[object, ...]]]:
    """(name, one value a run): the outcome, chosen columns, and every key in which the recipes differ.

    Raises:
        NotFoundError: there is no such run.
        UsageError: a column that is none.
    """
    details = [runs.get_run(home, run_id) for run_id in ids]
    rows: list[tuple[str, tuple[object, ...]]] = [("name", tuple(d.row.name for d in details))]
    rows += [(name, tuple(_outcome(d)[name] for d in details)) for name in OUTCOME]
    if further:
        chosen = runs.values(home, ids, further)
        rows += [(name, tuple(chosen[run_id][number] for run_id in ids)) for number, name in enumerate(further)]
    configs = [_meant(d.config) for d in details]
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        if key not in FREE and any(value != values[0] for value in values):
            rows.append((key, tuple(_plain(value) for value in values)))
    return rows


@dataclass(frozen=True)
class Reason:
    """One thing that is not the same in all of several runs: its value in each."""

    area: str
    name: str
    values: tuple[Plain, ...]


def differences(home: Home, first: str, second: str) -> list[Difference]:
    """Everything that is recorded and differs, what explains most first: recipe, seed, code, environment, device.

    Raises:
        NotFoundError: there is no such run.
    """
    return [Difference(reason.area, reason.name, *reason.values) for reason in reasons(home, (first, second))]


def reasons(home: Home, ids: Sequence[str]) -> list[Reason]:
    """Everything that is recorded and not the same in all runs, what explains most first.

    The order: outcome, recipe (what says how it is run last), data, seed, code, environment, device.

    Raises:
        NotFoundError: there is no such run.
    """
    details = [runs.get_run(home, run_id) for run_id in ids]
    areas: list[tuple[str, list[Mapping[str, object]]]] = [("outcome", [_outcome(detail) for detail in details])]
    configs = [_meant(detail.config) for detail in details]
    for config in configs:
        for free in FREE:
            config.pop(free, None)
    seeds: list[Mapping[str, object]] = [{"seed": config.pop("seed", None)} for config in configs]
    data = [{key: config.pop(key) for key in list(config) if key.startswith("data.")} for config in configs]
    if all(detail.data_fingerprint for detail in details):
        for values, detail in zip(data, details, strict=True):
            values["fingerprint"] = detail.data_fingerprint[:16]
    recipes = [dict(sorted(config.items(), key=lambda item: item[0].startswith(HOW))) for config in configs]
    areas += [("recipe", list(recipes)), ("data", list(data)), ("seed", seeds)]
    areas += [("code", [_code(detail) for detail in details])]
    areas += [("environment", [{**_versions(detail), **detail.host} for detail in details])]
    areas += [("device", [{"gpus": " ".join(detail.row.gpus)} for detail in details])]
    return [reason for area, values in areas for reason in _reasons(area, values)]


def _reasons(area: str, several: Sequence[Mapping[str, object]]) -> Iterator[Reason]:
    for name in dict.fromkeys(name for values in several for name in values):
        found = [values.get(name) for values in several]
        if any(value != found[0] for value in found):
            yield Reason(area, name, tuple(_plain(value) for value in found))


def _took(row: RunRow) -> float | None:
    """Seconds from its start to its end, or to now while it is active; None where clocks contradict each other."""
    if not row.started_at:
        return None
    end = row.ended_at or (time.time() if RunState(row.state) in ACTIVE_STATES else None)
    return end - row.started_at if end is not None and end >= row.started_at else None


def _outcome(detail: RunDetail) -> dict[str, object]:
    row = detail.row
    took = _took(row)
    return {
        "state": row.state,
        "miou": row.metrics.get("miou"),
        "loss": row.metrics.get("loss"),
        "took": round(took, 1) if took is not None else None,
    }


def _code(detail: RunDetail) -> dict[str, object]:
    return {key: detail.code.get(key) for key in ("digest", "commit", "dirty")}


def _versions(detail: RunDetail) -> dict[str, object]:
    return dict(detail.versions)


def _plain(value: object) -> Plain:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
