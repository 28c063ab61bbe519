"""What the values of the very same masks mean in two recipes: what was trained on the labels depends on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.config.schema import FolderData, Recipe

LEARNED_FROM_LABELS = ("match", "segment")
"""Stages whose output depends on what mask values mean."""
_VOID = 255
_SAME_MASKS = ("root", "labels", "train_split")
"""Keys of a folder that say which masks are trained on: with another one, they are other masks."""


def other_meaning(then: Recipe, now: Recipe, classes: Sequence[str]) -> str:
    """How the first mask value that means something else is read: "data.label_map: value 255 means 1 here and void".

    Args:
        then: the recipe that something was trained with.
        now: another one.
        classes: names of the classes, in index order; () = not known.

    Returns:
        "" if all values mean the same, or if the masks are others anyway, as where ``data.root`` differs.
    """
    before, after = then.data, now.data
    if not isinstance(before, FolderData) or not isinstance(after, FolderData):
        return ""
    if any(getattr(before, key) != getattr(after, key) for key in _SAME_MASKS):
        return ""
    for value in range(_VOID + 1):
        meant, means = (_meaning(data, value, classes) for data in (before, after))
        if meant != means:
            mapped = any(str(value) in data.label_map for data in (before, after))
            key = "data.label_map" if mapped else "data.void_labels"
            return f"{key}: value {value} means {_shown(means, classes)} here and {_shown(meant, classes)}"
    return ""


def _meaning(data: FolderData, value: int, classes: Sequence[str]) -> int | str:
    """The class index, 255 for void, or a name that is not known."""
    mapped: Mapping[str, int | str] = data.label_map
    target = mapped.get(str(value), _VOID if value in (*data.void_labels, _VOID) else value)
    if target in classes:
        return classes.index(target)
    return _VOID if target == "void" else target


def _shown(meaning: int | str, classes: Sequence[str]) -> str:
    if meaning == _VOID:
        return "void"
    return f"{meaning} {classes[meaning]}" if isinstance(meaning, int) and meaning < len(classes) else str(meaning)
