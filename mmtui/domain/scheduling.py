"""Which run starts next, and why the others wait. Pure: no clock, no database, no processes.

The order, once: a run may start if the queue is open, its time has come, the runs it waits for have succeeded, its
group has room and a slot is free; of those that may, the one with the highest priority starts, then the one placed
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Waiting:
    """A queued run.

    Attributes:
        position: place in the queue; not the id, as a run can be moved.
        not_before: Unix time before which it does not start.
        group: group with a limit of its own, "" = none.
        after: runs it waits for that have not succeeded yet.
    """

    run_id: int
    priority: int
    position: float
    not_before: float
    group: str = ""
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Slots:
    """Places to run in: ``free`` ones by name (GPU UUIDs, or ``cpu:0`` ...), and how many there are in all."""

    free: tuple[str, ...]
    total: int
    kind: str  # "GPU" or "CPU slot"
    note: str = ""  # why some are not free, in words


@dataclass(frozen=True)
class Rules:
    """What holds for the queue as a whole.

    Attributes:
        closed: why nothing is started, "" if something is.
        limits: most runs of a group at once.
        active: runs of a group that are active now.
    """

    closed: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    active: Mapping[str, int] = field(default_factory=dict)

    def full(self, group: str) -> bool:
        """Whether no more runs of the group may start."""
        return bool(group) and group in self.limits and self.active.get(group, 0) >= self.limits[group]


OPEN = Rules()


def order(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Queue order: higher priority first, then position."""
    return sorted(waiting, key=lambda run: (-run.priority, run.position, run.run_id))


def pick_next(waiting: Sequence[Waiting], slots: Slots, now: float, rules: Rules = OPEN) -> tuple[Waiting, str] | None:
    """The run to start now and its slot, None if none may."""
    if not slots.free or rules.closed:
        return None
    for run in order(waiting):
        if run.not_before <= now and not run.after and not rules.full(run.group):
            return run, slots.free[0]
    return None


def waiting_reasons(waiting: Sequence[Waiting], slots: Slots, rules: Rules = OPEN) -> dict[int, str]:
    """Why each run waits, in words with numbers. O(n log n): queues of thousands are looked at in every tick."""
    reasons, ahead = {}, 0
    for run in order(waiting):
        own = _own_reason(run, rules)
        reasons[run.run_id] = own or _slot_reason(ahead, slots)
        # Who cannot start anyway stands in nobody's way.
        ahead += not own
    return reasons


def _own_reason(run: Waiting, rules: Rules) -> str:
    if rules.closed:
        return rules.closed
    if run.after:
        numbers = ", ".join(f"#{number}" for number in run.after[:5])
        more = f" and {len(run.after) - 5} more" if len(run.after) > 5 else ""
        return f"waiting for {numbers}{more} to succeed"
    if rules.full(run.group):
        limit = rules.limits[run.group]
        return f"waiting: group {run.group} has {rules.active[run.group]} of {limit} runs active"
    return ""


def _slot_reason(ahead: int, slots: Slots) -> str:
    busy = slots.total - len(slots.free)
    plural = "" if slots.total == 1 else "s"
    text = f"waiting: {busy} of {slots.total} {slots.kind}{plural} in use"
    if not slots.total:
        text = f"waiting: no {slots.kind} can be used"
    if ahead:
        text += f", {ahead} run{'' if ahead == 1 else 's'} ahead"
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
