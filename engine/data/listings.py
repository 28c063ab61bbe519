"""Which data sets have files, and which: all that is known of them before anything is decoded. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from engine.config.schema import DataConfig
from engine.data import cityscapes, folder, shapes, voc
from engine.data.pairs import Listing

Split = Literal["train", "val"]

CLASS_NAMES: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "shapes": shapes.class_names,
    "folder": folder.class_names,
    "voc": voc.class_names,
    "cityscapes": cityscapes.class_names,
}
LISTINGS: dict[str, Callable[[Any, str], Listing]] = {
    "folder": folder.list_split,
    "voc": voc.list_split,
    "cityscapes": cityscapes.list_split,
}
"""The files of a split, for the kinds that have any."""


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Names of the classes in index order, without decoding anything.

    Raises:
        DataError: the classes file is missing or malformed.
    """
    return CLASS_NAMES[config.kind](config)
