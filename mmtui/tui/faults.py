"""The last line of defence: what nobody expected to fail becomes one sentence on the screen and a page in a log.

It needs no Textual: the feed begins before that is loaded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Protocol, TypeVar

from mmtui.domain.faults import MOST_CHARACTERS, sentence
from mmtui.domain.text import printable, shorten
from mmtui.errors import MmtuiError
from mmtui.paths import Home

Answer = TypeVar("Answer")

MOST_BYTES = 2**20
"""Of the log: when it is full nothing is added."""
MOST_OF_ONE = 2**14
"""Characters of one traceback."""

_WRITTEN: set[tuple[object, ...]] = set()
"""Faults that stand in a log: a screen would meet the same one again and again."""
_LOCK = threading.Lock()


def told(home: Home | None, where: object, error: BaseException) -> str:
    """One sentence on an exception; where it comes from is added to the log of the screen, once a process.

    Args:
        home: the data directory, None if there is none to write to.
        where: what failed, for the log.
    """
    text = sentence(error)
    if home is None or isinstance(error, MmtuiError) or not _logged(home, where, error):
        return text
    return f"{text} (see {printable(str(home.screen_log))})"


class Part(Protocol):
    """A part of a screen, or the program itself."""

    @property
    def app(self) -> object:
        """The program that it belongs to."""


@contextmanager
def outlived(part: Part, where: object) -> Iterator[None]:
    """What fails in here is told by the program that ``part`` of a screen belongs to, and everything else goes on."""
    try:
        yield
    except Exception as error:
        tell = getattr(part.app, "tell_fault", None)
        if tell is None:
            raise
        tell(where, error)


def outliving(part: Part, answered: Callable[[Answer], object]) -> Callable[[Answer], Awaitable[None]]:
    """The same for what is done with a dialog's answer."""

    async def guarded(answer: Answer) -> None:
        with outlived(part, "a dialog's answer"):
            result = answered(answer)
            if isawaitable(result):
                await result

    return guarded


def _logged(home: Home, where: object, error: BaseException) -> bool:
    """Whether the log tells of this fault."""
    with _LOCK:
        key = (home, *_place(error))
        if key not in _WRITTEN:
            try:
                if not _append(home, _page(where, error)):
                    return False
            except OSError:
                return False  # a full disk, say: the screen goes on without a log
            _WRITTEN.add(key)
        return True


def _place(error: BaseException) -> tuple[object, ...]:
    """What makes a fault the same as another: its type and the line that raised it."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = (last.tb_frame.f_code.co_filename, last.tb_lineno) if last is not None else ()
    return (type(error).__qualname__, *where)


def _page(where: object, error: BaseException) -> str:
    import traceback

    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception may fail at being told of
        text = type(error).__name__
    lines = "\n".join(printable(line) for line in text.splitlines())
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shorten(printable(str(where)), MOST_CHARACTERS)}"
    return f"{head}\n{lines[-MOST_OF_ONE:]}\n\n"


def _append(home: Home, page: str) -> bool:
    """Add a page to the log; False if there is no room left in it."""
    data = page.encode("utf-8", "backslashreplace")
    descriptor = os.open(home.screen_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size + len(data) > MOST_BYTES:
            return False
        return os.write(descriptor, data) == len(data)
    finally:
        os.close(descriptor)
