"""NVIDIA GPUs through NVML (``import pynvml`` of the package nvidia-ml-py).

Any field of any GPU may be missing, and a GPU may fall off the bus while it is watched: what the driver does not
tell is None, never an exception.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from mmtui.domain.text import printable
from mmtui.domain.views import GpuProcess, GpuView

Value = TypeVar("Value")
_MAX_MEMORY = 1 << 50
"""Larger sizes are the driver's way to say "not available" (all bits set)."""


class NvmlDriver:
    """One NVML session. Thread-safe.

    Args:
        module: what answers the NVML calls; default: pynvml, imported when first asked.
    """

    def __init__(self, module: Any = None) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._ready = False
        self._last: dict[int, GpuView] = {}

    @property
    def simulated(self) -> bool:
        """Whether a recording plays the driver."""
        return bool(getattr(self._module, "simulated", False))

    def snapshot(self) -> tuple[tuple[GpuView, ...], str]:
        """All GPUs now, and a note in words where there is none."""
        with self._lock:
            note = self._open()
            if note:
                return (), note
            count = self._ask(self._module.nvmlDeviceGetCount)
            if count is None:
                self._close()
                return tuple(self._lost(index) for index in sorted(self._last)), "the NVIDIA driver stopped answering"
            gpus = tuple(self._gpu(index) for index in range(min(count, 64)))
            if any(gpu.lost for gpu in gpus):
                # Handles of a lost GPU stay dead; a new session finds those that came back.
                self._close()
            return gpus, "" if gpus else "no NVIDIA GPU found: the driver lists none"

    def _open(self) -> str:
        """Start the session if there is none; "" when it is open, else why not, in words."""
        if self._ready:
            return ""
        if self._module is None:
            try:
                self._module = importlib.import_module("pynvml")
            except ImportError:
                return "no NVIDIA GPU found: the Python package nvidia-ml-py is not installed"
        try:
            self._module.nvmlInit()
        except self._module.NVMLError as error:
            return f"no NVIDIA GPU found: {_words(error, self._module)}"
        self._ready = True
        return ""

    def _close(self) -> None:
        self._ready = False
        self._ask(self._module.nvmlShutdown)

    def _ask(self, call: Callable[..., Value], *arguments: Any) -> Value | None:
        """The driver's answer, None if it has none."""
        try:
            return call(*arguments)
        except (self._module.NVMLError, UnicodeDecodeError, AttributeError):
            return None

    def _gpu(self, index: int) -> GpuView:
        nvml = self._module
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:
            return self._lost(index)
        used, total = self._memory(handle)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        temperature = self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        view = GpuView(
            index=index,
            uuid=uuid,
            name=_text(self._ask(nvml.nvmlDeviceGetName, handle) or "unknown GPU"),
            utilisation=_clamp(getattr(rates, "gpu", None), 0, 100),
            memory_used=used,
            memory_total=total,
            power_watts=None if (watts := _clamp(power, 0, 10_000_000)) is None else watts / 1000,
            temperature=_clamp(temperature, -50, 200, drop=True),
            processes=self._processes(handle),
        )
        self._last[index] = view
        return view

    def _lost(self, index: int) -> GpuView:
        known = self._last.get(index)
        return GpuView(
            index=index,
            uuid=known.uuid if known else "",
            name=known.name if known else "unknown GPU",
            utilisation=None,
            memory_used=None,
            memory_total=None,
            power_watts=None,
            temperature=None,
            lost=True,
        )

    def _memory(self, handle: Any) -> tuple[int | None, int | None]:
        info = self._ask(self._module.nvmlDeviceGetMemoryInfo, handle)
        total = _bytes(getattr(info, "total", None))
        used = _bytes(getattr(info, "used", None))
        if used is not None and total is not None:
            used = min(used, total)
        return used, total

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...]:
        found: dict[int, GpuProcess] = {}
        for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            for process in self._ask(getattr(self._module, name, _nothing), handle) or []:
                memory = _bytes(getattr(process, "usedGpuMemory", None))
                found[process.pid] = GpuProcess(process.pid, self._user(process.pid), memory, "")
        return tuple(sorted(found.values(), key=lambda process: -(process.memory or 0)))

    def _user(self, pid: int) -> str:
        """Who owns a process; "?" where its number means nothing here (a container's own numbers, or gone)."""
        recorded = getattr(self._module, "users", None)
        if recorded is not None:
            return str(recorded.get(str(pid), "?"))
        try:
            return psutil.Process(pid).username()
        except (psutil.Error, KeyError, ValueError):
            return "?"


def _nothing(_handle: Any) -> list[Any]:
    return []


def _text(value: Any) -> str:
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _bytes(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and 0 <= value < _MAX_MEMORY else None


def _clamp(value: Any, low: float, high: float, *, drop: bool = False) -> float | None:
    """The value within its bounds; one that is no number, or out of bounds and to be dropped, is None."""
    if not isinstance(value, int | float) or (drop and not low <= value <= high):
        return None
    return float(min(max(value, low), high))


def _words(error: Exception, module: Any) -> str:
    """An NVML error for people."""
    code = getattr(error, "value", None)
    if code == getattr(module, "NVML_ERROR_LIBRARY_NOT_FOUND", object()):
        return "the NVIDIA driver is not installed"
    if code == getattr(module, "NVML_ERROR_DRIVER_NOT_LOADED", object()):
        return "the NVIDIA driver is installed but not loaded"
    if code == getattr(module, "NVML_ERROR_LIB_RM_VERSION_MISMATCH", object()):
        return "the NVIDIA driver and its library have different versions (reboot after a driver update)"
    return f"NVML says '{error}'"
