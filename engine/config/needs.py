"""Which folders a recipe leaves for its user to name. Needs no torch: the queue asks it too."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.schema import Recipe

HOLDS = {
    "folder": "images, labels and classes.txt",
    "voc": "JPEGImages, SegmentationClass and ImageSets",
    "cityscapes": "leftImg8bit and gtFine",
}
"""What stands in ``data.root``, by kind of data."""


def unnamed(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Keys that are empty and may not be, each with which folder to write, continuing "add KEY=FOLDER, ..."."""
    if recipe.data.kind != "shapes" and not recipe.data.root:
        yield "data.root", f"the one that holds {HOLDS[recipe.data.kind]}"
    if recipe.proxy is not None and recipe.proxy.kind == "classification" and not recipe.proxy.images:
        yield "proxy.images", "with one folder of images a class"
