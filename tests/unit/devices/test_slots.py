"""Which places are free."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.protocol import GpuAnswer, GpuState
from mmtui.devices.slots import Policy, Use, available, find
from mmtui.domain.scheduling import Waiting, waiting_reasons
from mmtui.domain.views import GpuProcess, GpuView
from mmtui.services.places import device_environment, find_slots
from mmtui.supervisor.placement import misplaced

Play = Callable[[str], NvmlDriver]
GIB = 2**30


def gpu(number: int, used: int | None = 0, total: int | None = 80 * GIB, **more: object) -> GpuView:
    return GpuView(number, f"GPU-{number}000-abcd", "H100", None, used, total, None, None, **more)  # type: ignore[arg-type]


def holder(memory: int | None, kind: str = "compute") -> GpuProcess:
    return GpuProcess(4242, "ada", memory, "", kind)


def test_available_reserved_gpus_are_not_free_though_nothing_is_on_them_yet() -> None:
    gpus = (gpu(0), gpu(1), gpu(2))
    assert available(gpus, {"GPU-1000-abcd"}) == ["GPU-0000-abcd", "GPU-2000-abcd"]


@pytest.mark.parametrize(
    ("view", "free"),
    [
        (gpu(0, used=8 * GIB - 1), True),
        (gpu(0, used=8 * GIB + 1), False),  # more than a tenth, by whomever: containers hide their processes
        (gpu(0, used=GIB, processes=(holder(GIB // 2),)), False),
        (gpu(0, used=GIB, processes=(holder(GIB // 2, "graphics"),)), True),
        (gpu(0, used=20 * GIB, processes=(holder(20 * GIB, "graphics"),)), False),
        (gpu(0, used=None, total=None), True),
        (gpu(0, used=None, total=None, processes=(holder(None),)), False),
        (gpu(0, lost=True), False),
        (gpu(0, mig=True), False),
    ],
)
def test_available_other_peoples_use_decides(view: GpuView, free: bool) -> None:
    assert available((view,), ()) == ([view.uuid] if free else [])


def test_available_sharing_policy_allows_small_compute_processes_alone() -> None:
    sharing = Policy(share_with_compute=True)
    small, large = gpu(0, used=GIB, processes=(holder(GIB),)), gpu(1, used=30 * GIB, processes=(holder(30 * GIB),))
    assert available((small, large), (), sharing) == [small.uuid]
    unknown = gpu(2, used=None, processes=(holder(None),))
    assert available((unknown,), (), sharing) == []


@pytest.mark.parametrize(
    ("allowed", "numbers"), [(("0", "2"), [0, 2]), (("GPU-1000",), [1]), (("9",), []), (("GPU",), []), ((), [0, 1, 2])]
)
def test_available_allowed_gpus_by_number_or_uuid(allowed: tuple[str, ...], numbers: list[int]) -> None:
    gpus = [gpu(0), gpu(1), gpu(2)]
    assert available(gpus, (), Policy(allowed=allowed)) == [gpus[number].uuid for number in numbers]


def test_find_shared_machine_says_who_holds_what(play: Play) -> None:
    slots = find(play("others").look(), ())
    assert [name[:5] for name in slots.free] == ["GPU-2"]
    assert (slots.total, slots.kind) == (4, "GPU")
    assert "GPU 0 has 21.0 GiB in use by pid 2000010 of ada" in slots.note
    assert "GPU 3 has 40.0 GiB in use" in slots.note
    reason = waiting_reasons([Waiting(1, 0, 1.0, 0.0)], slots)[1]
    assert reason.startswith("waiting: 3 of 4 GPUs in use; GPU 0 has")


def test_find_mig_hands_out_parts_and_whole_gpus_never_a_split_one(play: Play) -> None:
    slots = find(play("mig").look(), ())
    assert [name[:5] for name in slots.free] == ["MIG-2", "GPU-1"]
    assert slots.total == 3
    assert "MIG device MIG-1e5f6a7b of GPU 0 has 5.1 GiB in use" in slots.note


def test_find_without_gpu_gives_cpu_slots() -> None:
    nothing = GpuAnswer((), "no NVIDIA GPU found", GpuState.NONE)
    slots = find(nothing, {"cpu:0"}, Policy(cpu_slots=2))
    assert (slots.free, slots.total, slots.kind) == (("cpu:1",), 2, "CPU slot")


@pytest.mark.parametrize("name", ["mismatch", "lost_from_start"])
def test_find_broken_driver_or_lost_gpus_never_fall_back_to_the_cpu(play: Play, name: str) -> None:
    answer = play(name).look()
    lost = GpuAnswer(tuple(gpu(0, lost=True) for _ in answer.gpus), answer.note, answer.state)
    slots = find(lost, ())
    assert (slots.free, slots.kind) == ((), "GPU")
    reason = waiting_reasons([Waiting(1, 0, 1.0, 0.0)], slots)[1]
    assert reason.startswith("waiting: no GPU can be used; ")
    assert ("reboot" if name == "mismatch" else "GPU 0 is lost") in reason


def test_find_gpus_known_but_driver_silent_hands_out_none() -> None:
    silent = GpuAnswer((gpu(0),), "the NVIDIA driver has not answered for 9 s", GpuState.UNKNOWN)
    assert find(silent, ()).free == ()


def test_find_slots_environment_decides(recording: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(recording("healthy4")))
    assert [name[:5] for name in find_slots([]).free] == ["GPU-0", "GPU-2", "GPU-3"]
    monkeypatch.setenv("MMTUI_GPUS", "1, 3")
    assert [name[:5] for name in find_slots([]).free] == ["GPU-3"]
    monkeypatch.setenv("MMTUI_GPUS", "none")
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    assert find_slots(["cpu:0"]).free == ("cpu:1",)


def test_device_environment_binds_by_uuid_and_hides_gpus_from_cpu_runs() -> None:
    bound = device_environment(["GPU-0000-abcd"])
    assert bound == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-0000-abcd"}
    assert device_environment(["cpu:0"])["CUDA_VISIBLE_DEVICES"] == ""


def known(*gpus: GpuView) -> GpuAnswer:
    return GpuAnswer(gpus, "", GpuState.KNOWN)


def ours(run: str, memory: int | None) -> GpuProcess:
    return GpuProcess(7, "me", memory, run)


def test_find_shared_gpu_offers_what_starting_runs_will_not_take() -> None:
    # One run has taken 2 GiB of the 10 it is expected to take, the other has not begun to.
    view = gpu(0, used=3 * GIB, processes=(ours("1", 2 * GIB),))
    found = find(known(view), (), shared={view.uuid: Use(0.5, 18 * GIB)})
    assert (found.free, found.partly) == ((), (view.uuid,))
    place = found.places[view.uuid]
    assert place.share == 0.5
    assert place.room == 80 * GIB - 1 * GIB - 18 * GIB
    # They have taken more than was expected: what they have counts.
    view = gpu(0, used=30 * GIB, processes=(ours("1", 15 * GIB), ours("2", 15 * GIB)))
    assert find(known(view), (), shared={view.uuid: Use(0.5, 18 * GIB)}).places[view.uuid].room == 50 * GIB


@pytest.mark.parametrize(
    ("use", "processes"),
    [
        (Use(1.0, GIB), ()),
        (Use(0.5, None), ()),  # a run there has not been measured yet
        (Use(0.5, GIB), (holder(GIB),)),  # somebody else's process has come
    ],
)
def test_find_shared_gpu_is_not_offered(use: Use, processes: tuple[GpuProcess, ...]) -> None:
    view = gpu(0, used=GIB, processes=processes)
    found = find(known(view), (), shared={view.uuid: use})
    assert (found.free, found.partly) == ((), ())


def test_find_shared_gpu_without_memory_fields_has_no_room_to_give() -> None:
    view = gpu(0, used=None, total=None)
    place = find(known(view), (), shared={view.uuid: Use(0.5, GIB)}).places[view.uuid]
    assert place.room == 0


def test_find_free_gpu_tells_room_and_holders() -> None:
    view = gpu(1, used=4 * GIB, processes=(holder(3 * GIB, "graphics"),))
    place = find(known(view), ()).places[view.uuid]
    assert (place.room, place.words, place.kind) == (76 * GIB, "GPU 1", "H100")
    assert place.holders == "3.0 GiB held by pid 4242 of ada"


def test_misplaced_names_run_process_and_gpu() -> None:
    here = gpu(0, processes=(ours("5", GIB), ours("6", GIB)))
    found = misplaced([here], {"5": ["GPU-1000-abcd"], "6": [here.uuid], "7": []})
    assert found == {"5": "its process 7 computes on GPU 0 (GPU-0000-abcd), but it was given GPU-1000-abcd"}
    child = gpu(0, parent="", processes=(ours("5", GIB),))
    assert misplaced([child], {"5": [child.uuid]}) == {}
