"""Keys one after the other: each acts on what the one before has left behind, however fast they come.

Textual hands a key to the widget that has the focus when the key is read. Of ``enter`` and a letter that come in one
piece the letter therefore reaches the old widget, since the focus moves only when enter has been dealt with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual.events import Event, Key
from textual.message_pump import MessagePump
from textual.widgets import Input

if TYPE_CHECKING:
    from textual.app import App

ROUNDS = 4
"""A key passes from a widget up to the app; so may what it sets off, and what that sets off (a dialog's answer)."""
SETTLE_SECONDS = 10.0
"""Longest wait for one key's effects: a part of the screen that hangs must not hold up the keyboard for ever."""
GONE_SECONDS = 0.1
"""How often a part of the screen that has not answered is asked whether it is still there."""
BUSY_SECONDS = 0.02
"""How often a screen that is busy with a key's effects is asked whether it is done."""
BREAKS = ("escape", "ctrl+c")
"""Keys that reach a busy screen at once; what waits to be dealt with is dropped."""


class KeyOrder:
    """Hands keys and pasted text to the app, one at a time.

    A screen may say that it is still at work on a key, in a thread say, by an attribute ``busy`` that is true.

    Args:
        handle: what the app does with a key.
    """

    def __init__(self, app: App[Any], handle: Callable[[Event], Awaitable[None]]) -> None:
        self._app, self._handle = app, handle
        self._waiting: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether every key that came has been dealt with."""
        return self._task is None or self._task.done()

    def take(self, event: Event) -> None:
        """A key or a pasted text, which has its turn when those before it have had theirs."""
        if isinstance(event, Key) and event.key in BREAKS and self._busy():
            self._waiting.clear()
            self._app.call_later(self._handle, event)
            return
        self._waiting.append(event)
        if self.idle:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting and self._app.is_running:
            self._hand_over()
            await self._settle()
            while self._busy():
                await asyncio.sleep(BUSY_SECONDS)
                if not self._busy():
                    await self._settle()

    def _hand_over(self) -> None:
        """Give the app the next key; of a line that is typed or pasted into a field all letters at once."""
        event = self._waiting.popleft()
        self._app.call_later(self._handle, event)
        while _is_letter(event) and self._waiting and _is_letter(self._waiting[0]) and self._in_field():
            self._app.call_later(self._handle, self._waiting.popleft())

    def _in_field(self) -> bool:
        stack = self._app.screen_stack if self._app.is_running else []
        return bool(stack) and isinstance(stack[-1].focused, Input)

    def _busy(self) -> bool:
        stack = self._app.screen_stack if self._app.is_running else []
        return bool(stack and getattr(stack[-1], "busy", False))

    async def _settle(self) -> None:
        """Wait until everything that a key has set off has been dealt with."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                for _ in range(ROUNDS):
                    for pump in self._pumps():
                        await _passed(pump)

    def _pumps(self) -> Iterator[MessagePump]:
        """From what has the focus up to the app, as a message goes."""
        stack = self._app.screen_stack if self._app.is_running else []
        if stack:
            yield from (stack[-1].focused or stack[-1]).ancestors_with_self
        else:
            yield self._app


def _is_letter(event: Event) -> bool:
    return isinstance(event, Key) and event.is_printable


async def _passed(pump: MessagePump) -> None:
    """Wait until a part of the screen has dealt with all messages that it has got up to now."""
    reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if not pump.call_later(_resolve, reached):
        return
    while not reached.done() and pump.is_running:
        await asyncio.wait({reached}, timeout=GONE_SECONDS)


def _resolve(reached: asyncio.Future[None]) -> None:
    if not reached.done():
        reached.set_result(None)
