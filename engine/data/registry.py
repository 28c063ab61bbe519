"""Which data sets there are. A new one is a file beside this and its lines in these tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config.schema import DataConfig
from engine.data import cityscapes, folder, shapes, voc
from engine.data.cache import Tell, Warn, load_cached
from engine.data.dataset import SegmentationData
from engine.data.decoding import load
from engine.data.limits import check_budget
from engine.data.listings import Split
from engine.data.source import Source
from engine.data.values import Progress

BUILDERS: dict[str, Callable[[Any, str], Source]] = {
    "shapes": shapes.source,
    "folder": folder.source,
    "voc": voc.source,
    "cityscapes": cityscapes.source,
}


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
