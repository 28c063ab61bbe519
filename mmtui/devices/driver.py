"""Which driver answers: NVML, or the recording that ``MMTUI_NVML_RECORDING`` names; and patience with it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from mmtui.devices.nvml import NvmlDriver, lost_view
from mmtui.devices.protocol import GpuAnswer, GpuDriver, GpuState
from mmtui.devices.recorded import RecordingError, recorded_driver
from mmtui.domain.views import GpuView

PATIENCE_SECONDS = 5.0
"""A driver call hangs when a GPU has fallen off the bus; nobody waits longer for it. A cold start takes 1 to 3 s."""


class PatientDriver:
    """A driver whose every look ends in time: one look at a time runs in a thread, and silence is an answer.

    Args:
        driver: what is asked.
        patience: longest wait in seconds.
    """

    def __init__(self, driver: GpuDriver, patience: float = PATIENCE_SECONDS) -> None:
        self._driver, self._patience = driver, patience
        self._lock = threading.Lock()
        self._pending: _Look | None = None
        self._last = GpuAnswer((), "", GpuState.UNKNOWN)

    @property
    def simulated(self) -> bool:
        """Whether a recording plays the driver."""
        return self._driver.simulated

    @property
    def cost_seconds(self) -> float:
        """What the last finished look took."""
        return self._driver.cost_seconds

    def look(self) -> GpuAnswer:
        """All GPUs now; if the driver is silent, those of the last time as lost, and why."""
        with self._lock:
            if self._pending is None or self._pending.done.is_set():
                self._pending = _Look(self._driver)
            pending = self._pending
        if pending.done.wait(self._patience) and pending.answer is not None:
            self._last = pending.answer
            return pending.answer
        lost = tuple(lost_view(gpu) for gpu in self._last.gpus)
        silent = time.monotonic() - pending.began
        return GpuAnswer(lost, f"the NVIDIA driver has not answered for {silent:.0f} s", GpuState.UNKNOWN)


class _Look:
    """One look that is under way."""

    def __init__(self, driver: GpuDriver) -> None:
        self.began = time.monotonic()
        self.done = threading.Event()
        self.answer: GpuAnswer | None = None
        # A daemon: a call that never returns must not keep the program from ending.
        threading.Thread(target=self._run, args=(driver,), name="gpu-look", daemon=True).start()

    def _run(self, driver: GpuDriver) -> None:
        try:
            self.answer = driver.look()
        finally:
            self.done.set()


class AbsentDriver:
    """No driver, for a reason.

    Args:
        note: the reason, in words.
        state: whether that means that there is no GPU, or that nobody knows.
    """

    simulated = False
    cost_seconds = 0.0

    def __init__(self, note: str, state: GpuState) -> None:
        self._answer = GpuAnswer((), note, state)

    def look(self) -> GpuAnswer:
        """Nothing, and why."""
        return self._answer


_lock = threading.Lock()
_drivers: dict[tuple[str, str], GpuDriver] = {}


def recording() -> str:
    """Path of the recording that plays the driver, "" for the real one."""
    return os.environ.get("MMTUI_NVML_RECORDING", "")


def driver() -> GpuDriver:
    """The driver that the environment asks for, made once: ``MMTUI_GPUS=none`` is for leaving the GPUs alone."""
    key = (os.environ.get("MMTUI_GPUS", ""), recording())
    with _lock:
        if key not in _drivers:
            _drivers[key] = _make(*key)
        return _drivers[key]


def _make(allowed: str, path: str) -> GpuDriver:
    if allowed == "none":
        return AbsentDriver("GPUs are left alone: MMTUI_GPUS=none", GpuState.NONE)
    if not path:
        return PatientDriver(NvmlDriver())
    try:
        return PatientDriver(recorded_driver(Path(path)))
    except RecordingError as error:
        return AbsentDriver(f"MMTUI_NVML_RECORDING: {error}", GpuState.UNKNOWN)


def gpu_answer() -> GpuAnswer:
    """All GPUs now, and how far that can be relied on; never raises."""
    return driver().look()


def gpu_snapshot() -> tuple[tuple[GpuView, ...], str]:
    """All GPUs now, and a note in words where something is wrong; never raises."""
    answer = gpu_answer()
    return answer.gpus, answer.note
