"""Which places a run gets: whole GPUs or CPU slots, or a share of one that other runs of ours have a share of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmtui.domain.text import size

MARGIN, RESERVE = 1.1, 256 * 2**20
"""A run is expected to take up to this many times what was measured, and this much more: allocators fragment."""


@dataclass(frozen=True)
class Place:
    """What is known of a GPU or CPU slot.

    Attributes:
        kind: its model, by which needs are measured; "" for CPU slots.
        share: part of it that is not given away, 0-1.
        room: bytes that a further run may take, after what starting runs will still take; None = not told.
        words: what people call it.
        holders: who else holds memory of it, in words; "" = nobody.
    """

    kind: str = ""
    share: float = 1.0
    room: int | None = None
    words: str = ""
    holders: str = ""


@dataclass(frozen=True)
class Slots:
    """Places to run in: by name (GPU UUIDs, or ``cpu:0`` ...).

    Attributes:
        free: those that nobody uses.
        total: how many there are in all.
        kind: "GPU" or "CPU slot".
        note: why some are not free, in words.
        partly: those that only runs of ours use that asked for a share.
        places: what is known of each.
    """

    free: tuple[str, ...]
    total: int
    kind: str
    note: str = ""
    partly: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)

    def place(self, name: str) -> Place:
        """What is known of a place; nothing, for a plain slot."""
        return self.places.get(name) or Place()


def expected(need: int) -> int:
    """Bytes to reserve for a run whose need was measured."""
    return int(need * MARGIN) + RESERVE


def choose(wanted: float, needs: Mapping[str, int], slots: Slots) -> tuple[str, ...]:
    """Names of the places that a run gets; () if there are not enough for it now.

    A share of a place is shared only where its need was measured on that model, or where there is no memory to run
    out of; else the run has the place to itself, and is measured there.
    """
    if wanted >= 1:
        fitting = [name for name in slots.free if _has_room(slots.place(name), needs)]
        return tuple(fitting[: int(wanted)]) if len(fitting) >= wanted else ()
    for name in slots.partly:
        place = slots.place(name)
        measured = place.room is None or place.kind in needs
        if measured and place.share + 1e-9 >= wanted and _has_room(place, needs):
            return (name,)
    return next(((name,) for name in slots.free if _has_room(slots.place(name), needs)), ())


def _has_room(place: Place, needs: Mapping[str, int]) -> bool:
    need = needs.get(place.kind)
    return need is None or place.room is None or expected(need) <= place.room


def fits_never(wanted: float, slots: Slots) -> bool:
    """Whether the machine has fewer places than a run wants."""
    return wanted > slots.total


def lacking(wanted: float, needs: Mapping[str, int], slots: Slots) -> str:
    """Why ``choose`` finds no place, in words with numbers."""
    plural = "" if slots.total == 1 else "s"
    if not slots.total:
        return f"waiting: no {slots.kind} can be used"
    if fits_never(wanted, slots):
        return f"cannot start: it needs {wanted:g} {slots.kind}s, this machine has {slots.total}"
    tight = [name for name in (*slots.free, *slots.partly) if not _has_room(slots.place(name), needs)]
    if tight:
        place = slots.place(tight[0])
        held = f", {place.holders}" if place.holders else ""
        need = size(expected(needs[place.kind]))
        return f"waiting: needs {need}, {place.words or tight[0]} has {size(place.room or 0)} free{held}"
    busy = slots.total - len(slots.free)
    text = f"waiting: {busy} of {slots.total} {slots.kind}{plural} in use"
    return f"{text}, it needs {wanted:g}" if wanted > 1 else text
