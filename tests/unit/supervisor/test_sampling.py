"""Device samples: kept with their run, thinned, forgotten in time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtui.domain.device_use import energy_joules, summary, thinned
from mmtui.domain.states import RunEvent
from mmtui.domain.views import DeviceUse
from mmtui.paths import Home
from mmtui.services import device_history
from mmtui.store import samples
from mmtui.store.db import Database
from mmtui.store.reader import Reader
from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition
from mmtui.supervisor.sampling import tidy
from tests.unit.supervisor.conftest import Workshop

NOW = 1_790_000_000.0
DAY = 86_400.0
RECORDINGS = Path(__file__).parents[1] / "devices" / "recordings"


def use(t: float, power: float | None = None, percent: float = 50.0) -> DeviceUse:
    return DeviceUse(t, percent, int(t) % 1000, 1000, power, 40.0)


# ---- what samples amount to ----------------------------------------------------------------------------------------


def test_energy_of_constant_power_is_power_times_time_and_gaps_count_nothing() -> None:
    steady = [use(NOW + 5 * n, 200.0) for n in range(13)]
    assert energy_joules(steady) == pytest.approx(200.0 * 60)
    after_a_day = [use(NOW + DAY + 5 * n, 100.0) for n in range(13)]
    assert energy_joules(steady + after_a_day) == pytest.approx(200.0 * 60 + 100.0 * 60)
    assert energy_joules([use(NOW + 5 * n) for n in range(9)]) is None, "a driver that does not tell the power"
    assert energy_joules(steady[:1]) is None


def test_energy_of_a_ramp_is_its_area() -> None:
    ramp = [use(NOW + 5 * n, 10.0 * n) for n in range(21)]
    assert energy_joules(ramp) == pytest.approx(sum(5 * (10 * n + 10 * (n + 1)) / 2 for n in range(20)))


def test_summary_is_over_all_attempts() -> None:
    told = summary([[use(NOW, 100, 20), use(NOW + 5, 300, 40)], [use(NOW + 99, 500, 90), use(NOW + 104, 500, 90)]])
    assert (told.count, told.utilisation, told.power_watts) == (4, 60.0, 350.0)
    assert told.energy_joules == pytest.approx(5 * 200 + 5 * 500)
    assert summary([]).utilisation is None


def test_thinned_samples_keep_means_peaks_and_ends() -> None:
    many = [use(NOW + n, float(n), percent=float(n % 100)) for n in range(10_000)]
    few = thinned(many, 100)
    assert len(few) == 100
    assert sum(u.utilisation or 0 for u in few) / 100 == pytest.approx(49.5, abs=0.5)
    assert max(u.memory_used or 0 for u in few) == 999
    assert few[0].time < NOW + 100 and few[-1].time > NOW + 9_900
    assert thinned(many, 20_000) == many and thinned([], 5) == []


# ---- the table -----------------------------------------------------------------------------------------------------


def fill(home: Home, times: list[float], device: str = "GPU-a") -> None:
    connection = sqlite3.connect(home.database)
    connection.executemany(
        "INSERT INTO device_samples VALUES (?, ?, ?, ?, 1000, 200.0, 40.0)",
        [(t, device, t % 100, int(t) % 1000) for t in times],
    )
    connection.commit()
    connection.close()


def stored(home: Home, device: str = "GPU-a") -> list[tuple[float, float, int]]:
    connection = sqlite3.connect(home.database)
    sql = "SELECT t, utilisation, memory_used FROM device_samples WHERE device = ? ORDER BY t"
    found = [tuple(row) for row in connection.execute(sql, [device])]
    connection.close()
    return found


def test_old_samples_are_thinned_to_one_a_minute_and_forgotten_after_a_week(home: Home) -> None:
    database = Database(home)
    times = [NOW - age for age in range(0, int(9 * DAY), 17)]
    fill(home, times)
    fill(home, [NOW - 3 * DAY], "host")
    tidy(home, database, NOW)
    border = (NOW - samples.FULL_SECONDS) // 60 * 60
    minutes: dict[int, list[float]] = {}
    for t in times:
        if NOW - samples.KEEP_SECONDS <= t < border:
            minutes.setdefault(int(t // 60), []).append(t)
    expected = [
        (sum(ts) / len(ts), sum(t % 100 for t in ts) / len(ts), max(int(t) % 1000 for t in ts))
        for ts in minutes.values()
    ] + [(t, t % 100, int(t) % 1000) for t in times if t >= border]
    found = stored(home)
    assert len(found) == len(expected)
    for row, wanted in zip(found, sorted(expected), strict=True):
        assert row == pytest.approx(wanted, abs=1e-6)
    assert stored(home, "host") == [(NOW - 3 * DAY, (NOW - 3 * DAY) % 100, int(NOW - 3 * DAY) % 1000)]
    tidy(home, database, NOW)
    assert stored(home) == found, "doing it again changes nothing"
    database.close()


def test_table_of_a_machine_that_is_always_busy_has_a_bound(home: Home) -> None:
    database = Database(home)
    most, each = 0, 60.0
    for day in range(12):
        fill(home, [NOW + day * DAY + n * each / 12 for n in range(int(DAY / each * 12))])
        tidy(home, database, NOW + (day + 1) * DAY)
        most = max(most, len(stored(home)))
    assert most <= DAY / 5 + 6 * DAY / 60 + 100
    database.close()


def add_run(database: Database, began: float, ended: float | None, gpus: list[str]) -> int:
    with database.write() as session:
        run_id = insert_run(session, NewRun("r", "shapes_smoke", 0, {}, (), {}, (("segment", 5),)), began)
        begin_attempt(session, run_id, gpus, "box")
        session.flush()
        session.connection().exec_driver_sql(
            "UPDATE attempts SET spawned_at = ?, ended_at = ? WHERE run_id = ?", (began, ended, run_id)
        )
    if ended is not None:
        with database.write() as session:
            transition(session, run_id, RunEvent.EXIT_OK, ended_at=ended)
    database.home.run(str(run_id)).attempt(1).mkdir(parents=True)
    return run_id


def test_samples_of_a_run_that_has_ended_outlive_the_table(home: Home) -> None:
    database = Database(home)
    began, ended = NOW - 9 * DAY, NOW - 9 * DAY + 100
    run_id = str(add_run(database, began, ended, ["GPU-a"]))
    fill(home, [began + 5 * n for n in range(-4, 25)])
    fill(home, [began + 5 * n for n in range(-4, 25)], "GPU-somebody-elses")
    fill(home, [began + 5 * n for n in range(-4, 25)], "host")
    before = device_history.history(home, run_id)
    assert {record.device: len(record.samples) for record in before.records} == {"GPU-a": 21, "host": 21}
    tidy(home, database, NOW)
    assert stored(home) == []
    after = device_history.history(home, run_id)
    assert {r.device: r for r in after.records} == {r.device: r for r in before.records}
    assert home.run(run_id).devices(1).stat().st_mode & 0o077 == 0
    database.close()


def test_samples_of_a_run_that_goes_on_for_weeks_stay(home: Home) -> None:
    database = Database(home)
    run_id = str(add_run(database, NOW - 30 * DAY, None, ["GPU-a"]))
    fill(home, [NOW - 29 * DAY, NOW - 20 * DAY, NOW - 31 * DAY])
    tidy(home, database, NOW)
    assert [row[0] for row in stored(home)] == [NOW - 29 * DAY, NOW - 20 * DAY]
    (record,) = (r for r in device_history.history(home, run_id).records if r.device == "GPU-a")
    assert len(record.samples) == 2
    database.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2}',
        '{"format": 1, "devices": [1]}',
        '{"format": 1, "devices": {"host": {"time": 3}}}',
    ],
)
def test_damaged_file_of_a_run_is_no_file(home: Home, text: str) -> None:
    database = Database(home)
    run_id = str(add_run(database, NOW - 100, NOW, ["GPU-a"]))
    fill(home, [NOW - 50])
    home.run(run_id).devices(1).write_text(text)
    assert [len(r.samples) for r in device_history.history(home, run_id).records] == [1]
    database.close()


def test_absurd_values_of_a_file_are_not_told(home: Home) -> None:
    database = Database(home)
    run_id = str(add_run(database, NOW - 100, NOW, ["GPU-a"]))
    row = {"time": [NOW, None], "utilisation": ["x", 1], "memory_used": [10**400, 1], "memory_total": [True, 1]}
    row |= {"power_watts": [[1], 1], "temperature": [-5.5, 1]}
    text = json.dumps({"format": 1, "devices": {"\x1b[31mGPU": row}})
    home.run(run_id).devices(1).write_text(text)
    (record,) = device_history.history(home, run_id).records
    assert record.samples == (DeviceUse(NOW, None, None, None, None, -5.5),)
    database.close()


# ---- the supervisor ------------------------------------------------------------------------------------------------


def test_supervisor_keeps_what_the_devices_did_with_the_attempt(workshop: Workshop) -> None:
    workshop.start(MMTUI_NVML_RECORDING=str(RECORDINGS / "healthy4.json"), MMTUI_GPUS="0")
    run_id = workshop.add(steps=70, seconds_per_step=0.1)
    row = workshop.until_state(run_id, "succeeded")
    assert row.gpus and row.gpus[0].startswith("GPU-")
    workshop.until(lambda: workshop.home.run(run_id).devices(1).exists(), "the samples are kept")
    with Reader(workshop.home) as reader:
        assert len(samples.read(reader, 0, 2**40, [row.gpus[0]])[row.gpus[0]]) >= 2
    workshop.sql_write("DELETE FROM device_samples")
    found = device_history.history(workshop.home, run_id)
    assert found.simulated, "what a recording played is told to be that"
    assert {record.device for record in found.records} == {row.gpus[0], "host"}
    (gpu,) = (record for record in found.records if record.device != "host")
    assert len(gpu.samples) >= 2 and gpu.samples[0].memory_total


def test_run_on_cpu_slots_has_the_host(workshop: Workshop, cancel: Callable[..., None]) -> None:
    workshop.start(MMTUI_GPUS="none")
    run_id = workshop.add(steps=5000, seconds_per_step=0.05)
    workshop.until_state(run_id, "running")
    workshop.until(lambda: device_history.history(workshop.home, run_id).records, "a first sample while it runs")
    cancel(run_id, now=True)
    workshop.until_state(run_id, "cancelled")
    (record,) = device_history.history(workshop.home, run_id).records
    assert record.device == "host" and record.samples[0].memory_total
