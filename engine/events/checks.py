"""What a value of an event may be: one check for each kind of value. Pure.

A check gives the value as it is kept, and raises ``ValueError`` or ``TypeError`` for one that is none of its kind.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeAlias, TypedDict, TypeGuard, TypeVar

from engine.events.numbers import LARGEST_INTEGER, LARGEST_STEP, finite, whole
from engine.json_types import Json

T = TypeVar("T")
Check: TypeAlias = Callable[[object], T]

LONGEST_TEXT = 16_384
"""Characters of a text within values; more are cut off."""
LONGEST_NAME = 512
"""Characters of a name: of a metric, a class, a stage, a file."""
MOST_CLASSES = 4_096
MOST_STAGES = 100
MOST_NODES = 1_000_000
MOST_BINS = 1_000
MOST_TEXTS = 1_000
SHA256 = re.compile("[0-9a-f]{64}")

Word: TypeAlias = "str | bool | int | float | None"
"""What a table of words may hold."""


# ---- one value -------------------------------------------------------------------------------------------------------


def json_value(value: object) -> Json:
    """Anything that JSON has a form for: no NaN and no infinity, however deep."""
    if not _has_a_form(value):
        raise ValueError
    return value


def _has_a_form(value: object) -> TypeGuard[Json]:
    level = [value]
    while level:
        if any(isinstance(part, float) and not math.isfinite(part) for part in level):
            return False
        level = [part for one in level if isinstance(one, dict | list) for part in _parts(one)]
    return True


def _parts(value: dict[object, object] | list[object]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


def count(value: object, largest: int = LARGEST_INTEGER) -> int:
    """A whole number from 0 on."""
    found = whole(value)
    if found is None or found > largest:
        raise ValueError
    return found


def number(value: object) -> float:
    """A finite number."""
    found = finite(value)
    if found is None:
        raise ValueError
    # An integer stays one where it can: it is shown without a point.
    return value if isinstance(value, int) and abs(value) <= LARGEST_STEP else found


def text(value: object, longest: int = LONGEST_TEXT) -> str:
    """A text that is not too long."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError
    return value


def truth(value: object) -> bool:
    """True or false, and no number."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def word(value: object) -> Word:
    """A text, a truth, a number or None."""
    if value is None or isinstance(value, bool):
        return value
    return text(value) if isinstance(value, str) else number(value)


def number_or_none(value: object) -> float | None:
    """A finite number, or None for one that is not known."""
    return None if value is None else number(value)


def node_or_none(value: object) -> int:
    """The index of a node, -1 for none."""
    return -1 if value == -1 else count(value, MOST_NODES)


name: Check[str] = partial(text, longest=LONGEST_NAME)
step: Check[int] = partial(count, largest=LARGEST_STEP)
class_index: Check[int] = partial(count, largest=MOST_CLASSES - 1)
_node: Check[int] = partial(count, largest=MOST_NODES)


# ---- several ---------------------------------------------------------------------------------------------------------


def list_of(value: object, item: Check[T], most: int) -> list[T]:
    """A list of at most so many."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError
    return [item(one) for one in value]


def table_of(value: object, key: Check[str], item: Check[T], most: int) -> dict[str, T]:
    """An object of at most so many keys."""
    if not isinstance(value, Mapping) or len(value) > most:
        raise ValueError
    return {key(name): item(one) for name, one in value.items()}


def _exactly(value: object, length: int) -> list[object]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError
    return value


names: Check[list[str]] = partial(list_of, item=name, most=MOST_CLASSES)
texts: Check[list[str]] = partial(list_of, item=text, most=MOST_TEXTS)
words: Check[dict[str, Word]] = partial(table_of, key=name, item=word, most=MOST_TEXTS)
bins: Check[list[int]] = partial(list_of, item=count, most=MOST_BINS)
nodes: Check[list[int]] = partial(list_of, item=_node, most=MOST_NODES)
nodes_or_none: Check[list[int]] = partial(list_of, item=node_or_none, most=MOST_NODES)
labels: Check[list[int]] = partial(list_of, item=class_index, most=MOST_NODES)
coordinates: Check[list[float | None]] = partial(list_of, item=number_or_none, most=MOST_NODES)
weights: Check[list[float]] = partial(list_of, item=number, most=MOST_CLASSES)
counts: Check[list[int]] = partial(list_of, item=count, most=MOST_CLASSES)
parts: Check[dict[str, list[str]]] = partial(table_of, key=name, item=texts, most=MOST_TEXTS)
"""{part: its first names}."""


def _class_key(value: object) -> str:
    """The index of a class, as it is written as a key."""
    if not isinstance(value, str) or not (value.isascii() and value.isdigit()) or str(int(value[:6])) != value:
        raise ValueError
    class_index(int(value))
    return value


by_class: Check[dict[str, int]] = partial(table_of, key=_class_key, item=count, most=MOST_CLASSES)
"""{index of a class: a count}."""


def _stage(value: object) -> tuple[str, int]:
    title, steps = _exactly(value, 2)
    return name(title), step(steps)


plan: Check[list[tuple[str, int]]] = partial(list_of, item=_stage, most=MOST_STAGES)
"""(stage, its steps) of each."""


def _pair(value: object) -> tuple[int, int, int]:
    first, second, found = _exactly(value, 3)
    return class_index(first), class_index(second), count(found)


class_pairs: Check[list[tuple[int, int, int]]] = partial(list_of, item=_pair, most=MOST_NODES)
"""(class, class, count) of each."""
_numbers: Check[dict[str, float]] = partial(table_of, key=name, item=number, most=MOST_TEXTS)
measured: Check[dict[str, dict[str, float]]] = partial(table_of, key=name, item=_numbers, most=MOST_STAGES)
"""{stage: {what was measured: number}}."""


class LoadedCode(TypedDict):
    """What a trainer says of the code that it runs."""

    sha256: str  # of the files that it was loaded from, 64 hexadecimal digits
    held: bool  # whether what was hashed is what was loaded


def loaded_code(value: object) -> LoadedCode:
    """The SHA-256 of a trainer's code, and whether what was hashed is what was loaded."""
    if not isinstance(value, Mapping) or not SHA256.fullmatch(digest := text(value.get("sha256"))):
        raise ValueError
    return {"sha256": digest, "held": truth(value.get("held"))}


def matrix(value: object) -> list[list[int]]:
    """A square of counts."""
    if not isinstance(value, list) or not value or len(value) > MOST_CLASSES:
        raise ValueError
    return [_row(row, len(value)) for row in value]


def _row(row: object, length: int) -> list[int]:
    """So many counts. Of thousands of classes there are millions of cells: they are looked at in C."""
    if not isinstance(row, list) or len(row) != length:
        raise ValueError
    try:
        if min(array("q", row)) >= 0:
            return row
    except (TypeError, OverflowError):
        pass
    return [count(cell) for cell in row]
