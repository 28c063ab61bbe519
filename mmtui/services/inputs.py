"""Files and folders that a recipe reads: what lacks is told when a run is queued, not hours later when it starts."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.errors import UsageError

if TYPE_CHECKING:
    from engine.config import Recipe

_HOLDS = {
    "folder": "images, labels and classes.txt",
    "voc": "JPEGImages, SegmentationClass and ImageSets",
    "cityscapes": "leftImg8bit and gtFine",
}
"""What stands in ``data.root``, by kind of data."""
PATIENCE = 0.5
"""Seconds in which a file system has to say whether there is a file; a mount that hangs must not hold up a screen."""
_silent: set[str] = set()
"""Paths of which nothing was heard."""


def lacking(recipe: Recipe, *, later: bool = False, taken: Collection[str] = ()) -> list[str]:
    """What a run of the recipe would not find, each with what to write; [] if nothing lacks.

    Args:
        later: only what can never be right: files may come before the run starts, or lie on another machine. No
            file system is asked then.
        taken: stages that are not trained, whose data are therefore not read.
    """
    return [text for text, _ in _problems(recipe, later, taken)]


def refuse_lacking(recipe: Recipe, *, later: bool = False, taken: Collection[str] = ()) -> None:
    """Raises UsageError naming the first thing that a run of the recipe would not find."""
    for text, final in _problems(recipe, later, taken):
        raise UsageError(text, "" if final else "queue it with --hold if it comes later")


def _problems(recipe: Recipe, later: bool, taken: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Sentences, each with whether it holds wherever and whenever the run starts."""
    data, weights = recipe.data, recipe.model.weights
    proxy = None if "proxy" in taken else recipe.proxy
    if data.kind != "shapes" and not data.root:
        yield f"data.root is empty: add data.root=FOLDER, the one that holds {_HOLDS[data.kind]}", True
    if proxy is not None and proxy.kind == "classification" and not proxy.images:
        yield "proxy.images is empty: add proxy.images=FOLDER, with one folder of images a class", True
    if later:
        return
    if data.kind != "shapes" and data.root and not _stands(data.root, folder=True):
        yield f"data.root {data.root} is no folder: write the one that holds {_HOLDS[data.kind]}", False
    if proxy is not None and proxy.images and not _stands(proxy.images, folder=True):
        yield f"proxy.images {proxy.images} is no folder: write one of images", False
    if weights and not _stands(weights, folder=False):
        yield f"model.weights {weights} is no file: write one of weights, or model.weights= for random ones", False
    for run_dir in recipe.evaluate.ensemble if recipe.evaluate is not None else ():
        if not _stands(run_dir, folder=True):
            yield f"evaluate.ensemble {run_dir} is no folder: write the folder of a finished run", False


def _stands(text: str, *, folder: bool) -> bool:
    """Whether there is such a folder or file; one that may not be looked at counts as missing.

    One whose file system does not answer counts as there: the run will say.
    """
    if text in _silent:
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
        _silent.add(text)
    return answers[0] if answers else True
