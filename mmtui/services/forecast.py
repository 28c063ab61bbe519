"""How long runs take and when queued ones will start, from what runs like them have taken: a guess, said to be one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.json_types import Json
from mmtui.domain.forecasting import FOREVER, Forecast, Span, Work, play
from mmtui.paths import Home
from mmtui.services.queue_state import Queue
from mmtui.store import cells
from mmtui.store.queries import active, damaged, durations
from mmtui.store.reader import Reader
from mmtui.store.session import reading

if TYPE_CHECKING:
    from engine.config import Recipe

RECENT = 400
"""How many stages of past runs are looked at."""
SPREAD = 0.2
"""With a single past run nothing is known of the spread: times may then be a fifth shorter or longer."""

Rates = tuple[float, float, float]
"""Seconds per step: low, middle, high."""


class Costs:
    """Seconds per step of the stages of past runs, and of the measurements before first starts."""

    def __init__(self, home: Home) -> None:
        with reading(home) as reader:
            paces = durations.stage_paces(reader, RECENT)
            self._measured = durations.measured_stages(reader)
            around = sorted(took for took in durations.seconds_besides_stages(reader, RECENT // 10) if took > 0)
        self.around: Rates = (around[0], around[len(around) // 2], around[-1]) if around else (0.0, 0.0, 0.0)
        """Seconds that a run takes besides its stages: the process starts, data are read, weights are written."""
        self._known: dict[tuple[str, str], list[float]] = {}
        for name, rate, config in paces:
            self._known.setdefault((name, _work(config, name)), []).append(rate)

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

    def rates(self, stage: str, config: Mapping[str, Json], work: str) -> Rates | None:
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


def _work(config: Mapping[str, Json], stage: str) -> str:
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
    with reading(home) as reader:
        queue, costs = Queue(home, reader), Costs(home)
        broken = damaged.in_queue(reader)
        waiting = [run for run in queue.waiting().values() if run.run_id not in broken]
        left = _left(reader, costs)
        working = [run for run in active.holders(reader) if run.run_id not in broken]
        slots, rules = queue.slots(), queue.rules()
    spans: list[dict[int, Span]] = []
    for which in range(3):
        works = {run_id: _scaled(parts, which) for run_id, parts in left.items()}
        playing = {run.run_id: (run.names, run.wanted, run.group, works[run.run_id]) for run in working}
        spans.append(play(playing, waiting, works, slots, now, rules))
    low, middle, high = spans
    return {
        str(run_id): Forecast(span.start, span.end, low[run_id].end, high[run_id].end)
        for run_id, span in middle.items()
    }


_Part = tuple[str, Rates]


def _left(reader: Reader, costs: Costs) -> dict[int, list[_Part]]:
    """What active and queued runs have still to do: (name of the stage if it is shared, seconds) of each stage."""
    found: dict[int, list[_Part]] = {}
    cached: dict[tuple[str, str], Rates | None] = {}
    for one in durations.stages_left(reader):
        if one.run_id not in found and one.begun is None:
            found[one.run_id] = [("", costs.around)]
        parts = found.setdefault(one.run_id, [])
        if one.status == "finished":
            continue
        known = (one.work, one.stage)
        if not one.work or known not in cached:
            cached[known] = costs.rates(one.stage, cells.mapped(one.config), one.work)
        rates, rate = cached[known], one.seconds_per_step
        if rate and one.status == "running":
            rates = (rate * (1 - SPREAD / 2), rate, rate * (1 + SPREAD / 2))
        if rates is None:
            rates = (0.0, 0.0, 0.0) if one.stage == "evaluate" else (FOREVER, FOREVER, FOREVER)
        steps = max(one.total_steps - one.step, 0)
        name = cells.texts_by_name(one.shared).get(one.stage, "") if one.shared != "{}" else ""
        parts.append((name, (rates[0] * steps, rates[1] * steps, rates[2] * steps)))
    return found


def _scaled(parts: list[_Part], which: int) -> Work:
    return Work(tuple((name, seconds[which]) for name, seconds in parts))
