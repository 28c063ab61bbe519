"""Runs set side by side: which settings differ, what came of them, and why two are not the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmtui.domain.views import RunDetail
from mmtui.paths import Home
from mmtui.services import runs

OUTCOME = ("state", "miou", "loss", "took")
FREE = frozenset({"name", "description"})
"""Keys that say nothing about what is computed."""


@dataclass(frozen=True)
class Difference:
    """One thing in which two runs differ."""

    area: str
    name: str
    first: Any
    second: Any


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; lists are values."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe with the defaults of keys that did not exist when its run was queued: they are no difference."""
    from pydantic import ValidationError

    from engine.config import Recipe

    try:
        return Recipe.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return config  # of a newer or a foreign schema


def table(home: Home, ids: Sequence[str], further: Sequence[str] = ()) -> list[tuple[str, tuple[Any, ...]]]:
    """(name, one value a run): the outcome, chosen columns, and every key in which the recipes differ.

    Raises:
        NotFoundError: there is no such run.
        UsageError: a column that is none.
    """
    details = [runs.get_run(home, run_id) for run_id in ids]
    rows: list[tuple[str, tuple[Any, ...]]] = [("name", tuple(d.row.name for d in details))]
    rows += [(name, tuple(_outcome(d)[name] for d in details)) for name in OUTCOME]
    if further:
        chosen = runs.values(home, ids, further)
        rows += [(name, tuple(chosen[run_id][number] for run_id in ids)) for number, name in enumerate(further)]
    configs = [dict(flat(_completed(d.config))) for d in details]
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        if key not in FREE and any(value != values[0] for value in values):
            rows.append((key, tuple(_plain(value) for value in values)))
    return rows


def differences(home: Home, first: str, second: str) -> list[Difference]:
    """Everything that is recorded and differs, what explains most first: recipe, seed, code, environment, device.

    Raises:
        NotFoundError: there is no such run.
    """
    a, b = runs.get_run(home, first), runs.get_run(home, second)
    found = [*_compared("outcome", _outcome(a), _outcome(b))]
    one, other = dict(flat(_completed(a.config))), dict(flat(_completed(b.config)))
    for free in FREE:
        one.pop(free, None)
        other.pop(free, None)
    seeds = [{"seed": config.pop("seed", None)} for config in (one, other)]
    data = [{key: config.pop(key) for key in list(config) if key.startswith("data.")} for config in (one, other)]
    found += [*_compared("recipe", one, other), *_compared("data", *data), *_compared("seed", *seeds)]
    found += [*_compared("code", _code(a), _code(b))]
    environment = [{**_versions(detail), **detail.host} for detail in (a, b)]
    found += [*_compared("environment", *environment)]
    return [*found, *_compared("device", {"gpus": " ".join(a.row.gpus)}, {"gpus": " ".join(b.row.gpus)})]


def _compared(area: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one != other:
            yield Difference(area, name, _plain(one), _plain(other))


def _outcome(detail: RunDetail) -> dict[str, Any]:
    row = detail.row
    took = row.ended_at - row.started_at if row.ended_at and row.started_at else None
    return {
        "state": row.state,
        "miou": row.metrics.get("miou"),
        "loss": row.metrics.get("loss"),
        "took": round(took, 1) if took is not None else None,
    }


def _code(detail: RunDetail) -> dict[str, Any]:
    return {key: detail.code.get(key) for key in ("digest", "commit", "dirty")}


def _versions(detail: RunDetail) -> dict[str, Any]:
    return dict(detail.versions)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
