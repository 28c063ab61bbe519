"""How far the terminal is behind: a slow link gets fewer pictures instead of a growing backlog. Pure.

After a picture the terminal is asked for its cursor's position; its answer comes when it has drawn everything before
it. Until then no further picture is sent that nobody asked for, and on a slow link half of the time is left for keys.
"""

from __future__ import annotations

PATIENCE_SECONDS = 10.0
"""A terminal that has once answered and then is silent for so long gets pictures again."""
UNKNOWN_SECONDS = 4.0
"""So long pictures wait for the very first answer: it may be a terminal that never gives any."""
SLOW_SECONDS = 1.0
QUESTION = "\x1b7\x1b[2;2H\x1b[6n\x1b8"
"""Asked from the second line: an answer from the first one reads like the key F3."""


class Link:
    """What is known of the way to the terminal. Times are those of one monotonic clock."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that the last picture took to get there and back."""
        self._asked_at: float | None = None
        self._drawn_at = -PATIENCE_SECONDS
        self._answers = False

    @property
    def slow(self) -> bool:
        """Whether pictures come so late that it should be said."""
        return self.delay >= SLOW_SECONDS

    def words(self) -> str:
        """What the header says of it, "" while all is well."""
        return f"  slow link: pictures are {self.delay:.0f} s late" if self.slow else ""

    def may_draw(self, now: float) -> bool:
        """Whether a picture that nobody asked for may be sent."""
        if self._asked_at is not None:
            return now - self._asked_at > (PATIENCE_SECONDS if self._answers else UNKNOWN_SECONDS)
        return now - self._drawn_at >= 2 * self.delay

    def drawn(self, now: float) -> bool:
        """A picture was sent; whether to ask for an answer behind it."""
        self._drawn_at = now
        if self._asked_at is not None and not self._answers:
            return False  # one question is out; a terminal that never answers is asked no other
        self._asked_at = now
        return True

    def answered(self, now: float) -> None:
        """The terminal has drawn what was sent before the question, however late that is."""
        if self._asked_at is not None:
            self._answers, self.delay, self._asked_at = True, now - self._asked_at, None
