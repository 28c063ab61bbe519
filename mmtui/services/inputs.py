"""Files and folders that a recipe reads: what lacks is told when a run is queued, not hours later when it starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.errors import NotFoundError, UsageError
from mmtui.services import labels

if TYPE_CHECKING:
    from engine.config import Recipe
    from mmtui.paths import Home

Looking = Callable[["Recipe", Collection[str]], labels.Look]
"""How masks are looked at: recipe and stages that are not trained to what the engine finds."""
PATIENCE = 0.5
"""Seconds in which a file system has to say whether there is a file; a mount that hangs must not hold up a screen."""
SILENCE = 30.0
"""Seconds for which one that has not answered is not asked again: each run of a sweep reads the same files."""
_silent: dict[str, float] = {}
"""Paths of which nothing was heard, and when on the monotonic clock."""


def lacking(recipe: Recipe, *, later: bool = False, taken: Collection[str] = ()) -> list[str]:
    """What a run of the recipe would not find, each with what to write; [] if nothing lacks.

    Args:
        later: only what can never be right: files may come before the run starts, or lie on another machine. No
            file system is asked then.
        taken: stages that are not trained, whose data are therefore not read.
    """
    return [text for text, _ in _problems(recipe, later, taken)]


def refuse_lacking(
    recipe: Recipe, *, later: bool = False, taken: Collection[str] = (), look: Looking = labels.look
) -> None:
    """Raises UsageError naming the first thing that a run of the recipe would not find."""
    for text, final in _problems(recipe, later, taken, look):
        raise UsageError(text, "" if final else "queue it with --hold if it comes later")


def refuse_release(home: Home, run_id: str) -> None:
    """Refuse to let a held run start that could start at once and would not find what it reads.

    Raises:
        UsageError: names the first thing that lacks.
        NotFoundError: there is no such run.
    """
    from engine.config.schema import stored_recipe
    from mmtui.services import runs

    found = runs.get_run(home, run_id)
    if found.row.state != RunState.HELD:
        return  # it will be refused for that
    try:
        recipe = stored_recipe(found.config)
    except ValueError:
        return  # damaged or of another version: the run will say
    later = bool(found.terms.launcher) or (found.terms.not_before or 0.0) > time.time()
    later = later or any(not _over(home, other) for other in found.terms.after)
    taken = [stage.name for stage in found.stages if stage.status == "finished"]
    for text, _ in _problems(recipe, later, taken):
        raise UsageError(text, "" if found.row.attempt else f"or change what it reads: mmtui edit {run_id} KEY=VALUE")


def _over(home: Home, run_id: str) -> bool:
    from mmtui.services import runs

    try:
        return RunState(runs.get_run(home, run_id).row.state) in FINAL_STATES
    except NotFoundError:
        return True


def _problems(
    recipe: Recipe, later: bool, taken: Collection[str], look: Looking = labels.look
) -> Iterator[tuple[str, bool]]:
    """Sentences, each with whether it holds wherever and whenever the run starts."""
    from engine.config.backbones import TIMM_WEIGHTS, is_timm, timm_lacks
    from engine.config.needs import HOLDS, unnamed  # loads the schema, which whoever has a recipe has loaded

    data, weights = recipe.data, recipe.model.weights
    if {"proxy", "match"} & set(taken) and not (recipe.segment is not None and recipe.segment.reset_layers):
        weights = ""  # what follows begins with what that stage has made
    proxy = None if "proxy" in taken else recipe.proxy
    for key, meaning in unnamed(recipe):
        if key != "proxy.images" or proxy is not None:
            yield f"{key} is empty: add {key}=FOLDER, {meaning}", True
    members = recipe.evaluate.ensemble if recipe.evaluate is not None else ()
    if "" in members:
        yield "evaluate.ensemble names no run: add evaluate.ensemble=[FOLDER], that of a finished run", True
    if lack := timm_lacks() if is_timm(recipe.model.backbone) else "":
        yield f"model.backbone {recipe.model.backbone} {lack}", False
    if later:
        return
    if data.kind != "shapes" and data.root and not _stands(data.root, folder=True):
        yield f"data.root {data.root} is no folder: write the one that holds {HOLDS[data.kind]}", False
    elif problem := look(recipe, taken).problem:
        yield problem, data.kind == "shapes"  # which nobody can give other classes
    if proxy is not None and proxy.images and not _stands(proxy.images, folder=True):
        yield f"proxy.images {proxy.images} is no folder: write one of images", False
    if weights not in ("", TIMM_WEIGHTS) and not _stands(weights, folder=False):
        yield f"model.weights {weights} is no file: write one of weights, or model.weights= for random ones", False
    for run_dir in members:
        if run_dir and not _stands(run_dir.removesuffix("@best"), folder=True):
            yield f"evaluate.ensemble {run_dir} is no folder: write the folder of a finished run", False


def _stands(text: str, *, folder: bool) -> bool:
    """Whether there is such a folder or file; one that may not be looked at counts as missing.

    One whose file system does not answer counts as there: the run will say.
    """
    if time.monotonic() - _silent.get(text, -SILENCE) < SILENCE:
        return True
    path, answers = Path(text), list[bool]()

    def look() -> None:
        try:
            answers.append(path.is_dir() if folder else path.is_file())
        except OSError:
            answers.append(False)

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if not answers:
        _silent[text] = time.monotonic()
    return answers[0] if answers else True
