"""Which data sets there are. A new one is a file beside this and its lines in these tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engine.config.schema import DataConfig
from engine.data import cityscapes, folder, shapes, voc
from engine.data.cache import Tell, Warn, load_cached
from engine.data.dataset import Progress, SegmentationData
from engine.data.limits import check_budget
from engine.data.pairs import Listing
from engine.data.source import Source, load

Split = Literal["train", "val"]

BUILDERS: dict[str, Callable[[Any, str], Source]] = {
    "shapes": shapes.source,
    "folder": folder.source,
    "voc": voc.source,
    "cityscapes": cityscapes.source,
}
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


def build_data(
    config: DataConfig,
    split: Split,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    warn: Warn | None = None,
    tell: Tell | None = None,
) -> SegmentationData:
    """Decode (or draw) one split.

    Args:
        config: the recipe's data section.
        split: train or val.
        budget_bytes: data whose decoded tensors are larger are not held in memory; None = no limit.
        progress: told what is done, how far it is and how much there is.
        cache: folder for decoded data that do not fit the budget; None = refuse them.
        warn: told of a cache that was damaged and is made anew.
        tell: told of data that are mapped from the cache, before they are decoded or checked.

    Raises:
        DataError: the data cannot be read, or fit neither the budget nor the cache's disk.
    """
    source = BUILDERS[config.kind](config, split)
    if cache is not None and budget_bytes is not None and source.nbytes > budget_bytes:
        return load_cached(source, cache, progress, warn, tell)
    check_budget(source.what, source.nbytes, budget_bytes, source.advice)
    return load(source, progress)


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Names of the classes in index order, without decoding anything.

    Raises:
        DataError: the classes file is missing or malformed.
    """
    return CLASS_NAMES[config.kind](config)
