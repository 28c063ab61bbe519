"""Which GPUs and CPU slots are free. Pure: the answer depends on the arguments alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mmtui.devices.protocol import GpuAnswer, GpuState
from mmtui.domain.placing import Place, Slots
from mmtui.domain.text import printable, shorten, size
from mmtui.domain.views import GpuView

_MIN_ABBREVIATION = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """When a device counts as free.

    Attributes:
        max_share: largest share of a GPU's memory that others may hold on a free GPU (a desktop, 0-1).
        share_with_compute: whether a GPU on which somebody else computes is free as long as ``max_share`` holds.
        allowed: indices ("0") or UUIDs (their beginnings will do) of GPUs that may be used; empty = all.
        cpu_slots: runs at once on a machine without a GPU.
    """

    max_share: float = 0.10
    share_with_compute: bool = False
    allowed: tuple[str, ...] = ()
    cpu_slots: int = 1


DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class Use:
    """What active runs that asked for a share have of one device.

    Attributes:
        share: part that is given away, 0-1.
        expected: bytes that they may take in all; None while one of them has not been measured.
    """

    share: float
    expected: int | None = None


NOBODY: Mapping[str, Use] = {}


def available(gpus: Collection[GpuView], reserved: Collection[str], policy: Policy = DEFAULT) -> list[str]:
    """UUIDs of the GPUs and MIG devices that a run may have now, in the driver's order.

    Args:
        gpus: the machine's GPUs.
        reserved: UUIDs that active runs have, those included that have not yet taken their memory.
        policy: when a device counts as free.
    """
    return [gpu.uuid for gpu in _usable(gpus, policy) if gpu.uuid not in reserved and not occupied(gpu, policy)]


def find(
    answer: GpuAnswer, reserved: Collection[str], policy: Policy = DEFAULT, shared: Mapping[str, Use] = NOBODY
) -> Slots:
    """Free places to run in, those that can be shared, how many there are in all, and why the others are not free.

    Args:
        answer: what the driver says; processes of our runs carry the run's id if ``shared`` names any.
        reserved: places that active runs have whole.
        policy: when a device counts as free.
        shared: places of active runs that asked for a share of one.

    CPU slots are handed out only where there is no GPU: a broken driver makes runs wait, because a run that was
    meant for a GPU would take weeks on the CPU without a word.
    """
    if answer.state is GpuState.NONE:
        names = tuple(f"cpu:{number}" for number in range(policy.cpu_slots))
        free = tuple(name for name in names if name not in reserved and name not in shared)
        partly = tuple(name for name in names if name in shared and shared[name].share < 1)
        places = {name: Place(share=1 - shared[name].share) for name in partly}
        return Slots(free, len(names), "CPU slot", "", partly, places)
    usable = _usable(answer.gpus, policy)
    known = answer.state is not GpuState.UNKNOWN
    taken = {*reserved, *shared}
    free = tuple(available(answer.gpus, taken, policy)) if known else ()
    joint = [gpu for gpu in usable if gpu.uuid in shared and known and _can_be_joined(gpu, shared[gpu.uuid], policy)]
    reasons = [answer.note] if answer.note else []
    reasons += [f"GPU {gpu.index} is lost" for gpu in answer.gpus if gpu.lost and gpu.uuid not in taken]
    reasons += [_words(gpu) for gpu in usable if gpu.uuid not in taken and occupied(gpu, policy)]
    if not usable and not reasons:
        reasons.append("MMTUI_GPUS allows none of them" if policy.allowed else "none of them can be used whole")
    places = {gpu.uuid: _place(gpu, shared.get(gpu.uuid)) for gpu in usable}
    return Slots(free, len(usable), "GPU", ", ".join(reasons), tuple(gpu.uuid for gpu in joint), places)


def _can_be_joined(gpu: GpuView, use: Use, policy: Policy) -> bool:
    """Whether a further run may have a share: only runs of ours are there, and what they will take is known."""
    foreign = [process for process in gpu.processes if not process.run and process.kind != "graphics"]
    return use.share < 1 and use.expected is not None and (policy.share_with_compute or not foreign)


def _place(gpu: GpuView, use: Use | None) -> Place:
    """What is known of a GPU. A run that has just started has not taken its memory yet: what it will take counts."""
    words, holders = f"GPU {gpu.index}", _holders(gpu)
    if gpu.memory_used is None or gpu.memory_total is None:
        return Place(gpu.name, 1 - (use.share if use else 0.0), 0 if use else None, words, holders)
    if use is None:
        return Place(gpu.name, 1.0, gpu.memory_total - gpu.memory_used, words, holders)
    own = sum(process.memory or 0 for process in gpu.processes if process.run)
    outside = max(gpu.memory_used - own, 0)
    room = max(gpu.memory_total - outside - max(own, use.expected or own), 0)
    return Place(gpu.name, 1 - use.share, room, words, holders)


def _holders(gpu: GpuView) -> str:
    """Whose processes hold memory of a GPU, in words; the largest two."""
    found = sorted((p for p in gpu.processes if p.memory), key=lambda p: -(p.memory or 0))[:2]
    return ", ".join(
        f"{size(p.memory)} held by {f'run #{p.run}' if p.run else f'pid {p.pid} of {shorten(printable(p.user), 24)}'}"
        for p in found
    )


def occupied(gpu: GpuView, policy: Policy = DEFAULT) -> bool:
    """Whether others use a GPU: by what the driver says of its memory, which counts processes that we cannot see."""
    computing = [process for process in gpu.processes if process.kind != "graphics"]
    if computing and not policy.share_with_compute:
        return True
    if gpu.memory_used is None or not gpu.memory_total:
        return bool(computing)
    return gpu.memory_used > policy.max_share * gpu.memory_total


def _usable(gpus: Collection[GpuView], policy: Policy) -> list[GpuView]:
    """GPUs on which a run could ever be: reachable, with a name to bind it to, no whole that is split, and allowed."""
    found = [gpu for gpu in gpus if not gpu.lost and not gpu.mig and gpu.uuid]
    return [gpu for gpu in found if not policy.allowed or any(_names(word, gpu) for word in policy.allowed)]


def _names(word: str, gpu: GpuView) -> bool:
    if word.isdecimal():
        return word.lstrip("0") == str(gpu.index).lstrip("0")
    return len(word) >= _MIN_ABBREVIATION and (gpu.uuid.startswith(word) or gpu.parent.startswith(word))


def _words(gpu: GpuView) -> str:
    used = "an unknown part of its memory" if gpu.memory_used is None else size(gpu.memory_used)
    holders = ", ".join(f"pid {p.pid} of {shorten(printable(p.user), 24)}" for p in gpu.processes[:2])
    what = f"MIG device {gpu.uuid[:12]} of GPU {gpu.index}" if gpu.parent else f"GPU {gpu.index}"
    return f"{what} has {used} in use" + (f" by {holders}" if holders else "")
