"""How long runs take and when queued ones will start, from what runs like them have taken: a guess, said to be one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmtui.domain.forecasting import FOREVER, Forecast, Span, Work, play
from mmtui.domain.states import ACTIVE_STATES
from mmtui.paths import Home
from mmtui.services.queue_state import Queue
from mmtui.store import cells
from mmtui.store.queries import damaged
from mmtui.store.reader import Reader

if TYPE_CHECKING:
    from engine.config import Recipe

RECENT = 400
"""How many stages of past runs are looked at."""
SPREAD = 0.2
"""With a single past run nothing is known of the spread: times may then be a fifth shorter or longer."""

_AROUND = (
    "SELECT r.ended_at - r.started_at - sum(s.ended_at - s.started_at) FROM runs r JOIN stages s ON s.run_id = r.id"
    " WHERE r.state = 'succeeded' AND r.attempt = 1 GROUP BY r.id ORDER BY r.id DESC LIMIT ?"
)

Rates = tuple[float, float, float]
"""Seconds per step: low, middle, high."""


class Costs:
    """Seconds per step of the stages of past runs, and of the measurements before first starts."""

    def __init__(self, home: Home) -> None:
        # What evaluations took is measured from start to end: they have one step.
        sql = (
            "SELECT s.name, coalesce(nullif(s.seconds_per_step, 0), (s.ended_at - s.started_at) / s.total_steps),"
            " r.config FROM stages s JOIN runs r ON r.id = s.run_id"
            " WHERE s.seconds_per_step > 0 OR (s.name = 'evaluate' AND s.status = 'finished')"
            " ORDER BY r.id DESC LIMIT ?"
        )
        with Reader(home) as reader:
            rows = reader.query(sql, [RECENT])
            needs = reader.query("SELECT work, body FROM needs")
            around = sorted(
                took for row in reader.query(_AROUND, [RECENT // 10]) if (took := cells.number(row[0]) or 0.0) > 0
            )
        self.around: Rates = (around[0], around[len(around) // 2], around[-1]) if around else (0.0, 0.0, 0.0)
        """Seconds that a run takes besides its stages: the process starts, data are read, weights are written."""
        self._known: dict[tuple[str, str], list[float]] = {}
        for name, cell, config in rows:
            if (rate := cells.number(cell)) is not None:
                self._known.setdefault((name, _work(cells.mapped(config), name)), []).append(rate)
        self._measured = {
            row[0]: cells.values("probe", json.dumps({"stages": cells.mapped(row[1])})).get("stages", {})
            for row in needs
        }

    def seconds(self, recipe: Recipe, stages: Sequence[tuple[str, int]] | None = None) -> float | None:
        """Seconds that a run of a recipe (or these stages and steps of it) may take; None where a stage of it has never
        been seen."""
        from engine.config.determining import work_name

        wanted, total = recipe.model_dump(mode="json"), self.around[1]
        for stage, steps in recipe.stages() if stages is None else stages:
            rates = self.rates(stage, wanted, work_name(recipe))
            if rates is None and stage != "evaluate":
                return None
            total += (rates[1] if rates else 0.0) * steps
        return total

    def rates(self, stage: str, config: Mapping[str, Any], work: str) -> Rates | None:
        """Seconds per step of past runs whose network and batch of this stage are the same; the newest ten count."""
        found = self._known.get((stage, _work(config, stage)), [])[:10]
        if not found:
            measured = self._measured.get(work, {}).get(stage, {})
            rate = measured.get("seconds_per_step") or measured.get("seconds")
            found = [float(rate)] if rate else []
        if not found:
            return None
        middle = sorted(found)[len(found) // 2]
        if len(found) < 3:
            return middle * (1 - SPREAD), middle, middle * (1 + SPREAD)
        return min(found), middle, max(found)


_FREE = {
    "proxy": ("steps", "optim", "images", "max_images", "temperature", "key_momentum", "dense_weight"),
    "match": ("steps", "optim", "margin", "normalizer", "temperature"),
    "segment": ("steps", "optim", "eval_every", "keep_best", "patience"),
    "evaluate": ("save_predictions", "show_images", "checkpoint"),
}
"""Keys of a stage that do not change how long a step takes."""


def _work(config: Mapping[str, Any], stage: str) -> str:
    """What decides how long a step takes; runs of before a key was there are as those that leave it as it is."""
    from engine.config.determining import LOSS_SETTINGS, says_nothing

    parts = {name: part for name in (stage, "runtime") if isinstance(part := config.get(name), Mapping)}
    section, running = parts.get(stage, {}), parts.get("runtime", {})
    free = (*_FREE.get(stage, ()), *(LOSS_SETTINGS if stage == "segment" else ()))
    kept = {
        key: value for key, value in section.items() if key not in free and not says_nothing(f"{stage}.{key}", value)
    }
    runtime = {key: running.get(key) for key in ("device", "precision", "threads")}
    data = config.get("data") if stage == "evaluate" else None
    return json.dumps([config.get("model"), kept, runtime, data], sort_keys=True)


def queue_forecast(home: Home, now: float | None = None) -> dict[str, Forecast]:
    """When each active and queued run will start and end; the scheduler's own rules are played forward.

    Memory of shared GPUs is not played; held runs are left out, and those whose rows are damaged.
    """
    now = time.time() if now is None else now
    with Reader(home) as reader:
        queue, costs = Queue(home, reader), Costs(home)
        broken = damaged.in_queue(reader)
        waiting = [run for run in queue.waiting().values() if run.run_id not in broken]
        left = _left(reader, costs)
        active = {
            row[0]: (cells.texts(row[1]), row[2], row[3], row[0])
            for row in reader.query(f"SELECT id, gpus, wanted, run_group FROM runs WHERE state IN ({_ACTIVE})")
            if row[0] not in broken
        }
        slots, rules = queue.slots(), queue.rules()
    spans: list[dict[int, Span]] = []
    for which in range(3):
        works = {run_id: _scaled(parts, which) for run_id, parts in left.items()}
        playing = {run_id: (p, wanted, group, works[run_id]) for run_id, (p, wanted, group, _) in active.items()}
        spans.append(play(playing, waiting, works, slots, now, rules))
    low, middle, high = spans
    return {
        str(run_id): Forecast(span.start, span.end, low[run_id].end, high[run_id].end)
        for run_id, span in middle.items()
    }


_ACTIVE = ",".join(f"'{state.value}'" for state in ACTIVE_STATES)
_Part = tuple[str, Rates]


def _left(reader: Reader, costs: Costs) -> dict[int, list[_Part]]:
    """What active and queued runs have still to do: (name of the stage if it is shared, seconds) of each stage."""
    sql = (
        "SELECT r.id, r.started_at, r.config, r.work, r.shared_stages,"
        " s.name, s.status, s.step, s.total_steps, s.seconds_per_step"
        f" FROM runs r JOIN stages s ON s.run_id = r.id WHERE r.state IN ('queued', {_ACTIVE})"
        " AND r.deleted_at IS NULL ORDER BY r.id, s.position"
    )
    found: dict[int, list[_Part]] = {}
    cached: dict[tuple[str, str], Rates | None] = {}
    for run_id, begun, text, *names, step, total, measured in reader.query(sql):
        work, shared, stage, status = map(cells.text, names)
        if run_id not in found and begun is None:
            found[run_id] = [("", costs.around)]
        parts = found.setdefault(run_id, [])
        if status == "finished":
            continue
        known = (work, stage)
        if not work or known not in cached:
            cached[known] = costs.rates(stage, cells.mapped(text), work)
        rates = cached[known]
        rate = cells.number(measured)
        if rate and status == "running":
            rates = (rate * (1 - SPREAD / 2), rate, rate * (1 + SPREAD / 2))
        if rates is None:
            rates = (0.0, 0.0, 0.0) if stage == "evaluate" else (FOREVER, FOREVER, FOREVER)
        steps = max(cells.count(total) - cells.count(step), 0)
        name = cells.mapped(shared).get(stage, "") if shared != "{}" else ""
        parts.append((name, (rates[0] * steps, rates[1] * steps, rates[2] * steps)))
    return found


def _scaled(parts: list[_Part], which: int) -> Work:
    return Work(tuple((name, seconds[which]) for name, seconds in parts))
