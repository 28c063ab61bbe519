"""Samples of the devices: reading them, and keeping their table small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmtui.domain.views import DeviceUse
from mmtui.store import cells
from mmtui.store.reader import Reader
from mmtui.store.sql import ACTIVE

if TYPE_CHECKING:
    from sqlmodel import Session

FULL_SECONDS = 24 * 3600.0
"""So long every sample is kept; then one for each minute."""
THIN_SECONDS = 60.0
KEEP_SECONDS = 7 * 24 * 3600.0
"""So long samples are kept at all, or for as long as a run is active. Runs that have ended keep their own."""
_COLUMNS = "t, device, utilisation, memory_used, memory_total, power_watts, temperature"


def read(reader: Reader, began: float, ended: float, devices: Sequence[str]) -> dict[str, list[DeviceUse]]:
    """Samples of some devices between two times, oldest first; devices without any are left out."""
    marks = ",".join("?" * len(devices))
    sql = f"SELECT {_COLUMNS} FROM device_samples WHERE t BETWEEN ? AND ? AND device IN ({marks}) ORDER BY t"
    found: dict[str, list[DeviceUse]] = {}
    for row in reader.query(sql, [began, ended, *devices]):
        use = DeviceUse(
            row["t"],
            cells.number(row["utilisation"]),
            _whole(row["memory_used"]),
            _whole(row["memory_total"]),
            cells.number(row["power_watts"]),
            cells.number(row["temperature"]),
        )
        found.setdefault(str(row["device"]), []).append(use)
    return found


def recent(reader: Reader, first: float, each: float) -> dict[str, dict[int, DeviceUse]]:
    """Samples of all devices behind a time as one for each ``each`` seconds: {device: {share of the time: sample}}."""
    sql = (
        "SELECT device, CAST((t - ?) / ? AS INTEGER) AS place, max(t), avg(utilisation), max(memory_used),"
        " max(memory_total), avg(power_watts), max(temperature) FROM device_samples WHERE t >= ? GROUP BY device, place"
    )
    found: dict[str, dict[int, DeviceUse]] = {}
    for device, place, t, *values in reader.query(sql, [first, each, first]):
        use, used, total, power, heat = map(cells.number, values)
        found.setdefault(str(device), {})[place] = DeviceUse(t, use, _whole(used), _whole(total), power, heat)
    return found


def _whole(cell: object) -> int | None:
    return int(cell) if isinstance(cell, int | float) else None


def oldest(reader: Reader) -> float | None:
    """Time of the oldest sample."""
    rows = reader.query("SELECT min(t) FROM device_samples")
    return rows[0][0] if rows else None


def keep_from(reader: Reader, now: float) -> float:
    """Time before which samples may go: a week ago, or when the first of the active runs began."""
    sql = f"SELECT min(a.spawned_at) FROM attempts a JOIN runs r ON r.id = a.run_id WHERE r.state IN ({ACTIVE})"
    rows = reader.query(sql)
    began = rows[0][0] if rows else None
    return min(now - KEEP_SECONDS, began if began is not None else now)


def thin(session: Session, now: float, keep_from: float) -> None:
    """Put one sample a minute in the place of those older than a day, and delete those before ``keep_from``.

    Doing it again changes nothing.
    """
    connection = session.connection()
    connection.exec_driver_sql("DELETE FROM device_samples WHERE t < ?", (keep_from,))
    # Whole minutes alone: half of one would be merged again with its other half, as if both weighed the same.
    before = (now - FULL_SECONDS) // THIN_SECONDS * THIN_SECONDS
    rows = connection.exec_driver_sql(
        "SELECT CAST(t / ? AS INTEGER) AS minute, device, avg(t), avg(utilisation), max(memory_used),"
        " max(memory_total), avg(power_watts), max(temperature) FROM device_samples WHERE t < ?"
        " GROUP BY device, minute HAVING count(*) > 1",
        (THIN_SECONDS, before),
    ).all()
    for minute, device, *values in rows:
        connection.exec_driver_sql(
            "DELETE FROM device_samples WHERE t >= ? AND t < ? AND device = ?",
            (minute * THIN_SECONDS, (minute + 1) * THIN_SECONDS, device),
        )
        t, *rest = values
        connection.exec_driver_sql(
            f"INSERT INTO device_samples ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", (t, device, *rest)
        )
