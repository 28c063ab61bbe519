"""Checks what is entered for a new run, in a thread, so that the screen draws and takes keys meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mmtui.paths import Home
from mmtui.services import forecast, recipe_form
from mmtui.services.run_check import RunCheck, check_run
from mmtui.tui import faults
from mmtui.tui.screens.run_request import NewRun

MOST_CHECKED = 8
"""Runs of a sweep that are checked while one types; all are when they are queued."""
QUIET_SECONDS = 0.05
"""Between two letters of a line that is typed at a stretch: it is checked at its end."""
SLOW_SECONDS = 0.2
"""A check that takes longer is told of: until then the last one's words stay."""


@dataclass(frozen=True)
class Pending:
    """A value that was typed into a field and is not among the overrides yet.

    Attributes:
        recipe: its name.
        overrides: those before the field was edited.
        key: the field's key.
        text: its new value, as typed.
    """

    recipe: str
    overrides: tuple[str, ...]
    key: str
    text: str


class Entry(Protocol):
    """Where a run is entered."""

    def entered(self) -> NewRun | None:
        """What is entered now, None without a recipe or when the dialog is closed."""

    def write(self, overrides: Sequence[str], key: str) -> None:
        """Take these overrides: the value of a key was changed."""

    def show(self, found: RunCheck) -> None:
        """Show what was found about what is entered."""

    def tell(self, text: str, kind: str) -> bool:
        """Say a line."""


def _what(entered: NewRun | None) -> NewRun | None:
    """What there is to check: any text is a good name."""
    return replace(entered, name="") if entered is not None else None


class RunChecker:
    """Everything is checked once more when it has changed meanwhile, so the last word is about what is entered."""

    def __init__(self, home: Home, entry: Entry) -> None:
        self.home, self.entry = home, entry
        self.costs: forecast.Costs | None = None
        self.checked: NewRun | None = None
        """What was entered when it was last checked."""
        self.pending: Pending | None = None
        self._read, self._turn, self._looking = asyncio.Event(), asyncio.Lock(), False

    @property
    def ready(self) -> bool:
        """Whether what reading recipes needs is there; before, nothing is checked."""
        return self._read.is_set()

    def begin(self, costs: forecast.Costs | None) -> None:
        """Recipes can be read now; ``costs`` tells what runs cost, None = unknown."""
        self.costs = costs
        self._read.set()

    @property
    def settled(self) -> bool:
        """Whether what was last shown is about what is entered."""
        return self.pending is None and _what(self.checked) == _what(self.entry.entered())

    async def look(self) -> None:
        """Check what is entered; a line that is typed faster than it is checked, at its end."""
        if self.settled or self._looking:
            return
        self._looking = True
        try:
            before: NewRun | None = None
            while before != (before := self.entry.entered()):
                await asyncio.sleep(QUIET_SECONDS)
            await self.settle()
        finally:
            self._looking = False

    async def settle(self) -> None:
        """Check until what is shown is about what is entered, which may change meanwhile."""
        await self._read.wait()
        async with self._turn:
            while not self.settled:
                if self.pending is not None:
                    await self._write(self.pending)
                elif (wanted := self.entry.entered()) is not None:
                    await self._examine(wanted, MOST_CHECKED)
                else:
                    return

    async def check(self, wanted: NewRun, most: int = MOST_CHECKED) -> RunCheck:
        """Check a run or a sweep now, and show what was found."""
        await self._read.wait()
        async with self._turn:
            return await self._examine(wanted, most)

    async def _write(self, pending: Pending) -> None:
        before = pending.overrides
        try:
            written = await asyncio.to_thread(
                recipe_form.with_value, pending.recipe, before, pending.key, pending.text, self.home
            )
        except Exception as error:
            written = before  # the recipe itself does not load any more: the check says why
            faults.told(self.home, "a value of a new run", error)
        if self.pending is pending:
            self.pending = None
            self.entry.write(written, pending.key)

    async def _examine(self, wanted: NewRun, most: int) -> RunCheck:
        loop = asyncio.get_running_loop()
        late = loop.call_later(SLOW_SECONDS, self.entry.tell, "checking ...", "")
        try:
            found = await asyncio.to_thread(
                check_run, self.home, wanted.recipe, wanted.overrides, wanted.options, self.costs, most
            )
        except Exception as error:
            found = RunCheck(None, None, faults.told(self.home, "the check of a new run", error), False)
        finally:
            late.cancel()
        self.checked = wanted
        self.entry.show(found)
        return found
