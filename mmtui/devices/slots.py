"""Which GPUs and CPU slots are free. Pure: the answer depends on the arguments alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mmtui.devices.protocol import GpuAnswer, GpuState
from mmtui.domain.scheduling import Slots
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


def available(gpus: Collection[GpuView], reserved: Collection[str], policy: Policy = DEFAULT) -> list[str]:
    """UUIDs of the GPUs and MIG devices that a run may have now, in the driver's order.

    Args:
        gpus: the machine's GPUs.
        reserved: UUIDs that active runs have, those included that have not yet taken their memory.
        policy: when a device counts as free.
    """
    return [gpu.uuid for gpu in _usable(gpus, policy) if gpu.uuid not in reserved and not occupied(gpu, policy)]


def find(answer: GpuAnswer, reserved: Collection[str], policy: Policy = DEFAULT) -> Slots:
    """Free places to run in, how many there are in all, and why the others are not free.

    CPU slots are handed out only where there is no GPU: a broken driver makes runs wait, because a run that was
    meant for a GPU would take weeks on the CPU without a word.
    """
    if answer.state is GpuState.NONE:
        names = tuple(f"cpu:{number}" for number in range(policy.cpu_slots))
        return Slots(tuple(name for name in names if name not in reserved), len(names), "CPU slot")
    usable = _usable(answer.gpus, policy)
    free = () if answer.state is GpuState.UNKNOWN else tuple(available(answer.gpus, reserved, policy))
    reasons = [answer.note] if answer.note else []
    reasons += [f"GPU {gpu.index} is lost" for gpu in answer.gpus if gpu.lost and gpu.uuid not in reserved]
    reasons += [_words(gpu) for gpu in usable if gpu.uuid not in reserved and occupied(gpu, policy)]
    if not usable and not reasons:
        reasons.append("MMTUI_GPUS allows none of them" if policy.allowed else "none of them can be used whole")
    return Slots(free, len(usable), "GPU", ", ".join(reasons))


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
    if word.isdigit():
        return int(word) == gpu.index
    return len(word) >= _MIN_ABBREVIATION and (gpu.uuid.startswith(word) or gpu.parent.startswith(word))


def _words(gpu: GpuView) -> str:
    used = "an unknown part of its memory" if gpu.memory_used is None else size(gpu.memory_used)
    holders = ", ".join(f"pid {p.pid} of {shorten(printable(p.user), 24)}" for p in gpu.processes[:2])
    what = f"MIG device {gpu.uuid[:12]} of GPU {gpu.index}" if gpu.parent else f"GPU {gpu.index}"
    return f"{what} has {used} in use" + (f" by {holders}" if holders else "")
