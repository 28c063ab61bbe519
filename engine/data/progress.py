"""Progress of long reading: told now and then, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.streams import redraw

SECONDS_BETWEEN = 0.5
LINE = 79


class Paced:
    """A ``Progress`` that passes on the first report of a task, its last, and one each half second between.

    Args:
        tell: called with (what is being done, items done, items in all, seconds left or None).
        always: called on every report; may raise to stop the work.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        tell: Callable[[str, int, int, float | None], None],
        always: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._always, self._clock = tell, always, clock
        self._text = ""
        self._began = self._told = (0.0, 0)

    def __call__(self, text: str, done: int, total: int) -> None:
        now = self._clock()
        first = text != self._text or done < self._told[1]
        if first:
            self._text, self._began = text, (now, done)
        if first or done == total or now - self._told[0] >= SECONDS_BETWEEN:
            self._told = (now, done)
            self._tell(text, done, total, self._left(now, done, total))
        self._always()

    def _left(self, now: float, done: int, total: int) -> float | None:
        """Seconds left if it goes on as fast as since the first report."""
        passed, items = now - self._began[0], done - self._began[1]
        return passed / items * (total - done) if items > 0 else None


def terminal_line(text: str, done: int, total: int, left: float | None) -> None:
    """Write progress over the last line of stderr; the line is wiped at the end."""
    eta = f", {left:.0f} s left" if left is not None else ""
    line = "" if done == total else f"{text} {done}/{total}{eta}"
    redraw(line, LINE)
