"""The best checkpoint of a run: what it is the best by, and where it lies. Needs no torch: the queue asks it too.

    RUN/checkpoints/segment/step_00000040   while the stage trains: the newest checkpoint says which step is the best
    RUN/checkpoints/segment/best            once the stage has finished

It is a whole checkpoint, with the optimiser: it can be forked from, as ``RUN@best``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine.errors import CheckpointError
from engine.json_types import Json
from engine.paths import expanded

BEST: Final = "best"
"""Its name: that of its folder, and behind the @ of a run."""
MIOU, LOSS, CLASS = "miou", "loss", "class:"
STAGE: Final = "segment"
"""The only stage that is evaluated on the way."""
_STEP = re.compile(r"step_(\d{8,})")


def class_of(metric: str) -> str:
    """The class that a metric is of, "" if it is of all."""
    return metric.removeprefix(CLASS) if metric.startswith(CLASS) else ""


def metric_problem(word: str) -> str:
    """Why a value of ``segment.keep_best`` is none; "" if it is one."""
    if word in (MIOU, LOSS) or class_of(word):
        return ""
    return f"{word!r} is nothing to go by: write miou, loss, class:NAME with the name of a class, or null"


def class_problem(metric: str | None, classes: Collection[str]) -> Iterator[str]:
    """A class to go by that the data set, of the names ``classes``, does not have."""
    name = class_of(metric or "")
    if name and name not in classes:
        close = difflib.get_close_matches(name, classes, n=1)
        there = ", ".join(list(classes)[:6]) + (" ..." if len(classes) > 6 else "")
        hint = f"did you mean class:{close[0]}?" if close else f"write one of {there}"
        yield f"segment.keep_best class:{name} names no class of the data set: {hint}"


def best_step(meta: Mapping[str, object]) -> int | None:
    """The step that a checkpoint's meta file calls the best; None where it calls none so."""
    remembered = meta.get("remembered")
    found = meta.get(BEST) or (remembered.get(BEST) if isinstance(remembered, Mapping) else None)
    step = found.get("step") if isinstance(found, Mapping) else None
    return step if type(step) is int else None


def split(text: str) -> tuple[Path, bool]:
    """``RUN_DIR`` or ``RUN_DIR@best``: the folder, and whether its best checkpoint is meant."""
    folder = expanded(text)
    if text.endswith(f"@{BEST}") and not folder.is_dir():
        return expanded(text.removesuffix(f"@{BEST}")), True
    return folder, False


def best_folder(run_dir: Path, run: str = "") -> Path:
    """The folder of a run's best checkpoint.

    Args:
        run: what the run is called; "" = its folder.

    Raises:
        CheckpointError: the run keeps none, has none yet, or it is gone.
    """
    folder, run = run_dir / "checkpoints" / STAGE, run or str(run_dir)
    meta = _newest(folder)
    if meta is None:
        raise CheckpointError(f"run {run} has no checkpoint of stage {STAGE} yet, so none is the best")
    step = best_step(meta)
    if step is None:
        raise CheckpointError(_none_text(meta, run))
    for place in (folder / BEST, folder / f"step_{step:08d}"):
        if (_read(place) or {}).get("step") == step:
            return place
    raise CheckpointError(f"the best checkpoint of run {run} ({STAGE} {step}) is not in its folder any more")


def _newest(folder: Path) -> Mapping[str, Json] | None:
    """The meta file of a stage's output, else of its newest checkpoint; None without any."""
    final = _read(folder / "final")
    if final is not None:
        return final
    entries: list[Path] = []
    with suppress(OSError):  # a run that has not begun, or is just removed
        entries = list(folder.iterdir())
    steps = sorted((int(match[1]), entry) for entry in entries if (match := _STEP.fullmatch(entry.name)))
    return next((meta for _, entry in reversed(steps) if (meta := _read(entry)) is not None), None)


def _read(folder: Path) -> Mapping[str, Json] | None:
    with suppress(OSError, ValueError):
        found = json.loads((folder / "meta.json").read_text())
        return found if isinstance(found, dict) else None
    return None


def _none_text(meta: Mapping[str, object], run: str) -> str:
    recipe = meta.get("recipe")
    section = recipe.get(STAGE) if isinstance(recipe, Mapping) else None
    metric = section.get("keep_best") if isinstance(section, Mapping) else None
    if metric:
        return f"run {run} has no best checkpoint: no evaluation of its own has given a number for {metric} yet"
    return f"run {run} keeps no best checkpoint: segment.keep_best=miou makes a run keep one"
