"""How long runs take, from what runs like them have taken: a guess, and said to be one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mmtui.paths import Home
from mmtui.store.reader import Reader

if TYPE_CHECKING:
    from engine.config import Recipe

RECENT = 200
"""How many stages of past runs are looked at."""


class Costs:
    """Seconds per step of the stages of past runs, newest first."""

    def __init__(self, home: Home) -> None:
        sql = (
            "SELECT s.name, s.seconds_per_step, r.recipe, r.config FROM stages s JOIN runs r ON r.id = s.run_id"
            " WHERE s.seconds_per_step > 0 ORDER BY r.id DESC LIMIT ?"
        )
        with Reader(home) as reader:
            rows = reader.query(sql, [RECENT])
        self._known = [(row[0], row[1], row[2], json.loads(row[3])) for row in rows]

    def seconds(self, recipe: Recipe) -> float | None:
        """Seconds that a run of a recipe may take; None where a stage of it has never been seen."""
        wanted, total = recipe.model_dump(mode="json"), 0.0
        for stage, steps in recipe.stages():
            if stage == "evaluate":
                continue
            rate = self._rate(stage, wanted)
            if rate is None:
                return None
            total += rate * steps
        return total

    def _rate(self, stage: str, wanted: dict[str, Any]) -> float | None:
        """Seconds per step of the newest run whose network and batch of this stage are the same."""
        for name, rate, _, config in self._known:
            if name == stage and _work(config, stage) == _work(wanted, stage):
                return float(rate)
        return None


_FREE = {
    "proxy": ("steps", "optim", "images", "max_images"),
    "match": ("steps", "optim", "margin", "normalizer", "temperature"),
    "segment": ("steps", "optim", "eval_every"),
}
"""Keys of a stage that do not change how long a step takes."""


def _work(config: dict[str, Any], stage: str) -> tuple[Any, ...]:
    """What decides how long a step takes."""
    section = config.get(stage) or {}
    kept = {key: value for key, value in section.items() if key not in _FREE[stage]}
    runtime = {key: config.get("runtime", {}).get(key) for key in ("device", "precision", "threads")}
    return config.get("model"), kept, runtime
