"""A first look at the masks of a data set, within a second or so: what ends a run is told when it is queued.

``python -m engine.look`` reads ``{"data": section of a recipe, "splits": ["train", "val"], "named": NamedClasses}``
from stdin and writes ``{"problem": "...", "doubts": [...]}``. It loads no torch, and reads as many masks as there is
time for, spread over the split.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from pydantic import TypeAdapter

from engine.config.named_classes import NamedClasses
from engine.config.schema import DataConfig
from engine.data.listings import LISTINGS, class_names
from engine.data.masks import read_mask
from engine.data.pairs import ADVICE, Listing, Pair, check_indices, require_files
from engine.data.supervision import Labels, doubts, refuse, shared_pictures
from engine.data.values import VOID, Progress
from engine.errors import EngineError, RecipeError
from engine.utf8_mode import begin_in_utf8_mode

SECONDS = 1.0
"""For the masks of one split."""


def look(
    config: DataConfig,
    splits: tuple[str, ...],
    seconds: float = SECONDS,
    named: NamedClasses = NamedClasses(),  # noqa: B008 - frozen
) -> list[str]:
    """What makes the score of a run on these data doubtful, as far as some of the masks show it.

    Args:
        splits: train, val or both: those whose labels are read.
        seconds: for the masks of each of them.
        named: classes that the recipe speaks of.

    Raises:
        EngineError: a class is named that the data set has not, a list, a file or a mask is wrong, or every mask was
            read and nothing can come of them.
    """
    found = list[str]()
    if named != NamedClasses():
        for problem in named.problems(class_names(config)):
            raise RecipeError(problem)
    if config.kind not in LISTINGS:
        return found
    for split in splits:
        listing = LISTINGS[config.kind](config, split)
        listing.require_sound()
        require_files(listing.pairs, listing.remedy)
        labels = _counted(listing, seconds)
        refuse(config, labels, listing.rule.classes)
        found += doubts(config, labels, listing.rule.classes)
    if {"train", "val"} <= set(splits):
        with suppress(_TimeOverError):
            found += [text] if (text := shared_pictures(config, _until(time.monotonic() + seconds))) else []
    return found


class _TimeOverError(Exception):
    """What is looked at takes too long to be told now: the run will say."""


def _until(moment: float) -> Progress:
    """Ends work that goes on beyond a moment of the monotonic clock."""

    def tell(_text: str, _done: int, _total: int) -> None:
        if time.monotonic() > moment:
            raise _TimeOverError

    return tell


def _counted(listing: Listing, seconds: float) -> Labels:
    counts, looked_at, until = Counter[int](), 0, time.monotonic() + seconds
    for pair in _spread(listing.pairs):
        mask = read_mask(pair.mask, ADVICE)
        indices = check_indices(mask.meant(listing.rule.meaning, listing.rule.named), mask.picture.file, listing.rule)
        counts.update(dict(enumerate(np.bincount(indices.ravel(), minlength=VOID + 1).tolist())))
        looked_at += 1
        if time.monotonic() > until:
            break
    pixels = tuple(counts[index] for index in range(len(listing.rule.classes)))
    return Labels(listing.split, pixels, counts[VOID], looked_at, len(listing.pairs))


def _spread(pairs: list[Pair]) -> Iterator[Pair]:
    """All of them, in an order in which the first few are spread over the whole."""
    step = 1 << max(len(pairs) - 1, 0).bit_length()
    seen = set[int]()
    while step >= 1:
        for index in range(0, len(pairs), step):
            if index not in seen:
                seen.add(index)
                yield pairs[index]
        step //= 2


def main() -> int:
    """Answer what stdin asks; the exit code is that of a mistake in the data."""
    asked = json.load(sys.stdin)
    config: DataConfig = TypeAdapter(DataConfig).validate_python(asked["data"])
    named = NamedClasses(**{**asked["named"], "weighted": tuple(asked["named"]["weighted"])})
    try:
        answer = {"problem": "", "doubts": look(config, tuple(asked["splits"]), named=named)}
    except (EngineError, OSError) as error:
        answer = {"problem": str(error), "doubts": []}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    begin_in_utf8_mode()
    sys.exit(main())
