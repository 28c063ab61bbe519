"""A recorded NVML: a stand-in for the module ``pynvml``, so that ``nvml.py`` itself is exercised without a GPU.

It answers call by call from a JSON file, gives the errors that the file names, and refuses calls before ``nvmlInit``
and handles of a session that was shut down, as the driver does. Everything it says is simulated, and screens say so.

The file::

    {"format": 1, "about": "what it shows",
     "users": {"4242": "ada"},                 owners of pids; others are "?"
     "frames": [FRAME, ...]}                   one look at the devices each; the last stays

    FRAME:  {"nvmlInit": ANSWER, "nvmlDeviceGetCount": ANSWER, "devices": [DEVICE, ...]}
            nvmlInit may be left out (it succeeds), so may nvmlDeviceGetCount (the number of devices)
    DEVICE: {"nvmlDeviceGetName": ANSWER, ...}  calls by their names in pynvml; one that is left out is not supported.
            "nvmlDeviceGetHandleByIndex" may be left out (it succeeds). "mig": [DEVICE or null, ...] are its MIG
            devices, null a hole in their numbering.
    ANSWER: the value; an object for a structure (fields by name), a list of objects for a list of structures, or
            {"error": 15} for an NVML error, {"error": "UnicodeDecodeError"} for another error that pynvml raises,
            {"seconds": 2.5} for a call that takes so long and then is not supported.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NotRequired, TypeAlias, TypedDict

from engine.json_types import Json
from mmtui.devices.nvml import NvmlDriver

FORMAT = 1
UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 1, 2, 3, 6

RecordedDevice: TypeAlias = "Mapping[str, Json]"
"""Answers by the names of calls, and ``mig``."""


class Frame(TypedDict, total=False):
    """One look at the devices, as the head of this file describes it."""

    nvmlInit: Json
    nvmlDeviceGetCount: Json
    devices: list[RecordedDevice]


class Recording(TypedDict):
    """The file, as its head describes it."""

    format: int
    about: NotRequired[str]
    users: NotRequired[dict[str, str]]
    frames: list[Frame]


class RecordingError(ValueError):
    """The file is no recording; the message says why."""


class RecordedNvmlError(Exception):
    """An NVML error of a recording."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class RecordedLibraryMismatchError(Exception):
    """What pynvml raises where the driver is too old for a call; no NVMLError, as there."""


_OTHER_ERRORS: dict[str, Exception] = {
    "NVMLLibraryMismatchError": RecordedLibraryMismatchError("Unversioned function called"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "AttributeError": AttributeError("module 'pynvml' has no such function"),
}


class RecordedHandle:
    """A device in one session."""

    def __init__(self, device: RecordedDevice, session: int) -> None:
        self.device, self.session = device, session


class RecordedNvml:
    """Answers like the module pynvml, from a recording."""

    simulated = True
    NVMLError = RecordedNvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, recording: Recording) -> None:
        self._frames = recording["frames"]
        self._position = 0
        self._used = False  # whether this frame has been looked at
        self._open = False
        self.sessions = 0

    def nvmlInit(self) -> None:
        """Open a session, or fail as recorded."""
        self._next_frame()
        answer = self._frame.get("nvmlInit")
        if answer is not None:
            self._used = True
            _answer(answer)
        self._open = True
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        """End the session; its handles are dead."""
        self._check_open()
        self._open = False

    def nvmlDeviceGetCount(self) -> object:
        """Number of devices; asking again is the next look."""
        self._check_open()
        self._next_frame()
        self._used = True
        return _answer(self._frame.get("nvmlDeviceGetCount", len(self._frame.get("devices", []))))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> RecordedHandle:
        """A device of this look."""
        self._check_open()
        devices = self._frame.get("devices", [])
        if not 0 <= index < len(devices):
            raise RecordedNvmlError(INVALID_ARGUMENT)
        _answer(devices[index].get("nvmlDeviceGetHandleByIndex"))
        return RecordedHandle(devices[index], self.sessions)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: RecordedHandle) -> int:
        """Most MIG devices that the device can have."""
        return len(_parts(self._device(handle)))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: RecordedHandle, index: int) -> RecordedHandle:
        """A MIG device."""
        part = _parts(self._device(handle))[index]
        if not isinstance(part, Mapping):
            raise RecordedNvmlError(NOT_FOUND)
        return RecordedHandle(part, self.sessions)

    def __getattr__(self, name: str) -> Callable[..., object]:
        if not name.startswith("nvmlDevice"):
            raise AttributeError(name)
        return functools.partial(self._field, name)

    def _field(self, name: str, handle: RecordedHandle, *_arguments: object) -> object:
        device = self._device(handle)
        if name not in device:
            raise RecordedNvmlError(NOT_SUPPORTED)
        return _answer(device[name])

    def _device(self, handle: RecordedHandle) -> RecordedDevice:
        self._check_open()
        if handle.session != self.sessions:
            raise RecordedNvmlError(UNINITIALIZED)
        return handle.device

    def _check_open(self) -> None:
        if not self._open:
            raise RecordedNvmlError(UNINITIALIZED)

    @property
    def _frame(self) -> Frame:
        return self._frames[self._position]

    def _next_frame(self) -> None:
        if self._used and self._position + 1 < len(self._frames):
            self._position += 1
            self._used = False


def _parts(device: RecordedDevice) -> Sequence[Json]:
    mig = device.get("mig")
    return mig if isinstance(mig, list) else []


def _answer(recorded: Json) -> object:
    if isinstance(recorded, list):
        return [_answer(item) for item in recorded]
    if not isinstance(recorded, dict):
        return recorded
    seconds = recorded.get("seconds")
    if isinstance(seconds, int | float):
        time.sleep(seconds)
        raise RecordedNvmlError(NOT_SUPPORTED)
    if "error" not in recorded:
        return SimpleNamespace(**recorded)
    error = recorded["error"]
    raise RecordedNvmlError(error) if isinstance(error, int) else _OTHER_ERRORS[str(error)]


def load_recording(path: Path) -> Recording:
    """A recording, checked as far as it must be for the stand-in to answer.

    Raises:
        RecordingError: the file cannot be read or is no recording.
    """
    try:
        recording: Recording = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from None
    _check(path, recording)
    return recording


def _check(path: Path, read: object) -> None:
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise RecordingError(f'{path} is no recording of NVML: write "format": {FORMAT}')
    frames = read.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise RecordingError(f'{path}: "frames" must be a list of at least one object')


def recorded_driver(path: Path) -> NvmlDriver:
    """The NVML driver of this program over a recording.

    Raises:
        RecordingError: the file cannot be read or is no recording.
    """
    recording = load_recording(path)
    users = {str(pid): str(name) for pid, name in recording.get("users", {}).items()}
    return NvmlDriver(RecordedNvml(recording), owner=lambda pid: users.get(str(pid), "?"))
