"""NVML through the program's own driver: what the driver does not tell is None, and nothing raises."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtui.devices.nvml import RETRY_SECONDS, NvmlDriver
from mmtui.devices.protocol import GpuState
from mmtui.devices.recorded import RecordedNvml
from mmtui.domain.views import GpuView

Play = Callable[[str], NvmlDriver]
Timed = Callable[[str], tuple[NvmlDriver, RecordedNvml]]
GIB = 2**30


def test_look_healthy_machine_gives_every_value_in_its_unit(play: Play) -> None:
    answer = play("healthy4").look()
    assert (answer.state, answer.note, len(answer.gpus)) == (GpuState.KNOWN, "", 4)
    busy = answer.gpus[1]
    assert busy.uuid == "GPU-11a2b3c4-0000-4000-8000-000000000001"
    assert (busy.index, busy.name, busy.utilisation) == (1, "NVIDIA H100 80GB HBM3", 97.0)
    assert (busy.memory_used, busy.memory_total) == (61 * GIB, 80 * GIB)
    assert (busy.power_watts, busy.temperature) == (652.0, 62.0)
    assert [(p.pid, p.user, p.memory, p.run, p.kind) for p in busy.processes] == [
        (2000001, "ada", 60 * GIB, "", "compute")
    ]


def test_look_missing_fields_are_none_and_the_rest_is_kept(play: Play) -> None:
    partial, bare, older, garbled = play("missing_fields").look().gpus
    assert (partial.utilisation, partial.power_watts) == (None, None)
    assert (partial.temperature, partial.memory_used, partial.name) == (41.0, GIB // 8, "GeForce GT 710")
    assert (bare.uuid, bare.name, bare.memory_total, bare.lost) == ("GPU-bare", "unknown GPU", None, False)
    assert [(p.pid, p.user) for p in older.processes] == [(2000007, "grace")], "the older call's answer"
    assert (garbled.name, garbled.utilisation) == ("unknown GPU", 12.0)


def test_look_nonsense_values_become_none_or_bounds(play: Play) -> None:
    wild, close, empty = play("nonsense").look().gpus
    assert (wild.utilisation, wild.memory_used, wild.memory_total) == (None, None, None)
    assert (wild.power_watts, wild.temperature) == (None, None)
    assert [(p.pid, p.memory) for p in wild.processes] == [(2000030, None), (2000031, None)]
    assert (close.utilisation, close.memory_used, close.power_watts, close.temperature) == (100.0, 80 * GIB, None, None)
    assert "\x1b" not in close.name and "\u202e" not in close.name and close.name.startswith("H100")
    assert (empty.memory_total, empty.utilisation, empty.processes, empty.mig) == (None, None, (), False)


def test_look_gpu_lost_while_read_keeps_its_name_and_is_found_again(timed: Timed, hands: Any) -> None:
    driver, module = timed("lost")
    healthy = driver.look().gpus
    seen = [[(gpu.index, gpu.uuid[4:6], gpu.lost) for gpu in driver.look().gpus] for _ in range(2)]
    assert seen[0] == [(0, "01", False), (1, "11", True), (2, "21", False)]
    # The driver has renumbered: index 1 is now what was GPU 2, and the lost one is still known by its UUID.
    assert seen[1] == [(0, "01", False), (1, "21", False), (1, "11", True)]
    assert module.sessions == 2, "one new session for the lost GPU, and not one for every look"
    hands.now += RETRY_SECONDS
    assert [(gpu.uuid, gpu.lost) for gpu in driver.look().gpus] == [(gpu.uuid, False) for gpu in healthy]
    lost = next(gpu for gpu in _lost_look(timed) if gpu.lost)
    assert (lost.uuid, lost.name) == (healthy[1].uuid, healthy[1].name)
    assert (lost.utilisation, lost.memory_used, lost.processes) == (None, None, ())


def _lost_look(timed: Timed) -> tuple[GpuView, ...]:
    driver, _ = timed("lost")
    driver.look()
    return driver.look().gpus


def test_look_gpu_lost_from_the_start_is_listed_without_a_name(play: Play) -> None:
    gpus = play("lost_from_start").look().gpus
    assert [(gpu.index, gpu.uuid[:6], gpu.lost) for gpu in gpus] == [
        (0, "GPU-01", False),
        (1, "", True),
        (2, "GPU-21", False),
    ]


def test_look_lost_gpu_opens_a_new_session_only_now_and_then(timed: Timed, hands: Any) -> None:
    driver, module = timed("lost_from_start")
    for _ in range(5):
        driver.look()
    assert module.sessions == 2
    hands.now += RETRY_SECONDS
    driver.look()
    driver.look()
    assert module.sessions == 3


def test_look_driver_updated_meanwhile_reports_known_gpus_lost_then_recovers(timed: Timed, hands: Any) -> None:
    driver, _ = timed("updated_meanwhile")
    before = driver.look()
    silent, refused = driver.look(), driver.look()
    assert silent.state is GpuState.UNKNOWN and "stopped answering" in silent.note
    assert refused.state is GpuState.UNKNOWN and "reboot after a driver update" in refused.note
    assert [(gpu.uuid, gpu.lost) for gpu in refused.gpus] == [(gpu.uuid, True) for gpu in before.gpus]
    assert driver.look() is refused, "a driver that refuses is not asked again at once"
    hands.now += RETRY_SECONDS
    assert driver.look() == before


def test_look_version_mismatch_at_the_start_is_unknown_not_none(play: Play) -> None:
    answer = play("mismatch").look()
    assert (answer.gpus, answer.state) == ((), GpuState.UNKNOWN)
    assert "different versions" in answer.note


def test_look_library_without_kernel_module_means_no_gpu(play: Play) -> None:
    answer = play("not_loaded").look()
    assert (answer.gpus, answer.state) == ((), GpuState.NONE)
    assert answer.note.startswith("no NVIDIA GPU found: ")


def test_look_hidden_gpu_is_left_out_and_named_in_the_note(play: Play) -> None:
    answer = play("hidden").look()
    assert [gpu.index for gpu in answer.gpus] == [1]
    assert (answer.note, answer.state) == ("GPU 0 cannot be used: no permission", GpuState.KNOWN)


def test_look_mig_lists_parts_behind_their_gpu_with_each_process_once(play: Play) -> None:
    gpus = play("mig").look().gpus
    assert [(gpu.index, gpu.uuid[:4], gpu.mig) for gpu in gpus] == [
        (0, "GPU-", True),
        (0, "MIG-", False),
        (0, "MIG-", False),
        (1, "GPU-", False),
        (2, "GPU-", True),
    ]
    assert [gpu.parent for gpu in gpus] == ["", gpus[0].uuid, gpus[0].uuid, "", ""]
    assert [process.pid for gpu in gpus for process in gpu.processes] == [2000020]
    assert gpus[1].processes and gpus[1].memory_total == 20 * GIB


def test_look_processes_of_others_carry_user_and_kind(play: Play) -> None:
    gpus = play("others").look().gpus
    assert [(p.user, p.memory, p.kind) for p in gpus[1].processes] == [
        ("grace", GIB, "compute"),
        ("?", GIB // 2, "compute"),
    ]
    assert {p.kind for p in gpus[2].processes} == {"graphics"}


def test_look_process_that_computes_and_draws_is_listed_once() -> None:
    device = {
        "nvmlDeviceGetUUID": "GPU-x",
        "nvmlDeviceGetGraphicsRunningProcesses": [{"pid": 7, "usedGpuMemory": 100}, {"pid": 8, "usedGpuMemory": 1}],
        "nvmlDeviceGetComputeRunningProcesses": [{"pid": 7, "usedGpuMemory": None}],
    }
    driver = NvmlDriver(RecordedNvml({"frames": [{"devices": [device]}]}), owner=lambda pid: "ada")
    (gpu,) = driver.look().gpus
    assert [(p.pid, p.memory, p.kind) for p in gpu.processes] == [(7, 100, "compute"), (8, 1, "graphics")]


def test_look_real_process_has_its_real_owner() -> None:
    device = {
        "nvmlDeviceGetUUID": "GPU-x",
        "nvmlDeviceGetComputeRunningProcesses": [
            {"pid": 1, "usedGpuMemory": 9},
            {"pid": 2**22 + 5, "usedGpuMemory": 1},
        ],
    }
    (gpu,) = NvmlDriver(RecordedNvml({"frames": [{"devices": [device]}]})).look().gpus
    # Process 1 is there in any container; where the pid namespace is not the machine's own, its owner is not told.
    first = Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC
    assert gpu.processes[0].user == (psutil.Process(1).username() if first else "?")
    assert gpu.processes[1].user == "?"


def test_look_handles_of_an_ended_session_are_not_used(play: Play) -> None:
    module = RecordedNvml({"frames": [{"devices": [{"nvmlDeviceGetUUID": "GPU-x"}]}]})
    module.nvmlInit()
    stale = module.nvmlDeviceGetHandleByIndex(0)
    module.nvmlShutdown()
    module.nvmlInit()
    driver = NvmlDriver(module)
    assert driver.look().gpus[0].uuid == "GPU-x"
    try:
        module.nvmlDeviceGetUUID(stale)
    except Exception as error:
        assert getattr(error, "value", None) == 1
    else:
        raise AssertionError("the double takes dead handles, so the driver's new sessions are not tested")


def test_look_real_module_without_a_driver_gives_words_and_raises_nothing() -> None:
    answer = NvmlDriver().look()
    if answer.state is GpuState.KNOWN:
        assert answer.gpus and all(gpu.uuid for gpu in answer.gpus if not gpu.lost)
    else:
        assert answer.gpus == () and len(answer.note) > 20 and "Error" not in answer.note


def test_import_devices_does_not_load_pynvml() -> None:
    code = "import sys, mmtui.services.devices; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_look_from_many_threads_gives_each_the_whole_list(play: Play) -> None:
    driver = play("healthy4")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.extend(driver.look() for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 400 and set(map(hash, answers)) == {hash(answers[0])}


def test_look_of_one_gpu_makes_at_most_twelve_calls() -> None:
    calls: list[str] = []

    class Counting(RecordedNvml):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("nvml"):
                calls.append(name)
            return super().__getattribute__(name)

    device = {
        "nvmlDeviceGetUUID": "GPU-x",
        "nvmlDeviceGetComputeRunningProcesses": [],
        "nvmlDeviceGetGraphicsRunningProcesses": [],
    }
    driver = NvmlDriver(Counting({"frames": [{"devices": [device]}]}))
    driver.look()
    calls.clear()
    driver.look()
    assert 8 <= len(calls) <= 12, calls
    assert driver.cost_seconds > 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
STRUCTURES = st.dictionaries(st.sampled_from(["total", "used", "gpu", "pid", "usedGpuMemory"]), JSON_VALUES, max_size=4)
ANSWERS = (
    JSON_VALUES
    | STRUCTURES
    | st.lists(STRUCTURES, max_size=3)
    | st.sampled_from([0, 1, 2, 3, 4, 13, 15, 16, 28, 999]).map(lambda code: {"error": code})
    | st.sampled_from(["UnicodeDecodeError", "NVMLLibraryMismatchError", "AttributeError"]).map(lambda n: {"error": n})
)
CALLS = [
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
]
DEVICES = st.dictionaries(st.sampled_from(CALLS), ANSWERS)
FRAMES = st.fixed_dictionaries(
    {"devices": st.lists(DEVICES, max_size=3)}, optional={"nvmlInit": ANSWERS, "nvmlDeviceGetCount": ANSWERS}
)


@settings(max_examples=200, deadline=None)
@given(frames=st.lists(FRAMES, min_size=1, max_size=4))
def test_look_any_answers_never_raise_and_stay_in_bounds(frames: list[dict[str, Any]]) -> None:
    driver = NvmlDriver(
        RecordedNvml({"frames": frames}), owner=lambda pid: "?", clock=iter(range(0, 10**6, 9)).__next__
    )
    for _ in range(len(frames) + 1):
        answer = driver.look()
        assert answer.state is not GpuState.KNOWN or answer.gpus
        for gpu in answer.gpus:
            assert gpu.utilisation is None or 0 <= gpu.utilisation <= 100
            assert gpu.temperature is None or -50 <= gpu.temperature <= 150
            assert gpu.power_watts is None or (math.isfinite(gpu.power_watts) and 0 <= gpu.power_watts <= 20_000)
            assert gpu.memory_total is None or 0 < gpu.memory_total < 2**46
            assert gpu.memory_used is None or 0 <= gpu.memory_used <= (gpu.memory_total or 2**46)
            assert gpu.name and "\x1b" not in gpu.name + gpu.uuid
            assert all(0 < process.pid < 2**31 for process in gpu.processes)
