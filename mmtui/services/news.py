"""What has ended while nobody looked."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from mmtui.domain.states import RunState
from mmtui.domain.text import duration, fixed, printable, shorten
from mmtui.domain.views import doubted, doubtful
from mmtui.paths import Home
from mmtui.store.queries import runs as queries
from mmtui.store.quick import put_setting
from mmtui.store.session import reading

LOOKED_AT = "looked_at"
_SHOWN = 8


class Ended(NamedTuple):
    """A run that has ended."""

    id: str
    name: str
    state: str
    reason: str  # error or reason
    miou: float | None
    doubts: tuple[str, ...]  # what makes the score doubtful

    def result(self) -> str:
        """What came of it: the score, with what makes it doubtful, or why there is none."""
        if self.miou is None or self.state != RunState.SUCCEEDED:
            return shorten(printable(self.reason), 90)
        doubt = f", {printable(doubtful(self.doubts))}" if self.doubts else ""
        return f"mIoU {doubted(fixed(self.miou, 2), self.doubts)}{doubt}"


@dataclass(frozen=True)
class News:
    """What became of runs since a moment, Unix time; None = never looked before."""

    since: float | None
    ended: tuple[Ended, ...]  # newest last
    lost_and_found: int  # runs whose trainer vanished and that were put back

    def lines(self, now: float) -> list[str]:
        """In words; none if nothing happened."""
        if not self.ended and not self.lost_and_found:
            return []
        away = f" in the last {duration(now - self.since)}" if self.since else ""
        counts = dict(sorted(Counter(one.state for one in self.ended).items()))
        words = ", ".join(f"{count} {state}" for state, count in counts.items())
        again = f"{self.lost_and_found} were interrupted and put back" if self.lost_and_found else ""
        lines = [f"while you were away{away}: {'; '.join(part for part in (words, again) if part)}"]
        # Failures first: they are what somebody has to look at.
        order = sorted(self.ended, key=lambda one: one.state == RunState.SUCCEEDED)
        for one in order[:_SHOWN]:
            result = one.result()
            lines.append(
                f"  {one.id} {shorten(printable(one.name), 40)}: {one.state}" + (f", {result}" if result else "")
            )
        if len(order) > _SHOWN:
            lines.append(f"  and {len(order) - _SHOWN} more")
        return lines


def since(home: Home, moment: float | None = None) -> News:
    """What has ended since a moment, by default since somebody last looked; nothing the first time."""
    with reading(home) as reader:
        if moment is None:
            stored = reader.settings().get(LOOKED_AT, "")
            moment = float(stored) if stored else None
        if moment is None:
            return News(None, (), 0)
        ended = tuple(Ended(str(one.run_id), *one[1:]) for one in queries.ended_since(reader, moment))
        return News(moment, ended, queries.requeued_since(reader, moment))


def mark_seen(home: Home, now: float | None = None) -> None:
    """Remember that somebody has looked; only where there is a database."""
    put_setting(home, LOOKED_AT, repr(time.time() if now is None else now))
