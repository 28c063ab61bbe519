"""Places to run in: GPUs that are free by NVML now, or a number of CPU slots where there is no GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mmtui.devices import gpu_answer
from mmtui.devices.slots import NOBODY, Policy, Use, find
from mmtui.domain.placing import Slots
from mmtui.paths import Home
from mmtui.services.devices import run_pids, with_runs


def policy() -> Policy:
    """What the environment says: ``MMTUI_CPU_SLOTS`` (default 1), ``MMTUI_GPUS`` (``all``, or indices and UUIDs)."""
    slots, gpus = os.environ.get("MMTUI_CPU_SLOTS", ""), os.environ.get("MMTUI_GPUS", "")
    allowed = tuple(word for part in gpus.split(",") if (word := part.strip()) and word != "all")
    return Policy(allowed=allowed, cpu_slots=max(int(slots), 1) if re.fullmatch("[0-9]{1,6}", slots) else 1)


def find_slots(taken: Collection[str], shared: Mapping[str, Use] = NOBODY, home: Home | None = None) -> Slots:
    """Slots that are free now.

    Args:
        taken: slots of active runs that have them whole.
        shared: slots of active runs that have a share of one.
        home: whose runs these are; needed to tell their processes from others on a shared GPU.
    """
    answer = gpu_answer()
    if shared and home is not None and answer.gpus:
        owners = run_pids(home)
        answer = replace(answer, gpus=tuple(with_runs(gpu, owners) for gpu in answer.gpus))
    return find(answer, taken, policy(), shared)


def device_environment(slots: Sequence[str]) -> dict[str, str]:
    """What binds a trainer to its slots."""
    visible = ",".join(slot for slot in slots if not slot.startswith("cpu:"))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
