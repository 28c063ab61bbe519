"""Which run starts next, and why the others wait. Pure: no clock, no database, no processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A queued run."""

    run_id: int
    priority: int
    position: float
    not_before: float


@dataclass(frozen=True)
class Slots:
    """Places to run in: ``free`` ones by name (GPU UUIDs, or ``cpu:0`` ...), and how many there are in all."""

    free: tuple[str, ...]
    total: int
    kind: str  # "GPU" or "CPU slot"
    note: str = ""  # why some are not free, in words


def order(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Queue order: higher priority first, then position (which is not the id: a run can be moved)."""
    return sorted(waiting, key=lambda run: (-run.priority, run.position, run.run_id))


def pick_next(waiting: Sequence[Waiting], slots: Slots, now: float) -> tuple[Waiting, str] | None:
    """The run to start now and its slot: the first in queue order whose back-off is over, on the first free slot."""
    if not slots.free:
        return None
    for run in order(waiting):
        if run.not_before <= now:
            return run, slots.free[0]
    return None


def waiting_reasons(waiting: Sequence[Waiting], slots: Slots) -> dict[int, str]:
    """Why each run waits, in words with numbers. O(n log n): queues of thousands are looked at in every tick."""
    return {run.run_id: _reason(ahead, slots) for ahead, run in enumerate(order(waiting))}


def _reason(ahead: int, slots: Slots) -> str:
    busy = slots.total - len(slots.free)
    plural = "" if slots.total == 1 else "s"
    text = f"waiting: {busy} of {slots.total} {slots.kind}{plural} in use"
    if not slots.total:
        text = f"waiting: no {slots.kind} can be used"
    if ahead:
        text += f", {ahead} run{'' if ahead == 1 else 's'} ahead"
    return f"{text}; {slots.note}" if slots.note else text
