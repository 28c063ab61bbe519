"""What a GPU driver answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mmtui.domain.views import GpuView


class GpuState(StrEnum):
    """How much the list of GPUs can be relied on."""

    KNOWN = "known"  # the driver answered
    NONE = "none"  # this machine has no GPU to use: runs go to the CPU
    UNKNOWN = "unknown"  # there may be GPUs, but the driver is broken or silent: nothing may be started


@dataclass(frozen=True, slots=True)
class GpuAnswer:
    """All GPUs at one moment."""

    gpus: tuple[GpuView, ...]
    note: str  # "" or what is wrong, in words for people
    state: GpuState


class GpuDriver(Protocol):
    """NVML, or a recording of it. ``look`` never raises and may be called from any thread."""

    @property
    def simulated(self) -> bool:
        """Whether a recording plays the driver; screens must say so."""

    @property
    def cost_seconds(self) -> float:
        """What the last look took."""

    def look(self) -> GpuAnswer:
        """All GPUs now."""
