"""Waiting for what programs, threads and screens bring about: the only waits of the tests.

A wait ends as soon as its condition holds, so that patience costs nothing where all is well. On a machine that is busy
with something else, ``MMTUI_TEST_PATIENCE=3`` makes every wait, and pytest's limit for a test, three times as long.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

FACTOR = float(os.environ.get("MMTUI_TEST_PATIENCE", "") or 1)
PATIENCE = 120.0 * FACTOR
"""Seconds after which nothing is expected any more."""

T = TypeVar("T")
Seen = Callable[[], object]


def breathe() -> None:
    """Let the others work for a moment."""
    time.sleep(0.02)


def until(
    condition: Callable[[], T],
    what: str = "",
    seen: Seen | None = None,
    meanwhile: Callable[[], object] = breathe,
    seconds: float = PATIENCE,
) -> T:
    """The condition's answer, as soon as that is something; between two questions ``meanwhile`` is done.

    Raises:
        AssertionError: it never came. Tells what was awaited, else the condition's own line, and what ``seen`` gives
            instead, else what the condition is about.
    """
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() > end  # looked at first: however long this process slept, it asks once more
        if answer := condition():
            return answer
        assert not late, in_vain(condition, what, seen, seconds)
        meanwhile()


async def until_async(condition: Callable[[], T], what: str = "", seen: Seen | None = None) -> T:
    """The same for a test that shares its thread with the screen."""
    end = time.monotonic() + PATIENCE
    while True:
        late = time.monotonic() > end
        if answer := condition():
            return answer
        assert not late, in_vain(condition, what, seen, PATIENCE)
        await asyncio.sleep(0.02)


def in_vain(condition: Callable[[], object], what: str, seen: Seen | None, seconds: float) -> str:
    """What a wait that has failed says."""
    instead = str(seen() if seen else around(condition))
    return f"waited {seconds:g} s for {what or line_of(condition)}" + (f"; seen instead:\n{instead}" if instead else "")


def line_of(condition: Callable[[], object]) -> str:
    """Where a condition is written down."""
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)


def around(condition: Callable[[], object]) -> str:
    """What a condition looks at: of a program the text of its screen."""
    try:
        names = inspect.getclosurevars(condition).nonlocals
    except TypeError:  # a method
        return ""
    return "\n".join(f"{name}: {screen_of(value) or repr(value)[:2000]}" for name, value in names.items())


def screen_of(value: Any) -> str:
    """What a Textual program shows, "" of anything else."""
    try:
        strips = value.screen._compositor.render_strips(value.screen.size)
    except (AttributeError, LookupError):
        return ""
    return "".join(f"\n{strip.text.rstrip()}" for strip in strips)
