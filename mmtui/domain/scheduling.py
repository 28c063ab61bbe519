"""Which run starts next, and why the others wait. Pure: no clock, no database, no processes.

The order, once: a run may start if the queue is open, its time has come, the runs it waits for have succeeded, its
group has room, and nothing else that is said of it stands in its way; of those that may, the one with the highest
priority comes first, then the one placed first. It starts if there are places for it. If it needs several places and
too few are free, those behind it wait too, or it would never start; a run that lacks anything else (memory that
others hold, more places than the machine has) lets those behind it pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from mmtui.domain.placing import Slots, choose, fits_never, lacking

UNMEASURED: Mapping[str, int] = MappingProxyType({})


class Waiting(NamedTuple):
    """A queued run; a tuple, as ten thousand of them are made in a tick.

    Attributes:
        position: place in the queue; not the id, as a run can be moved.
        not_before: Unix time before which it does not start.
        group: group with a limit of its own, "" = none.
        after: runs it waits for that have not succeeded yet.
        wanted: places it needs, 1 or more; or the share of one that suffices, below 1.
        needs: memory it took when measured, bytes, by kind of device.
        blocked: another reason why it must wait, in words; "" = none.
    """

    run_id: int
    priority: int
    position: float
    not_before: float
    group: str = ""
    after: tuple[int, ...] = ()
    wanted: float = 1.0
    needs: Mapping[str, int] = UNMEASURED
    blocked: str = ""


@dataclass(frozen=True)
class Rules:
    """What holds for the queue as a whole.

    Attributes:
        closed: why nothing is started, "" if something is.
        limits: most runs of a group at once; None where that cannot be read.
        active: runs of a group that are active now.
        budgets: device hours that the runs of a group may take together; None where that cannot be read.
        spent: device hours that they have taken.
    """

    closed: str = ""
    limits: Mapping[str, float | None] = field(default_factory=dict)
    active: Mapping[str, int] = field(default_factory=dict)
    budgets: Mapping[str, float | None] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)

    def full(self, group: str) -> bool:
        """Whether no more runs of the group may start now."""
        return _reached(group, self.active, self.limits)

    def exhausted(self, group: str) -> bool:
        """Whether the group has spent its budget."""
        return _reached(group, self.spent, self.budgets)


def _reached(group: str, taken: Mapping[str, float], most: Mapping[str, float | None]) -> bool:
    """Whether a group has all that it may have; where that cannot be read, as much as it has."""
    if not group or group not in most:
        return False
    limit = most[group]
    return limit is None or taken.get(group, 0) >= limit


OPEN = Rules()
MANY = 200
"""Behind so many the exact number is not told: it would be written anew for thousands of runs at every start."""


def order(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Queue order: higher priority first, then position."""
    return sorted(waiting, key=lambda run: (-run.priority, run.position, run.run_id))


def pick_next(
    waiting: Sequence[Waiting], slots: Slots, now: float, rules: Rules = OPEN
) -> tuple[Waiting, tuple[str, ...]] | None:
    """The run to start now and its places, None if none may."""
    return pick_first(order(waiting), slots, now, rules)


def pick_first(
    line: Iterable[Waiting], slots: Slots, now: float, rules: Rules = OPEN
) -> tuple[Waiting, tuple[str, ...]] | None:
    """The same for runs that are in queue order."""
    if rules.closed or not (slots.free or slots.partly):
        return None
    for run in line:
        if run.not_before > now or own_reason(run, rules):
            continue
        places = choose(run.wanted, run.needs, slots)
        if places:
            return run, places
        if _holds_back(run, slots):
            return None
    return None


def _holds_back(run: Waiting, slots: Slots) -> bool:
    return run.wanted > 1 and not fits_never(run.wanted, slots)


def waiting_reasons(
    waiting: Sequence[Waiting], slots: Slots, rules: Rules = OPEN, *, in_order: bool = False
) -> dict[int, str]:
    """Why each run waits, in words with numbers. O(n log n): queues of thousands are looked at in every tick."""
    reasons: dict[int, str] = {}
    ahead, holding = 0, 0
    # Thousands of runs of a sweep lack the same thing.
    said: dict[tuple[object, ...], str] = {}
    for run in waiting if in_order else order(waiting):
        own = own_reason(run, rules)
        if not own:
            key = (run.wanted, tuple(run.needs.items()), min(ahead, MANY + 1), holding)
            if key not in said:
                said[key] = _place_reason(run, slots, ahead, holding)
        reasons[run.run_id] = own or said[key]
        # Who cannot start anyway stands in nobody's way.
        ahead += not own
        if not own and not holding and _holds_back(run, slots):
            holding = run.run_id
    return reasons


def own_reason(run: Waiting, rules: Rules) -> str:
    """Why a run waits whatever places there are; "" if it does not."""
    if rules.closed:
        return rules.closed
    if run.after:
        numbers = ", ".join(f"#{number}" for number in run.after[:5])
        more = f" and {len(run.after) - 5} more" if len(run.after) > 5 else ""
        return f"waiting for {numbers}{more} to succeed"
    if rules.full(run.group):
        limit, more = rules.limits[run.group], f"mmtui queue --limit {run.group}=N"
        if limit is None:
            return f"waiting: the limit of group {run.group} cannot be read; set it again: {more}"
        return f"waiting: group {run.group} has {rules.active[run.group]} of {limit:g} runs active"
    if rules.exhausted(run.group):
        budget, more = rules.budgets[run.group], f"mmtui queue --budget {run.group}=HOURS"
        if budget is None:
            return f"waiting: the budget of group {run.group} cannot be read; set it again: {more}"
        spent = rules.spent[run.group]
        return f"waiting: group {run.group} has spent {spent:.1f} of {budget:g} device hours; give it more: {more}"
    return run.blocked


def _place_reason(run: Waiting, slots: Slots, ahead: int, holding: int) -> str:
    text = lacking(run.wanted, run.needs, slots)
    if slots.total and fits_never(run.wanted, slots):
        return text
    if ahead > MANY:
        text += f", more than {MANY} runs ahead"
    elif ahead:
        text += f", {ahead} run{'' if ahead == 1 else 's'} ahead"
    if holding and slots.free:
        text += f"; free places are kept for #{holding}"
    return f"{text}; {slots.note}" if slots.note else text


def place_between(before: float | None, after: float | None) -> float:
    """A position between two neighbours; None = there is none on that side.

    Halving a gap again and again comes to an end after some fifty moves to the same place; ``crowded`` tells.
    """
    if before is None:
        return 0.0 if after is None else after - 1.0
    return before + 1.0 if after is None else (before + after) / 2


def crowded(before: float | None, after: float | None) -> bool:
    """Whether nothing fits between the two any more: positions have to be dealt out anew."""
    if before is None or after is None:
        return False
    return not before < place_between(before, after) < after
