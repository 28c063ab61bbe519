"""How far the terminal is behind: a slow link gets fewer pictures instead of a growing backlog. Pure.

After a picture the terminal is asked for its cursor's position; its answer comes when it has drawn everything before
it. Until then no further picture is sent that nobody asked for, and on a slow link half of the time is left for keys.

The answers also tell how many bytes a second get through. Where a picture would take seconds it goes in parts, each of
which waits for the answer to the one before: what is on its way is never more than a part, and so is what a key waits
for.
"""

from __future__ import annotations

PATIENCE_SECONDS = 10.0
"""A terminal that has once answered and then is silent for so long gets pictures again."""
UNKNOWN_SECONDS = 4.0
"""So long pictures wait for the very first answer: it may be a terminal that never gives any."""
SLOW_SECONDS = 1.0
QUESTION = "\x1b7\x1b[2;2H\x1b[6n\x1b8"
"""Asked from the second line: an answer from the first one reads like the key F3."""


NARROW_BYTES = 6000
"""A link that carries fewer bytes a second gets pictures in parts."""
PART_SECONDS, LEAST_PART = 0.6, 400
MEASURED_BYTES = 300
"""Answers to less say something of the way there and back, but nothing of its width."""


class Link:
    """What is known of the way to the terminal. Times are those of one monotonic clock."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that the last whole picture took to get there and back."""
        self.rate: float | None = None
        """Bytes a second, as far as answers have told."""
        self._latency = 0.0
        self._asked_at: float | None = None
        self._began: float | None = None
        self._drawn_at = -PATIENCE_SECONDS
        self._answers = False
        self._sent = self._asked_about = 0

    @property
    def slow(self) -> bool:
        """Whether pictures come so late that it should be said."""
        return self.delay >= SLOW_SECONDS

    @property
    def narrow(self) -> bool:
        """Whether pictures go in parts."""
        return self.rate is not None and self.rate < NARROW_BYTES

    def words(self) -> str:
        """What the header says of it, "" while all is well."""
        return f"  slow link: pictures are {self.delay:.0f} s late" if self.slow else ""

    def room(self, now: float) -> int | None:
        """How many bytes may be sent now; None: any number."""
        if self.rate is None or not self.narrow:
            return None
        if self._asked_at is not None and now - self._asked_at <= PATIENCE_SECONDS:
            return 0
        return max(int(self.rate * PART_SECONDS), LEAST_PART)

    def sent(self, size: int) -> None:
        """So many bytes were written."""
        self._sent += size

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
        self._began = now if self._began is None else self._began
        return True

    def asked(self) -> None:
        """The question was written: its answer tells of all bytes before it."""
        self._asked_about, self._sent = self._sent, 0

    def answered(self, now: float, whole: bool = True) -> None:
        """The terminal has drawn what was sent before the question, however late that is.

        Args:
            whole: whether that was the last part of a picture.
        """
        if self._asked_at is None:
            return
        self._measure(now - self._asked_at)
        self._answers, self._asked_at = True, None
        if whole:
            self.delay, self._began = now - (self._began if self._began is not None else now), None

    def _measure(self, seconds: float) -> None:
        """Take what an answer tells of the link's width: the time beyond the shortest one is that of the bytes."""
        if self._asked_about >= MEASURED_BYTES:
            rate = self._asked_about / max(seconds - min(self._latency, 0.8 * seconds), 0.01)
            self.rate = rate if self.rate is None else (self.rate + rate) / 2
        elif seconds < self._latency or not self._latency:
            self._latency = seconds
