"""Sweeps: one command line that means many runs. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from mmtui.errors import UsageError

MOST = 10_000
"""Runs of one sweep; a slip such as seed=0..99999999 must not fill the queue."""
MOST_DIGITS = 18
_OPEN, _CLOSE = "[{(", "]})"


def expand(texts: Sequence[str], is_text: Callable[[str], bool], *, zipped: bool = False) -> list[tuple[str, ...]]:
    """The overrides of every run that ``key=a,b key=0..4`` asks for, in order; the last key changes fastest.

    Commas in brackets or quotes belong to one value; so do all commas of keys that hold free text.

    Args:
        texts: overrides as typed.
        is_text: whether a key holds free text, such as a path.
        zipped: the n-th value of every swept key goes with the n-th of the others, instead of with each.

    Raises:
        UsageError: with ``zipped``, different numbers of values; a range that is none; too many runs.
    """
    choices = [[text] if is_text(key_of(text)) else _choices(text) for text in texts]
    count = 1
    for several in choices:
        count *= len(several)
    if zipped:
        return _zip(choices)
    if count > MOST:
        raise UsageError(f"the sweep has {count:,} runs; {MOST:,} are the most: give fewer values")
    return list(itertools.product(*choices))


def every_value(members: Sequence[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    """The first and the last run of a sweep, then runs that together have every value; at most ``most``."""
    chosen = list(dict.fromkeys([*members[:1], *members[-1:]]))
    seen = {text for texts in chosen for text in texts}
    for texts in members:
        if len(chosen) >= most:
            break
        if not seen.issuperset(texts):
            chosen.append(texts)
            seen.update(texts)
    return chosen[:most]


def differences(members: Sequence[Sequence[str]]) -> list[str]:
    """What sets each run of a sweep apart, such as ``lr=0.05 seed=1``; a key's last word where that is clear."""
    last = [{key_of(text): text.partition("=")[2] for text in texts} for texts in members]
    shared = set(last[0].items()).intersection(*(one.items() for one in last)) if last else set()
    keys = {key for one in last for key, value in one.items() if (key, value) not in shared}
    ends = [key.rpartition(".")[2] for key in keys]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}
    return [
        " ".join(f"{short[key]}={value}" for key, value in one.items() if (key, value) not in shared) for one in last
    ]


def key_of(text: str) -> str:
    """The key of an override."""
    return text.partition("=")[0].strip()


def swept_keys(texts: Sequence[str], is_text: Callable[[str], bool]) -> list[str]:
    """Keys that have more than one value."""
    return [key_of(text) for text in texts if not is_text(key_of(text)) and len(_choices(text)) > 1]


def _zip(choices: list[list[str]]) -> list[tuple[str, ...]]:
    lengths = {len(several) for several in choices if len(several) > 1}
    if len(lengths) > 1:
        told = ", ".join(f"{key_of(several[0])} has {len(several)}" for several in choices if len(several) > 1)
        raise UsageError(f"--zip needs equally many values for every swept key: {told}")
    count = lengths.pop() if lengths else 1
    return [tuple(several[min(number, len(several) - 1)] for several in choices) for number in range(count)]


def _choices(text: str) -> list[str]:
    key, equals, value = text.partition("=")
    if not equals:
        return [text]
    parts = _split(value)
    found = [item for part in parts for item in _range(key, part.strip())]
    return [f"{key}={item}" for item in found] if len(found) > 1 or len(parts) > 1 else [text]


def _split(value: str) -> list[str]:
    """At commas that stand in no bracket and in no quotes."""
    parts, depth, quote = [""], 0, ""
    for character in value:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _range(key: str, part: str) -> list[str]:
    """``0..4`` and ``0..10..5``, both ends included; anything else is itself."""
    match = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?", part)
    if not match:
        return [part]
    if any(len(number.lstrip("-0")) > MOST_DIGITS for number in match.groups(default="")):
        raise UsageError(f"{key}={part}: write numbers of at most {MOST_DIGITS} digits")
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if last < first or step < 1:
        raise UsageError(f"{key}={part}: a range goes up, for example {key}=0..4 or {key}=0..10..5")
    if (last - first) // step >= MOST:
        raise UsageError(f"{key}={part}: more than {MOST:,} values; give fewer")
    return [str(number) for number in range(first, last + 1, step)]
