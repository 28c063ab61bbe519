"""The points of runs as every format writes them, and the account of what is written and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmtui.paths import Home
from mmtui.services.exchange.counting import counted
from mmtui.store.exported import LeftOut, MetricPoint, course
from mmtui.store.session import reading

DONE_AGAIN = "of attempts that went on from an earlier step, where the next attempt did or does them again"
REPEATED = "of a step that two attempts told, of which the later one counts"


@dataclass(slots=True)
class Account:
    """What an export has written: points, and how many of what it left out or changed."""

    points: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of points that were not written, by why."""
    changed: Counter[str] = field(default_factory=Counter)
    """Number of values that the format could not hold as they are, by what became of them."""

    other: Counter[str] = field(default_factory=Counter)
    """Number of other things that were changed, by what they are and what became of them."""

    def lines(self) -> list[str]:
        """Sentences about everything that is not in the export as it is in the run."""
        others = [f"changed: {number:,} {what}" for what, number in self.other.items()]
        return [*_counted("left out", self.left_out), *_counted("changed", self.changed), *others]


def _counted(what: str, counts: Mapping[str, int]) -> list[str]:
    return [f"{what}: {counted(number, 'point')} {why}" for why, number in counts.items() if number]


def points(home: Home, run_id: str, account: Account) -> Iterator[MetricPoint]:
    """The points of a run by metric and step; those written and those left out are counted as they pass."""
    left_out = LeftOut()
    with reading(home) as reader:
        for point in course(reader, int(run_id), left_out):
            account.points += 1
            yield point
    account.left_out[DONE_AGAIN] += left_out.done_again
    account.left_out[REPEATED] += left_out.repeated
