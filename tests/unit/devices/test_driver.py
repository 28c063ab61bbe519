"""Which driver answers, and that no look at it takes for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtui.devices import gpu_answer, gpu_snapshot
from mmtui.devices.driver import AbsentDriver, PatientDriver, driver
from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.protocol import GpuState
from mmtui.devices.recorded import RecordingError, load_recording

Play = Callable[[str], NvmlDriver]


def test_look_hanging_driver_ends_in_time_with_known_gpus_lost(play: Play) -> None:
    patient = PatientDriver(play("hangs"), patience=0.3)
    healthy = patient.look()
    began = time.monotonic()
    silent = patient.look()
    assert time.monotonic() - began < 0.8
    assert silent.state is GpuState.UNKNOWN and "has not answered" in silent.note
    assert [(gpu.uuid, gpu.lost) for gpu in silent.gpus] == [(healthy.gpus[0].uuid, True)]
    time.sleep(1.0)
    assert patient.look() == healthy, "it is asked again once it is back"


def test_look_hanging_driver_is_asked_by_one_thread_alone(play: Play) -> None:
    inner = play("hangs")
    asked: list[float] = []

    class Counting(AbsentDriver):
        def look(self):  # type: ignore[no-untyped-def]
            asked.append(time.monotonic())
            return inner.look()

    patient = PatientDriver(Counting("", GpuState.KNOWN), patience=0.05)
    patient.look()
    for _ in range(5):
        patient.look()
    assert len(asked) == 2, "one look that was answered, one that hangs"


def test_look_first_answer_late_is_unknown_not_a_machine_without_gpus(play: Play) -> None:
    slow = play("hangs")
    slow.look()
    assert PatientDriver(slow, patience=0.05).look().state is GpuState.UNKNOWN


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
