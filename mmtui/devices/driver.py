"""Which driver answers: NVML, or the recording that ``MMTUI_NVML_RECORDING`` names."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.recorded import load_recording
from mmtui.domain.views import GpuView

_lock = threading.Lock()
_drivers: dict[str, NvmlDriver] = {}


def recording() -> str:
    """Path of the recording that plays the driver, "" for the real one."""
    return os.environ.get("MMTUI_NVML_RECORDING", "")


def driver() -> NvmlDriver:
    """The driver of this process, made once."""
    path = recording()
    with _lock:
        if path not in _drivers:
            _drivers[path] = NvmlDriver(load_recording(Path(path))) if path else NvmlDriver()
        return _drivers[path]


def gpu_snapshot() -> tuple[tuple[GpuView, ...], str]:
    """All GPUs now, and a note in words where there is none; never raises."""
    return driver().snapshot()
