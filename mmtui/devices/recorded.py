"""A recorded NVML: a test double at the level of pynvml's calls, so that ``nvml.py`` itself is exercised.

A recording is JSON: {"init_error": code or absent, "users": {"pid": name}, "gpus": [{"uuid", "name", "memory":
{"used", "total"}, "utilization", "power", "temperature", "compute": [{"pid", "usedGpuMemory"}], "graphics": [...],
"lost": bool}]}. A field that is absent answers "not supported". Screens must say that such devices are simulated.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED = 3
GPU_IS_LOST = 15


class RecordedNvmlError(Exception):
    """An NVML error of a recording."""

    def __init__(self, value: int) -> None:
        super().__init__(f"recorded NVML error {value}")
        self.value = value


class RecordedNvml:
    """Answers like the module pynvml, from a recording."""

    simulated = True
    NVMLError = RecordedNvmlError
    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18

    def __init__(self, recording: dict[str, Any]) -> None:
        self.recording = recording
        self.users: dict[str, str] = recording.get("users", {})

    def nvmlInit(self) -> None:
        if "init_error" in self.recording:
            raise RecordedNvmlError(self.recording["init_error"])

    def nvmlShutdown(self) -> None:
        """Nothing to free."""

    def nvmlDeviceGetCount(self) -> int:
        return len(self.recording["gpus"])

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        gpu: dict[str, Any] = self.recording["gpus"][index]
        if gpu.get("lost"):
            raise RecordedNvmlError(GPU_IS_LOST)
        return gpu

    def nvmlDeviceGetUUID(self, gpu: dict[str, Any]) -> Any:
        return _field(gpu, "uuid")

    def nvmlDeviceGetName(self, gpu: dict[str, Any]) -> Any:
        return _field(gpu, "name")

    def nvmlDeviceGetMemoryInfo(self, gpu: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(**_field(gpu, "memory"))

    def nvmlDeviceGetUtilizationRates(self, gpu: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(gpu=_field(gpu, "utilization"))

    def nvmlDeviceGetPowerUsage(self, gpu: dict[str, Any]) -> Any:
        return _field(gpu, "power")

    def nvmlDeviceGetTemperature(self, gpu: dict[str, Any], _sensor: int) -> Any:
        return _field(gpu, "temperature")

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: dict[str, Any]) -> list[SimpleNamespace]:
        return [SimpleNamespace(**process) for process in _field(gpu, "compute")]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: dict[str, Any]) -> list[SimpleNamespace]:
        return [SimpleNamespace(**process) for process in _field(gpu, "graphics")]


def _field(gpu: dict[str, Any], name: str) -> Any:
    if name not in gpu:
        raise RecordedNvmlError(NOT_SUPPORTED)
    return gpu[name]


def load_recording(path: Path) -> RecordedNvml:
    """A recording as a stand-in for pynvml."""
    return RecordedNvml(json.loads(path.read_text()))
