"""Which data sets there are. A new one is a file beside this and one line in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from engine.config.schema import DataConfig
from engine.data import folder, shapes
from engine.data.dataset import Progress, SegmentationData

Split = Literal["train", "val"]
Builder = Callable[[Any, Split, int | None, Progress | None], SegmentationData]

BUILDERS: dict[str, Builder] = {
    "shapes": shapes.build,
    "folder": folder.build,
}
CLASS_NAMES: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "shapes": shapes.class_names,
    "folder": folder.class_names,
}


def build_data(
    config: DataConfig,
    split: Split,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> SegmentationData:
    """Decode (or draw) one split.

    Args:
        config: the recipe's data section.
        split: train or val.
        budget_bytes: refuse data whose decoded tensors are larger; None = no limit.
        progress: told what is done, how far it is and how much there is.

    Raises:
        DataError: the data cannot be read, or do not fit the budget.
    """
    return BUILDERS[config.kind](config, split, budget_bytes, progress)


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Names of the classes in index order, without decoding anything.

    Raises:
        DataError: the classes file is missing or malformed.
    """
    return CLASS_NAMES[config.kind](config)
