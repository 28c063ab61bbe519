"""NVIDIA GPUs through NVML (``import pynvml`` of the package nvidia-ml-py).

Any field of any GPU may be missing, a GPU may fall off the bus while it is watched, and the driver may be replaced
under a running program: what it does not tell is None, never an exception.
Source: NVML API reference (https://docs.nvidia.com/deploy/nvml-api), error codes of ``nvmlReturn_t``.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from mmtui.devices.host import process_owner
from mmtui.devices.protocol import GpuAnswer, GpuState
from mmtui.domain.text import printable
from mmtui.domain.views import GpuProcess, GpuView

RETRY_SECONDS = 5.0
"""A driver that could not be opened, or that has lost a GPU, is opened anew at most this often: it can be slow."""
MAX_DEVICES = 256
_MAX_MEMORY = 1 << 46
"""64 TiB. NVML says "not available" by setting all bits; no GPU has more memory than this."""

# Values of nvmlReturn_t. They are part of the driver's ABI, and a recording has to have the same.
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
_LOST = frozenset({GPU_IS_LOST, RESET_REQUIRED})
_NO_GPU_HERE = frozenset({LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED})


class NvmlModule(Protocol):
    """What is always asked of pynvml. Its other calls are asked for by name, as old drivers lack some of them."""

    def nvmlInit(self) -> None:
        """Open a session."""

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object:
        """A GPU, to be handed to other calls."""


class _Lost(Exception):
    """The driver says that it does not reach a GPU any more."""


class NvmlDriver:
    """One NVML session, opened when first asked. Thread-safe.

    Args:
        module: what answers the NVML calls; default: pynvml, imported when first asked.
        owner: user name of a pid, "?" if unknown.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        module: NvmlModule | None = None,
        *,
        owner: Callable[[int], str] = process_owner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._module, self._owner, self._clock = module, owner, clock
        self._lock = threading.Lock()
        self._open = False
        self._refusal: GpuAnswer | None = None
        self._retry_at = 0.0
        self._known: dict[str, GpuView] = {}
        self._cost = 0.0

    @property
    def simulated(self) -> bool:
        """Whether a recording plays the driver."""
        return bool(getattr(self._module, "simulated", False))

    @property
    def cost_seconds(self) -> float:
        """What the last look took."""
        return self._cost

    def look(self) -> GpuAnswer:
        """All GPUs now, MIG devices behind the GPU they are parts of."""
        with self._lock:
            began = time.perf_counter()
            try:
                return self._look()
            finally:
                self._cost = time.perf_counter() - began

    def snapshot(self) -> tuple[tuple[GpuView, ...], str]:
        """All GPUs now, and a note in words where something is wrong."""
        answer = self.look()
        return answer.gpus, answer.note

    def _look(self) -> GpuAnswer:
        refusal = self._start()
        if refusal is not None:
            return refusal
        count = self._ask("nvmlDeviceGetCount")
        if not isinstance(count, int):
            self._stop()
            return self._broken("the NVIDIA driver stopped answering")
        gpus: list[GpuView] = []
        notes: list[str] = []
        unreachable = [index for index in range(min(count, MAX_DEVICES)) if not self._read(index, gpus, notes)]
        # Stable: MIG devices stay behind their GPU, a lost one takes its old place.
        gpus = sorted(gpus + self._missing(gpus, unreachable), key=lambda gpu: gpu.index)
        if any(gpu.lost for gpu in gpus) and self._clock() >= self._retry_at:
            # Handles of a lost GPU stay dead; a new session finds those that came back.
            self._retry_at = self._clock() + RETRY_SECONDS
            self._stop()
        if not gpus and not notes:
            return GpuAnswer((), "no NVIDIA GPU found: the driver lists none", GpuState.NONE)
        return GpuAnswer(tuple(gpus), "; ".join(notes), GpuState.KNOWN if gpus else GpuState.UNKNOWN)

    def _start(self) -> GpuAnswer | None:
        """Open the session if it is not; what to answer if that fails."""
        if self._open:
            return None
        if self._refusal is not None and self._clock() < self._retry_at:
            return self._refusal
        try:
            if self._module is None:
                self._module = importlib.import_module("pynvml")
            self._module.nvmlInit()
        except ImportError:
            text = "no NVIDIA GPU found: the Python package nvidia-ml-py is not installed"
            self._refusal = GpuAnswer((), text, GpuState.NONE)
        except Exception as error:  # a foreign library; see _ask
            self._refusal = self._refused(error)
        else:
            self._open, self._refusal = True, None
            return None
        self._retry_at = self._clock() + RETRY_SECONDS
        return self._refusal

    def _refused(self, error: Exception) -> GpuAnswer:
        code = getattr(error, "value", None)
        if code in _NO_GPU_HERE and not self._known:
            return GpuAnswer((), f"no NVIDIA GPU found: {_words(error)}", GpuState.NONE)
        return self._broken(f"the NVIDIA GPUs cannot be reached: {_words(error)}")

    def _broken(self, note: str) -> GpuAnswer:
        """The driver does not answer; what it once listed is lost until it does."""
        return GpuAnswer(tuple(lost_view(gpu) for gpu in self._known.values()), note, GpuState.UNKNOWN)

    def _stop(self) -> None:
        self._open = False
        self._ask("nvmlShutdown")

    def _ask(self, name: str, *arguments: object) -> object:
        """The driver's answer to one call, None if it has none.

        Raises:
            _Lost: the call was about a GPU that the driver does not reach any more.
        """
        try:
            answer: object = getattr(self._module, name)(*arguments)
            return answer
        except Exception as error:
            # pynvml raises more than NVMLError: NVMLLibraryMismatchError with an older driver, UnicodeDecodeError
            # for a garbled name, AttributeError where it is too old for a call. None of them may end the program.
            if arguments and getattr(error, "value", None) in _LOST:
                raise _Lost from error
            return None

    def _read(self, index: int, gpus: list[GpuView], notes: list[str]) -> bool:
        """Append what is at an index; False if a GPU is there that the driver does not reach."""
        try:
            assert self._module is not None, "the session is open"
            handle = self._module.nvmlDeviceGetHandleByIndex(index)
            views = list(self._views(index, handle))
        except _Lost:
            return False
        except Exception as error:
            if getattr(error, "value", None) in _LOST:
                return False
            # Such as a GPU that a container or a batch system hides: there, but not ours.
            notes.append(f"GPU {index} cannot be used: {_words(error)}")
            return True
        if views[0].uuid:
            self._known[views[0].uuid] = views[0]
        gpus += views
        return True

    def _missing(self, gpus: list[GpuView], unreachable: list[int]) -> list[GpuView]:
        """GPUs that were listed once and are not any more, and those whose names were never known."""
        present = {gpu.uuid for gpu in gpus}
        gone = [lost_view(known) for uuid, known in self._known.items() if uuid not in present]
        # Numbers move up when the driver drops a GPU; the count of those out of reach says how many are nameless.
        taken = {gpu.index for gpu in gone}
        spare = [index for index in unreachable if index not in taken]
        nameless = spare[: max(len(unreachable) - len(gone), 0)]
        return gone + [lost_view(_nameless(index)) for index in nameless]

    def _views(self, index: int, handle: object) -> Iterator[GpuView]:
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        split = isinstance(mode, list | tuple) and bool(mode) and mode[0] == 1
        whole = self._view(index, handle)
        # The whole lists the processes of all its parts; each is shown once, at its part.
        yield replace(whole, mig=True, processes=()) if split else whole
        if split:
            yield from self._parts(whole, handle)

    def _parts(self, whole: GpuView, handle: object) -> Iterator[GpuView]:
        most = self._ask("nvmlDeviceGetMaxMigDeviceCount", handle)
        for number in range(min(most, MAX_DEVICES) if isinstance(most, int) else 0):
            part = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)  # the numbers have holes
            if part is not None:
                yield replace(self._view(whole.index, part), parent=whole.uuid)

    def _view(self, index: int, handle: object) -> GpuView:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        total = _bytes(getattr(memory, "total", None)) or None
        used = _bytes(getattr(memory, "used", None))
        power = _within(self._ask("nvmlDeviceGetPowerUsage", handle), 0, 20_000_000)  # milliwatts
        sensor = getattr(self._module, "NVML_TEMPERATURE_GPU", 0)
        return GpuView(
            index=index,
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
            name=_text(self._ask("nvmlDeviceGetName", handle)) or "unknown GPU",
            utilisation=_percent(getattr(self._ask("nvmlDeviceGetUtilizationRates", handle), "gpu", None)),
            memory_used=used if used is None or total is None else min(used, total),
            memory_total=total,
            power_watts=None if power is None else power / 1000,
            temperature=_within(self._ask("nvmlDeviceGetTemperature", handle, sensor), -50, 150),
            processes=self._processes(handle),
        )

    def _processes(self, handle: object) -> tuple[GpuProcess, ...]:
        """Who holds memory, largest first; a process that computes and draws is listed once."""
        found: dict[int, GpuProcess] = {}
        for kind in ("graphics", "compute"):
            for process in self._running(kind, handle):
                pid, memory = getattr(process, "pid", None), _bytes(getattr(process, "usedGpuMemory", None))
                if not isinstance(pid, int) or not 0 < pid < 1 << 31:
                    continue
                if pid in found and memory is None:
                    memory = found[pid].memory
                found[pid] = GpuProcess(pid, printable(self._owner(pid)), memory, "", kind)
        return tuple(sorted(found.values(), key=lambda process: (-(process.memory or 0), process.pid)))

    def _running(self, kind: str, handle: object) -> list[object]:
        name = f"nvmlDeviceGet{kind.capitalize()}RunningProcesses"
        found = self._ask(name, handle)
        if found is None:  # drivers before 510 have only the second version, which the plain name does not fall back to
            found = self._ask(f"{name}_v2", handle)
        return found if isinstance(found, list) else []


def lost_view(gpu: GpuView) -> GpuView:
    """What can still be said of a GPU that is out of reach."""
    return GpuView(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        utilisation=None,
        memory_used=None,
        memory_total=gpu.memory_total,
        power_watts=None,
        temperature=None,
        lost=True,
        mig=gpu.mig,
    )


def _nameless(index: int) -> GpuView:
    return GpuView(index, "", "unknown GPU", None, None, None, None, None)


def _text(value: object) -> str:
    if value is None:
        return ""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value))[:120]


def _bytes(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_MEMORY else None


def _within(value: object, low: float, high: float) -> float | None:
    """A number within its bounds; anything else is the driver's nonsense and says nothing."""
    if not isinstance(value, int | float) or type(value) not in (int, float):
        return None
    return float(value) if math.isfinite(value) and low <= value <= high else None


def _percent(value: object) -> float | None:
    """A share. Drivers round to a little over 100 at times; far beyond that a share means nothing."""
    known = _within(value, 0, 200)
    return None if known is None else min(known, 100.0)


def _words(error: Exception) -> str:
    """An NVML error for people."""
    code = getattr(error, "value", None)
    known = {
        LIBRARY_NOT_FOUND: "the NVIDIA driver library is not installed",
        DRIVER_NOT_LOADED: "the NVIDIA driver library is installed but its kernel module is not loaded",
        VERSION_MISMATCH: "the NVIDIA driver and its library have different versions; reboot after a driver update",
        NO_PERMISSION: "no permission",
    }
    return known.get(code, f"NVML says '{printable(str(error))}'") if isinstance(code, int) else printable(repr(error))
