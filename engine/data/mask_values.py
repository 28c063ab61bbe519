"""Why masks hold values that are no classes: what all values together look like, and the conversion that helps."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engine.data.values import VOID

SHOWN = 6
"""How many values a sentence names one by one."""
SMALLEST_STEP = 3
"""Of indices that are stretched: at smaller ones almost any values would look so."""


@dataclass(frozen=True)
class Cause:
    """What values look like.

    Attributes:
        text: the cause and the conversion, continuing "there are 3 classes (0 to 2): ...".
        becomes: the class index, or 255, that each value stands for.
    """

    text: str
    becomes: dict[int, int]

    @property
    def advice(self) -> str:
        """The cause, the conversion, and the key of the recipe that spares it."""
        changed = ", ".join(f"{value}: {index}" for value, index in sorted(self.becomes.items()) if value != index)
        return f"{self.text}, or set 'data.label_map={{{changed}}}'" if changed else self.text


def likely_cause(values: Collection[int], meaning: Sequence[int], count: int) -> Cause | None:
    """The cause that fits all values, if they need one: some are not allowed, or of two classes only 0 and void occur.

    Args:
        values: that occur in masks, of all of them or of one.
        meaning: of each value 0 .. 255 its class, 255 = void, or -1 = not allowed; classes are counted from 0.
        count: number of classes.
    """
    present = set(values)
    wrong = {value for value in present if meaning[value] < 0}
    if not wrong and not (count == 2 and present == {0, 255}):
        return None
    indices = {value for value in present if meaning[value] != VOID}
    return _stretched(present, count) or _from_one(indices, wrong, count) or _multiplied(indices, count)


def _stretched(present: set[int], count: int) -> Cause | None:
    """0 to 255 in as many equal steps as there are classes, rounded in either way: 255 is the last class."""
    if count < 2 or 255 / (count - 1) < SMALLEST_STEP or 255 not in present or not _is_evidence(present, count):
        return None
    becomes = {}
    for value in present:
        index = round(value * (count - 1) / 255)
        if abs(index * 255 / (count - 1) - value) >= 1:
            return None
        becomes[value] = index
    if len(set(becomes.values())) < len(becomes):
        return None
    old, new = sorted(becomes), sorted(becomes.values())
    return Cause(f"class indices look stretched to 0-255: write {_some(new)} for {_some(old)}", becomes)


def _from_one(indices: set[int], wrong: set[int], count: int) -> Cause | None:
    """1 to the number of classes, and no 0 that is a class."""
    if wrong != {count} or 0 in indices or not _is_evidence(indices, count):
        return None
    text = f"classes look counted from 1, as 0 is none and {count} occurs: subtract 1 from every value but void"
    return Cause(text, {value: value - 1 for value in indices})


def _multiplied(indices: set[int], count: int) -> Cause | None:
    """Multiples of one number, so that the picture can be seen."""
    step = math.gcd(*indices)
    if step < 2 or max(indices) // step >= count or not _is_evidence(indices, count):
        return None
    text = f"class indices look multiplied by {step} ({_some(sorted(indices))}): divide every value but void by {step}"
    return Cause(text, {value: value // step for value in indices})


def _is_evidence(values: set[int], count: int) -> bool:
    """Whether there are values of half the classes at least: a few fit many rules."""
    return len(values) >= max(min(count, 2), (count + 1) // 2)


def _some(values: Sequence[int]) -> str:
    if len(values) <= SHOWN:
        return ", ".join(map(str, values))
    return f"{', '.join(map(str, values[: SHOWN - 2]))}, ... {values[-1]}"
