"""Overrides of a run as a person would type them again: in the words of a shell, without what came to nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mmtui.domain.sweeps import key_of

_KIND = "data.kind"


def as_typed(texts: Sequence[str]) -> str:
    """The overrides that count, quoted for a shell."""
    return shlex.join(live(texts))


def live(texts: Sequence[str]) -> tuple[str, ...]:
    """The overrides without those that a later one makes void; any recipe comes out the same without them."""
    return tuple(text for number, text in enumerate(texts) if not _is_void(text, texts[number + 1 :]))


def _is_void(text: str, later: Sequence[str]) -> bool:
    key = key_of(text)
    if key == _KIND:
        return text in later  # another kind drops the keys that it does not have, and a further one brings none back
    return any(key == key_of(other) or key.startswith(f"{key_of(other)}.") or _drops(other, key) for other in later)


def _drops(text: str, key: str) -> bool:
    """Whether an override is another kind of data, to which a key does not belong."""
    if key_of(text) != _KIND or not key.startswith("data."):
        return False
    from engine.config.overrides import kind_lacks

    return kind_lacks(text.partition("=")[2].strip(), key.split(".")[1])
