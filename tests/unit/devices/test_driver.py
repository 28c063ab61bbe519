"""Which driver answers, and that no look at it takes for ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmtui.devices import gpu_answer, gpu_snapshot
from mmtui.devices.driver import AbsentDriver, PatientDriver, driver
from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.protocol import GpuAnswer, GpuState
from mmtui.devices.recorded import RecordingError, load_recording
from tests.waiting import PATIENCE, until

Play = Callable[[str], NvmlDriver]


class Gate(AbsentDriver):
    """A driver that answers, and hangs while its gate is shut."""

    def __init__(self, answer: GpuAnswer) -> None:
        super().__init__("", GpuState.KNOWN)
        self.answer, self.open, self.asked = answer, threading.Event(), 0

    def look(self) -> GpuAnswer:
        self.asked += 1
        assert self.open.wait(PATIENCE)
        return self.answer


@pytest.fixture
def gate(play: Play) -> Iterator[Gate]:
    made = Gate(play("healthy4").look())
    yield made
    made.open.set()


def looked_at_and_shut(gate: Gate) -> PatientDriver:
    """It has answered once, however long that took; now it hangs, and there is little patience."""
    gate.open.set()
    patient = PatientDriver(gate, patience=PATIENCE)
    assert patient.look() == gate.answer
    gate.open.clear()
    patient._patience = 0.05
    return patient


def test_look_hanging_driver_ends_in_time_with_known_gpus_lost(gate: Gate) -> None:
    patient = looked_at_and_shut(gate)
    silent = patient.look()
    assert silent.state is GpuState.UNKNOWN and "has not answered" in silent.note
    assert [(gpu.uuid, gpu.lost) for gpu in silent.gpus] == [(gpu.uuid, True) for gpu in gate.answer.gpus]
    gate.open.set()
    until(lambda: patient.look() == gate.answer, "an answer once it is back")


def test_look_hanging_driver_is_asked_by_one_thread_alone(gate: Gate) -> None:
    patient = looked_at_and_shut(gate)
    for _ in range(5):
        patient.look()
    assert gate.asked == 2, "one look that was answered, one that hangs"


def test_look_first_answer_late_is_unknown_not_a_machine_without_gpus(gate: Gate) -> None:
    assert PatientDriver(gate, patience=0.05).look().state is GpuState.UNKNOWN


def test_driver_recording_in_the_environment_is_played_and_labelled(
    recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(recording("healthy4")))
    assert driver().simulated
    assert len(gpu_snapshot()[0]) == 4
    monkeypatch.delenv("MMTUI_NVML_RECORDING")
    assert not driver().simulated


def test_driver_gpus_none_leaves_gpus_alone(recording: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(recording("healthy4")))
    monkeypatch.setenv("MMTUI_GPUS", "none")
    answer = gpu_answer()
    assert (answer.gpus, answer.state) == ((), GpuState.NONE)
    assert "MMTUI_GPUS=none" in answer.note


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "cannot be read"), ("[]", "no recording"), ('{"format": 2}', '"format": 1'), ('{"format": 1}', "frames")],
)
def test_driver_bad_recording_is_a_note_not_an_exception(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(path))
    answer = gpu_answer()
    assert says in answer.note and answer.state is GpuState.UNKNOWN and answer.gpus == ()


def test_load_recording_missing_file_raises_recording_error(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be read"):
        load_recording(tmp_path / "none.json")


def test_recordings_all_say_what_they_show(recording: Callable[[str], Path]) -> None:
    paths = sorted(recording("healthy4").parent.glob("*.json"))
    assert len(paths) >= 10
    for path in paths:
        load_recording(path)
        assert json.loads(path.read_text())["about"], path
