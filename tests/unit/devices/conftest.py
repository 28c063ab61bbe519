"""Recordings of NVML, and a driver over each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.recorded import RecordedNvml, load_recording, recorded_driver

RECORDINGS = Path(__file__).parent / "recordings"


@pytest.fixture
def recording() -> Callable[[str], Path]:
    """Path of a recording by name."""
    return lambda name: RECORDINGS / f"{name}.json"


@pytest.fixture
def play() -> Callable[[str], NvmlDriver]:
    """The program's NVML driver over a recording."""
    return lambda name: recorded_driver(RECORDINGS / f"{name}.json")


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands() -> Hands:
    """A clock for the driver's retries."""
    return Hands()


@pytest.fixture
def timed(hands: Hands) -> Callable[[str], tuple[NvmlDriver, RecordedNvml]]:
    """A driver whose clock is ``hands``, and the recording it plays."""

    def make(name: str) -> tuple[NvmlDriver, RecordedNvml]:
        module = RecordedNvml(load_recording(RECORDINGS / f"{name}.json"))
        return NvmlDriver(module, owner=lambda pid: "?", clock=hands), module

    return make
