"""Places to run in: GPUs that are free by NVML now, or a number of CPU slots where there is no GPU."""

from __future__ import annotations

import os
from collections.abc import Collection

from mmtui.devices import gpu_answer
from mmtui.devices.slots import Policy, find
from mmtui.domain.scheduling import Slots


def policy() -> Policy:
    """What the environment says: ``MMTUI_CPU_SLOTS`` (default 1), ``MMTUI_GPUS`` (``all``, or indices and UUIDs)."""
    slots, gpus = os.environ.get("MMTUI_CPU_SLOTS", ""), os.environ.get("MMTUI_GPUS", "")
    allowed = tuple(word for part in gpus.split(",") if (word := part.strip()) and word != "all")
    return Policy(allowed=allowed, cpu_slots=max(int(slots), 1) if slots.isdecimal() else 1)


def find_slots(taken: Collection[str]) -> Slots:
    """Slots that are free now; ``taken`` are those of runs that are active."""
    return find(gpu_answer(), taken, policy())


def device_environment(slot: str) -> dict[str, str]:
    """What binds a trainer to its slot."""
    visible = "" if slot.startswith("cpu:") else slot
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
