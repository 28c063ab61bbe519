"""Devices now, and those of a run while it was active."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmtui.cli import machine
from mmtui.devices.nvml import NvmlDriver
from mmtui.devices.recorded import RecordedNvml
from mmtui.domain.states import RunEvent
from mmtui.domain.views import DeviceSnapshot, DeviceUse, TrainerView
from mmtui.paths import Home
from mmtui.services import moments, runs
from mmtui.services.devices import snapshot
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import devices, facts, run_devices
from mmtui.tui.pages.charts import View
from mmtui.tui.widgets import panels
from tests.tui.seed import seed_run
from tests.tui.test_pages import plain, ready, shown
from tests.waiting import until_async

NOW = 1_790_000_000.0
GIB = 2**30


def uuid(index: int) -> str:
    return f"GPU-{index}1a2b3c4-0000-4000-8000-00000000000{index}"


def gpu(index: int, processes: int) -> dict[str, Any]:
    """One device of a recording."""
    return {
        "nvmlDeviceGetUUID": uuid(index),
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetMemoryInfo": {"total": 80 * GIB, "used": 10 * (index + 1) * GIB, "free": GIB},
        "nvmlDeviceGetUtilizationRates": {"gpu": 10 * index, "memory": 0},
        "nvmlDeviceGetPowerUsage": 100_000 * (index + 1),
        "nvmlDeviceGetTemperature": 40 + index,
        "nvmlDeviceGetMigMode": [0, 0],
        "nvmlDeviceGetComputeRunningProcesses": [
            {"pid": 2_000_000 + 100 * index + n, "usedGpuMemory": (n + 1) * GIB} for n in range(processes)
        ],
        "nvmlDeviceGetGraphicsRunningProcesses": [],
    }


def eight() -> list[dict[str, Any]]:
    """Eight GPUs: one crowded, one split, one whose driver tells nothing but its name."""
    found = [gpu(index, {2: 11, 4: 1, 6: 7}.get(index, 0)) for index in range(8)]
    part = {"nvmlDeviceGetUUID": "MIG-1e5f", "nvmlDeviceGetName": "NVIDIA H100 MIG 3g.20gb"}
    found[3] |= {"nvmlDeviceGetMigMode": [1, 1], "mig": [part, None, {**part, "nvmlDeviceGetUUID": "MIG-2e5f"}]}
    found[7] = {"nvmlDeviceGetUUID": uuid(7), "nvmlDeviceGetName": "\x1b[31mold card"}
    return found


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A recording of eight GPUs plays the driver; GPU 5 is lost from the second look on."""
    lost = eight()
    lost[5] = {"nvmlDeviceGetHandleByIndex": {"error": 15}}
    recording = {
        "format": 1,
        "users": {str(2_000_000 + 100 * g + n): ("ada", "grace")[n % 2] for g in range(8) for n in range(11)},
        "frames": [{"devices": eight()}, {"devices": lost}],
    }
    file = tmp_path / "eight.json"
    file.write_text(json.dumps(recording))
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(file))
    yield


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_devices_screen_says_everything_of_eight_gpus(home: Home, crowd: None, width: int, ascii_only: bool) -> None:
    snapshot(home)
    now = snapshot(home)
    lines = devices.devices(home, now, width, ascii_only)
    text = plain(lines)
    assert all(len(line) <= width for line in text.splitlines())
    assert text.isascii() or not ascii_only
    assert text.splitlines()[0].startswith("SIMULATED")
    for index in range(8):
        assert f"GPU {index}  " in text
    assert "GPU 3 MIG  NVIDIA H100 MIG 3g.20gb" in text and "split into MIG devices" in text
    assert "LOST: the driver does not reach it" in text
    assert "\\x1b[31mold card" in text and "\x1b" not in text
    assert "and 5 more processes" in text and "and 1 more process:" in text
    assert "pid 2000210  ada  11.0 GiB" in text
    for words in ("40%", "30.0 of 80.0 GiB", "300 W", "42 C", "n/a of n/a", "cores", "free"):
        assert words in text, words


def test_trainers_stand_below_the_host_as_many_as_there_is_room_for(home: Home) -> None:
    home.create()
    several = [TrainerView(str(n), 100 + n, 50.0 * n if n else None, 2**30, 1 + n % 2, 4) for n in range(8)]
    text = plain(devices.devices(home, snapshot(home), 80, False, (), several))
    assert "run 1  pid 101  50% of a core  1.0 GiB  2 processes" in text
    assert "run 0  pid 100  1.0 GiB" in text
    assert "run 6" not in text and "and 2 more: mmtui gpu" in text


def test_history_of_the_devices_is_as_long_as_what_is_known(home: Home, crowd: None) -> None:
    now = snapshot(home)
    assert "last ten minutes" in plain(devices.devices(home, now, 120, False))
    seed_run(home, "one", until=5, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    for age, told in ((300.0, "last ten minutes"), (2000.0, "last hour"), (40_000.0, "last day")):
        record(home, [(now.time - age, uuid(0), 100.0)])
        lines = devices.devices(home, now, 120, False)
        assert told in plain(lines), age
        marks = plain(lines).split("use ", 1)[1].splitlines()[0]
        assert "█" in marks[30:58]


def test_snapshots_of_the_session_are_history_too(home: Home, crowd: None) -> None:
    now = snapshot(home)
    before = DeviceSnapshot(
        **{name: getattr(now, name) for name in DeviceSnapshot.__slots__} | {"time": now.time - 500}
    )
    lines = plain(devices.devices(home, now, 120, False, [before])).splitlines()
    heat = next(line for line in lines if line.startswith("heat"))[:59]
    assert len(heat[34:].replace(" ", "")) == 2


def test_devices_panel_of_the_runs_screen_counts_what_it_has_no_room_for(home: Home, crowd: None) -> None:
    now = snapshot(home)
    for height in range(1, 40):
        lines = panels.devices(now, 70, height, False)
        assert len(lines) <= height
        text = plain(lines)
        if height >= 8:
            shown_gpus = sum(text.count(f"GPU {index} ") for index in range(8))
            assert shown_gpus >= 8 or "more GPUs: press 5" in text
            assert "SIMULATED" in text and "disk" in text


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_devices_screen_is_live_while_nothing_is_stored(home: Home, crowd: None, size: tuple[int, int]) -> None:
    app = MmtuiApp(home)
    async with app.run_test(size=size) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        await pilot.press("5")
        await until_async(lambda: "GPU 0" in shown(app) and "SIMULATED" in shown(app))
        await pilot.press("G")
        await until_async(lambda: "history:" in shown(app))
        await pilot.press("g")
        await until_async(lambda: len(app.screen.seen) >= 3)  # type: ignore[attr-defined]


def record(home: Home, rows: list[tuple[float, str, float]]) -> None:
    """Samples as the supervisor stores them."""
    connection = sqlite3.connect(home.database)
    connection.executemany(f"INSERT INTO device_samples VALUES (?, ?, ?, {20 * GIB}, {80 * GIB}, 250.0, 61.0)", rows)
    connection.commit()
    connection.close()


def seeded(home: Home, gpus: str = f'["{uuid(1)}"]', end: RunEvent | None = RunEvent.EXIT_ERROR) -> str:
    """A run with a sample every two seconds: 10 % in the first stage, 90 % in the second, 0 after its last word."""
    run_id = seed_run(home, "a run", until=330, seed=1, end=end, now=NOW)
    points = runs.points(home, run_id, "loss")
    border = next(p.time for p in points if p.global_step > 150)
    last = points[-1].time
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE attempts SET spawned_at = ?, ended_at = ?", [points[0].time - 10, last + 60])
    connection.execute("UPDATE runs SET gpus = ?, started_at = ?, ended_at = ?", [gpus, points[0].time - 10, last + 60])
    connection.commit()
    connection.close()
    times = [points[0].time - 10 + 2 * n for n in range(int((last + 70 - points[0].time) / 2))]
    for device in (uuid(1), uuid(2), "host"):
        record(home, [(t, device, 10.0 if t < border else 90.0 if t <= last else 0.0) for t in times])
    return run_id


def test_step_and_time_of_a_run_are_those_of_its_points(home: Home) -> None:
    run_id = seeded(home)
    points = runs.points(home, run_id, "loss")
    for point in points[::7]:
        assert moments.time_at(home, run_id, point.global_step) == pytest.approx(point.time, abs=0.5)
    steps = moments.steps(home, run_id)
    for before, after in pairwise(points[3:20]):
        assert steps.at(1, after.time) == after.global_step
        assert steps.at(1, (before.time + after.time) / 2) == pytest.approx(
            (before.global_step + after.global_step) / 2
        )
    assert steps.at(1, 0.0) == 0 and steps.at(1, NOW * 2) == points[-1].global_step
    assert moments.time_at(home, run_id, 0) is not None and moments.time_at(home, "77", 3) is None


def test_devices_of_a_run_as_of_a_step(home: Home) -> None:
    run_id = seeded(home)
    text = plain(run_devices.run_devices(home, run_id, 160, 48, False, View()))
    assert "host" in text and "GPU-11a2b3c4" in text and "GPU-21" not in text, "the run's own GPU alone"
    rows = {line.split()[0]: line.split() for line in text.splitlines()[1:3]}
    assert rows["GPU-11a2b3c4"][-2:] == [rows["GPU-11a2b3c4"][-2], "kWh"] and "250 W" in text and "61 C" in text
    assert "use 0 %" in text, "the crashed run's last minute"
    early = plain(run_devices.run_devices(home, run_id, 160, 48, False, View(moment=100)))
    assert "use 10 % then" in early and "▲" in early
    late = plain(run_devices.run_devices(home, run_id, 160, 48, True, View(moment=300, axis="relative")))
    assert "use 90 % then" in late and late.isascii() and "since 0s" in late
    for width in (60, 80, 200):
        lines = run_devices.run_devices(home, run_id, width, 20, False, View())
        assert all(len(line) <= width for line in plain(lines).splitlines())


def test_table_of_a_runs_devices_is_the_mean_of_its_samples(home: Home) -> None:
    run_id = seeded(home)
    connection = sqlite3.connect(home.database)
    began, ended = connection.execute("SELECT spawned_at, ended_at FROM attempts").fetchone()
    mean, count = connection.execute(
        "SELECT avg(utilisation), count(*) FROM device_samples WHERE device = ? AND t BETWEEN ? AND ?",
        [uuid(1), began, ended],
    ).fetchone()
    connection.close()
    row = next(
        line
        for line in plain(run_devices.run_devices(home, run_id, 160, 48, False, View())).splitlines()
        if line.startswith("GPU-11a2b3c4")
    )
    assert row.split()[1:4] == [str(count), f"{mean:.0f}", "%"]
    assert f"{250 * (count - 1) * 2 / 3.6e6:.3f} kWh" in row


def test_line_is_broken_where_nothing_was_recorded_and_dim_where_it_was_done_again() -> None:
    from mmtui.domain.views import DeviceRecord

    times = [NOW + 5 * n for n in range(10)] + [NOW + 5000 + 5 * n for n in range(10)]
    uses = tuple(DeviceUse(t, 50.0, None, None, None, None) for t in times)
    steps = moments.Steps({1: [(NOW, 0.0), (NOW + 5100, 100.0)]}, {1: 0, 2: 99})
    axis = run_devices.TimeAxis(steps, NOW, True, None)
    use = run_devices.MEASURES[0]
    curves = run_devices.curves_of(DeviceRecord("x", 1, uses), use, axis)
    assert [len(curve.samples) for curve in curves] == [10, 10] and not any(curve.dim for curve in curves)
    by_step = run_devices.TimeAxis(steps, NOW, False, None)
    curves = run_devices.curves_of(DeviceRecord("x", 1, uses), use, by_step)
    done_again = [sample.x for curve in curves if curve.dim for sample in curve.samples]
    assert done_again == []
    steps = moments.Steps(steps.points, {1: 0, 2: 50})
    by_step = run_devices.TimeAxis(steps, NOW, False, None)
    curves = run_devices.curves_of(DeviceRecord("x", 1, uses), use, by_step)
    assert [len(curve.samples) for curve in curves if curve.dim] == [10]


def test_gpu_of_a_run_on_the_command_line(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = seeded(home)
    machine.gpu(run=run_id)
    told = capsys.readouterr().out
    assert "250 W" in told and uuid(1) in told and "host" in told
    machine.gpu(run="@", as_json=True)
    body = json.loads(capsys.readouterr().out)
    assert body["schema_version"] == 1 and body["run"] == run_id and body["simulated"] is False
    (one,) = (device for device in body["devices"] if device["device"] == uuid(1))
    assert one["summary"]["power_watts"] == 250.0 and one["samples"][0]["utilisation"] == 10.0
    assert one["samples"][0]["time"].endswith("Z") and one["samples"][0]["attempt"] == 1


def test_run_without_samples_says_so_everywhere(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = seed_run(home, "a run", until=330, seed=1, end=None, now=NOW)
    machine.gpu(run=run_id)
    assert "nothing was recorded" in capsys.readouterr().err
    assert "nothing was recorded" in plain(run_devices.run_devices(home, run_id, 80, 24, False, View()))


# ---- the other tabs ------------------------------------------------------------------------------------------------


def test_history_and_stages_as_of_a_step(home: Home) -> None:
    run_id = seed_run(home, "a run", until=330, seed=1, end=RunEvent.EXIT_ERROR, now=time.time() + 5)
    now = plain(facts.history(home, run_id, 120, False))
    assert "match     finished  150/150" in now and "segment   stopped   180/300" in now and "exit_error" in now
    then = plain(facts.history(home, run_id, 120, False, 100))
    assert "match     running  100/150" in then and "segment   pending    0/300" in then
    assert "exit_error" not in then and "later changes" in then
    later = plain(facts.history(home, run_id, 120, False, 200))
    assert "match     finished  150/150" in later and "segment   running    50/300" in later


async def test_slider_ends_where_a_crashed_run_ended(home: Home) -> None:
    seed_run(home, "a run", until=100, seed=1, end=RunEvent.EXIT_ERROR, now=NOW)
    app = MmtuiApp(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "comma")
        await until_async(lambda: "as of step 98 of 100" in shown(app))


def test_recording_plays_as_it_is_written() -> None:
    driver = NvmlDriver(RecordedNvml({"frames": [{"devices": eight()}]}), owner=lambda pid: "x")
    assert [len(found.processes) for found in driver.look().gpus if found.index == 2] == [11]
