"""What is said of an exception: one sentence that can go to a terminal."""

from __future__ import annotations

from contextlib import suppress

from mmtui.domain.text import printable, shorten
from mmtui.errors import MmtuiError

MOST_CHARACTERS = 200
"""Of a sentence."""


def named(error: BaseException) -> str:
    """An exception in one line: what it is and what it says."""
    text = ""
    with suppress(Exception):  # an exception may fail at being told of
        text = str(error)
    words = " ".join(text.split())
    return printable(f"{type(error).__name__}{': ' if words else ''}{words}")


def sentence(error: BaseException) -> str:
    """What is said of an exception: the words of one that is meant for users, else that it is a fault of mmtui."""
    if isinstance(error, MmtuiError):
        hint = f" ({error.hint})" if error.hint else ""
        return shorten(printable(f"{error.message}{hint}"), MOST_CHARACTERS)
    return shorten(f"a fault of mmtui: {named(error)}", MOST_CHARACTERS)
