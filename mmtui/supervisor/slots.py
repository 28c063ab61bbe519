"""Places to run in: GPUs that are free by NVML now, or a number of CPU slots where there is no GPU."""

from __future__ import annotations

import os
from collections.abc import Collection

from mmtui.devices import gpu_snapshot
from mmtui.domain.scheduling import Slots
from mmtui.domain.views import GpuView

BUSY_MEMORY = 0.10
"""A GPU on which others hold more than this share of its memory is not free."""


def cpu_slots() -> int:
    """How many runs may train at once on a machine without a GPU: ``MMTUI_CPU_SLOTS``, default 1."""
    text = os.environ.get("MMTUI_CPU_SLOTS", "1")
    return max(int(text), 1) if text.isdigit() else 1


def find_slots(taken: Collection[str]) -> Slots:
    """Slots that are free now; ``taken`` are those of runs that are active."""
    gpus, _ = gpu_snapshot()
    present = [gpu for gpu in gpus if not gpu.lost]
    if not present:
        names = [f"cpu:{number}" for number in range(cpu_slots())]
        return Slots(tuple(name for name in names if name not in taken), len(names), "CPU slot")
    free = [gpu.uuid for gpu in present if gpu.uuid not in taken and not _occupied(gpu)]
    others = [_words(gpu) for gpu in present if gpu.uuid not in taken and _occupied(gpu)]
    return Slots(tuple(free), len(present), "GPU", ", ".join(others))


def _occupied(gpu: GpuView) -> bool:
    """Whether somebody else uses the GPU."""
    if not gpu.memory_total or gpu.memory_used is None:
        return bool(gpu.processes)
    return gpu.memory_used > BUSY_MEMORY * gpu.memory_total


def _words(gpu: GpuView) -> str:
    used = "unknown memory" if gpu.memory_used is None else f"{gpu.memory_used / 2**30:.1f} GiB"
    holders = ", ".join(f"pid {p.pid} of {p.user}" for p in gpu.processes[:2])
    return f"GPU {gpu.index} has {used} in use" + (f" by {holders}" if holders else "")


def device_environment(slot: str) -> dict[str, str]:
    """What binds a trainer to its slot."""
    visible = "" if slot.startswith("cpu:") else slot
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
