"""Files and folders that a recipe reads: what lacks is told when a run is queued, not hours later when it starts."""

from __future__ import annotations

from collections.abc import Iterator
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


def lacking(recipe: Recipe, *, later: bool = False) -> list[str]:
    """What a run of the recipe would not find, each with what to write; [] if nothing lacks.

    Args:
        later: only what can never be right: files may come before the run starts, or lie on another machine.
    """
    return [text for text, final in _problems(recipe) if final or not later]


def refuse_lacking(recipe: Recipe, *, later: bool = False) -> None:
    """Raises UsageError naming the first thing that a run of the recipe would not find."""
    for text, final in _problems(recipe):
        if final or not later:
            raise UsageError(text, "" if final else "queue it with --hold if it comes later")


def _problems(recipe: Recipe) -> Iterator[tuple[str, bool]]:
    """Sentences, each with whether it holds wherever and whenever the run starts."""
    data, proxy, weights = recipe.data, recipe.proxy, recipe.model.weights
    if data.kind != "shapes":
        holds = _HOLDS[data.kind]
        if not data.root:
            yield f"data.root is empty: add data.root=FOLDER, the one that holds {holds}", True
        elif not _stands(data.root, folder=True):
            yield f"data.root {data.root} is no folder: write the one that holds {holds}", False
    if proxy is not None and proxy.images and not _stands(proxy.images, folder=True):
        yield f"proxy.images {proxy.images} is no folder: write one of images", False
    if proxy is not None and proxy.kind == "classification" and not proxy.images:
        yield "proxy.images is empty: add proxy.images=FOLDER, with one folder of images a class", True
    if weights and not _stands(weights, folder=False):
        yield f"model.weights {weights} is no file: write one of weights, or model.weights= for random ones", False


def _stands(text: str, *, folder: bool) -> bool:
    """Whether there is such a folder or file; one that may not be looked at counts as missing."""
    path = Path(text).expanduser()
    try:
        return path.is_dir() if folder else path.is_file()
    except OSError:
        return False
