"""What the values of each kind of event are (docs/events.md), held against what a file or a row says. Pure.

A trainer writes what it likes, and an event file may come from anybody: what is none of these is left out, so that
nobody who reads them has to ask again.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

LARGEST = 2**63 - 1
"""Largest integer that SQLite stores."""
LARGEST_STEP = 2**53
"""Largest step: floats, and programs in JavaScript, hold every integer up to here."""
LONGEST_TEXT = 16_384
"""Characters of a text within values; more are cut off."""
LONGEST_NAME = 512
"""Characters of a name: of a metric, a class, a stage, a file."""
MOST_CLASSES = 4_096
MOST_METRICS = 1_000
"""Numbers of one ``metrics`` event, and names of metrics of one run."""
MOST_STAGES = 100
MOST_NODES = 1_000_000
MOST_BINS = 1_000
MOST_TEXTS = 1_000

SHA256 = re.compile("[0-9a-f]{64}")

Check = Callable[[Any], Any]
"""The value as it is kept. Raises ``ValueError`` for one that is none of its kind."""


def sound(kind: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values that are what docs/events.md says of their kind, and the names of those that were left out.

    A value of None counts as one that nobody told. Values that no kind knows stay as they are, but for infinities and
    NaN in them, for which JSON has no form.

    Returns:
        (values, names); of ``metrics`` all values are finite numbers or None.
    """
    if kind == "metrics":
        return _metrics(values)
    known, kept, left = _KINDS.get(kind, {}), dict[str, Any](), list[str]()
    for name, value in values.items():
        try:
            kept[name] = value if value is None else known.get(name, _any)(value)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            left.append(name)
    for name in _ODD.get(kind, _nothing_odd)(kept):
        del kept[name]
        left.append(name)
    return kept, left


def _metrics(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    kept, left = dict[str, Any](), list[str]()
    for name, value in values.items():
        if type(value) is float and math.isfinite(value):  # most are: first
            fits: float | None = value
        else:
            fits = finite(value)
        if (fits is None and value is not None) or not name or len(name) > LONGEST_NAME or len(kept) == MOST_METRICS:
            left.append(name)
        else:
            kept[name] = fits
    return kept, left


def whole(value: Any) -> int | None:
    """A count from 0 to the largest integer SQLite stores, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if 0 <= value <= LARGEST else None


def finite(value: Any) -> float | None:
    """A finite number as float, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


# ---- kinds of values -------------------------------------------------------------------------------------------------


def _any(value: Any) -> Any:
    level = [value]
    while level:
        if any(isinstance(part, float) and not math.isfinite(part) for part in level):
            raise ValueError
        level = [part for one in level if isinstance(one, dict | list) for part in _parts(one)]
    return value


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _count(value: Any, largest: int = LARGEST) -> int:
    found = whole(value)
    if found is None or found > largest:
        raise ValueError
    return found


def _number(value: Any) -> float:
    found = finite(value)
    if found is None:
        raise ValueError
    # An integer stays one where it can: it is shown without a point.
    return value if isinstance(value, int) and abs(value) <= LARGEST_STEP else found


def _text(value: Any, longest: int = LONGEST_TEXT) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _list(value: Any, item: Check, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError
    return [item(one) for one in value]


def _tuple(value: Any, *items: Check) -> list[Any]:
    if not isinstance(value, list) or len(value) != len(items):
        raise ValueError
    return [item(one) for item, one in zip(items, value, strict=True)]


def _table(value: Any, key: Check, item: Check, most: int) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > most:
        raise ValueError
    for name in value:
        key(name)
    return {name: item(one) for name, one in value.items()}


def _index(value: Any) -> str:
    """The index of a class, as it is written as a key."""
    if not isinstance(value, str) or not (value.isascii() and value.isdigit()) or str(int(value[:6])) != value:
        raise ValueError
    _class(int(value))
    return value


def _matrix(value: Any) -> list[list[int]]:
    if not isinstance(value, list) or not value or len(value) > MOST_CLASSES:
        raise ValueError
    return [_counts(row, len(value)) for row in value]


def _counts(row: Any, length: int) -> list[int]:
    """A list of so many counts. Of thousands of classes there are millions of cells: they are looked at in C."""
    if not isinstance(row, list) or len(row) != length:
        raise ValueError
    try:
        if min(array("q", row)) >= 0:
            return row
    except (TypeError, OverflowError):
        pass
    return [_count(cell) for cell in row]


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _or_minus_one(value: Any) -> int:
    return -1 if value == -1 else _count(value, MOST_NODES)


def _word(value: Any) -> Any:
    """A text, a truth, a number or None: what a table of words may hold."""
    if value is None:
        return None
    return value if isinstance(value, bool) else _text(value) if isinstance(value, str) else _number(value)


_name: Check = partial(_text, longest=LONGEST_NAME)
_step: Check = partial(_count, largest=LARGEST_STEP)
_class: Check = partial(_count, largest=MOST_CLASSES - 1)
_names: Check = partial(_list, item=_name, most=MOST_CLASSES)
_texts: Check = partial(_list, item=_text, most=MOST_TEXTS)
_words: Check = partial(_table, key=_name, item=_word, most=MOST_TEXTS)
_classes: Check = partial(_table, key=_index, item=_count, most=MOST_CLASSES)
_bins: Check = partial(_list, item=_count, most=MOST_BINS)
_nodes: Check = partial(_list, item=partial(_count, largest=MOST_NODES), most=MOST_NODES)
_places: Check = partial(_list, item=_or_none(_number), most=MOST_NODES)


def _plan(value: Any) -> list[Any]:
    """Stages and their steps."""
    return _list(value, lambda item: _tuple(item, _name, _step), MOST_STAGES)


def _pairs(value: Any) -> list[Any]:
    """Two classes and a number, each."""
    return _list(value, lambda item: _tuple(item, _class, _class, _count), MOST_NODES)


def _measured(value: Any) -> dict[str, Any]:
    """{stage: {what was measured: number}}."""
    return _table(value, _name, partial(_table, key=_name, item=_number, most=MOST_TEXTS), MOST_STAGES)


def _code(value: Any) -> dict[str, Any]:
    """The SHA-256 of a trainer's code, and whether what was hashed is what was loaded."""
    if not SHA256.fullmatch(_text(value["sha256"])):
        raise ValueError
    return {"sha256": value["sha256"], "held": _truth(value["held"])}


def _first(value: Any) -> dict[str, Any]:
    """{part: its first names}."""
    return _table(value, _name, _texts, MOST_TEXTS)


def _all(check: Check, *names: str) -> dict[str, Check]:
    return dict.fromkeys(names, check)


_KINDS: Mapping[str, Mapping[str, Check]] = {
    "run_started": {
        **_all(_count, "attempt", "pid", "threads", "processes"),
        **_all(_name, "host", "device", "resumed_stage", "precision"),
        **_all(_step, "resumed_step", "resumed_global_step"),
        "seed": _number,
        "stages": _plan,
        "versions": _words,
        "classes": _names,
        "forked_from": _words,
        "code": _code,
    },
    "stage_started": _all(_step, "total_steps", "offset", "resumed_step"),
    "stage_data": _all(_step, "images_per_step", "images_per_epoch"),
    "weights": {
        "file": _text,
        **_all(_count, "loaded", "left_out", "missing", "unexpected", "mismatched"),
        "first": _first,
        "partial": _truth,
        "notes": _texts,
    },
    "class_weights": {
        "classes": _names,
        "weights": partial(_list, item=_number, most=MOST_CLASSES),
        "pixels": partial(_list, item=_count, most=MOST_CLASSES),
    },
    "progress": {"text": _text, **_all(_count, "done", "total"), "eta_seconds": _number},
    "graph": {
        **_all(_count, "graphs", "nodes", "attractive_edges", "rejective_edges", "classes_present", "singletons"),
        **_all(_count, "no_negative", "empty_graphs", "degree_max", "overlap_rejections", "topped_up"),
        **_all(_number, "patch_size_mean", "patch_size_min", "patch_size_max", "padding_share", "purity_mean"),
        **_all(_number, "degree_mean", "active_triplets", "d_pos_mean", "d_neg_mean", "d_hist_max"),
        **_all(_classes, "nodes_per_class", "components_per_class", "starved"),
        **_all(_bins, "d_pos_hist", "d_neg_hist"),
        "class_pairs": _pairs,
    },
    "confusion": {
        "matrix": _matrix,
        "classes": _names,
        **_all(_count, "images", "networks"),
        **_all(_text, "split", "predictions", "protocol", "weights", "checkpoint"),
        "checkpoint_step": _step,
    },
    "image": {"index": _count, **_all(_text, "kind", "name", "image", "truth", "prediction")},
    "projection": {
        **_all(_places, "x", "y"),
        "label": partial(_list, item=_class, most=MOST_NODES),
        **_all(_nodes, "positive", "order"),
        "negative": partial(_list, item=_or_minus_one, most=MOST_NODES),
    },
    "checkpoint": {"path": _text, "seconds": _number, "bytes": _count},
    "best": {"metric": _name, "step": _step, "value": _number, "weights": _text},
    "early_stop": {
        "metric": _name,
        **_all(_step, "step", "total_steps"),
        "value": _number,
        "patience": _count,
    },
    "warning": {"text": _text, "about": _name, "splits": _count},
    "supervision": {"splits": _names},
    "heartbeat": {"rss": _count},
    "stage_finished": {
        **_all(_number, "seconds", "replayed_worst"),
        **_all(_count, "replayed", "replayed_equal"),
        "reused": _truth,
        "stopped_early": _step,
    },
    "stage_reused": {"key": _text, "run": _word, "saved_seconds": _number},
    "data": {"fingerprint": _text},
    "data_cache": {**_all(_text, "label", "folder"), "bytes": _count, "found": _truth},
    "probe": {"stages": _measured, "peak_bytes": _count, "device": _text},
    "error": {"text": _text, "type": _text},
    "run_finished": {"status": _name},
}


def _odd_projection(values: Mapping[str, Any]) -> list[str]:
    """Lists of a projection that do not belong to the same nodes."""
    labels = values.get("label") or []
    odd = [name for name in ("x", "y", "positive", "negative") if len(values.get(name) or labels) != len(labels)]
    odd += [
        name
        for name in ("positive", "negative")
        if name not in odd and max(values.get(name) or (-1,)) >= max(len(labels), 0)
    ]
    order = values.get("order")
    if order and sorted(order) != list(range(len(labels))):
        odd.append("order")
    return odd


def _odd_confusion(values: Mapping[str, Any]) -> list[str]:
    """More names than classes."""
    matrix, names = values.get("matrix"), values.get("classes")
    return ["classes"] if matrix and names and len(names) > len(matrix) else []


def _nothing_odd(values: Mapping[str, Any]) -> list[str]:
    return []


_ODD: Mapping[str, Callable[[Mapping[str, Any]], Sequence[str]]] = {
    "projection": _odd_projection,
    "confusion": _odd_confusion,
}
