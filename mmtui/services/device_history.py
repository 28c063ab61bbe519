"""What the devices of a run did while it was active.

The supervisor samples all devices into the table ``device_samples``, which is thinned and forgets after a week; when an
attempt ends, its own part of it is kept in the attempt's folder (``devices.json``), for as long as the run is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.events.numbers import LARGEST_INTEGER, finite
from mmtui.devices.driver import driver
from mmtui.domain.device_use import thinned
from mmtui.domain.views import AttemptView, DeviceRecord, DeviceSnapshot, DeviceUse, RunDetail, RunDevices
from mmtui.paths import Home
from mmtui.services.plain_files import open_file
from mmtui.services.runs import get_run
from mmtui.store import samples
from mmtui.store.queries.devices import sampled_before
from mmtui.store.session import reading

FORMAT = 1
HOST, DISK = "host", "disk"
"""Devices in the table that are no GPUs. Of the disk, memory is what is in use of the one that holds the data."""
MOST = 600
"""Samples that are kept of one device in one attempt."""
LARGEST_FILE = 16 * 2**20
_FIELDS = ("time", "utilisation", "memory_used", "memory_total", "power_watts", "temperature")


def history(home: Home, run_id: str) -> RunDevices:
    """Samples of the run's GPUs and of the host, by attempt.

    Raises:
        NotFoundError: there is no such run.
    """
    detail = get_run(home, run_id)
    if detail.terms.launcher:
        return RunDevices(run_id, (), "its jobs run on a cluster: their devices are not sampled")
    records: list[DeviceRecord] = []
    simulated = False
    for attempt in detail.attempts:
        kept = _read(home.run(run_id).devices(attempt.number))
        found, simulated_then = kept if kept is not None else (_recorded(home, detail, attempt), driver().simulated)
        simulated = simulated or (simulated_then and any(device != HOST for device in found))
        records += [DeviceRecord(name, attempt.number, tuple(uses)) for name, uses in found.items()]
    note = "" if records else "nothing was recorded: the supervisor samples while runs are active"
    return RunDevices(run_id, tuple(records), note, simulated)


def _recorded(home: Home, detail: RunDetail, attempt: AttemptView) -> dict[str, list[DeviceUse]]:
    """What the table holds of an attempt."""
    with reading(home) as reader:
        ended = attempt.ended_at or detail.row.ended_at or time.time()
        found = samples.read(reader, attempt.started_at, ended, devices_of(detail.row.gpus))
    return {name: thinned(uses, MOST) for name, uses in found.items()}


def devices_of(places: Sequence[str]) -> list[str]:
    """Devices that matter to a run in these places; CPU slots are parts of the host."""
    return [*(place for place in places if not place.startswith("cpu:")), HOST]


def recent(home: Home, seconds: float, shares: int) -> dict[str, dict[int, DeviceUse]]:
    """What the supervisor recorded of every device in the last so many seconds, in so many shares of the time."""
    with reading(home) as reader:
        return samples.recent(reader, time.time() - seconds, seconds / shares)


def uses_now(now: DeviceSnapshot) -> dict[str, DeviceUse]:
    """A snapshot as samples."""
    t, disk = now.time, now.disk_total - now.disk_free
    found = {
        gpu.uuid: DeviceUse(t, gpu.utilisation, gpu.memory_used, gpu.memory_total, gpu.power_watts, gpu.temperature)
        for gpu in now.gpus
        if gpu.uuid and not gpu.lost
    }
    found[HOST] = DeviceUse(t, now.cpu_percent, now.memory_used, now.memory_total, None, None)
    found[DISK] = DeviceUse(t, None, disk, now.disk_total, None, None)
    return found


def keep(home: Home, run_id: str, number: int) -> bool:
    """Write an attempt's part of the samples into its folder; False if there is none.

    Raises:
        OSError: the file cannot be written.
    """
    detail = get_run(home, run_id)
    attempt = next((a for a in detail.attempts if a.number == number), None)
    target = home.run(run_id).devices(number)
    if attempt is None or detail.terms.launcher or not target.parent.is_dir():
        return False
    found = _recorded(home, detail, attempt)
    if not found:
        return False
    columns = {name: {field: [getattr(u, field) for u in uses] for field in _FIELDS} for name, uses in found.items()}
    temporary = target.with_name(f".{target.name}")
    temporary.write_text(json.dumps({"format": FORMAT, "simulated": driver().simulated, "devices": columns}))
    temporary.chmod(0o600)
    temporary.replace(target)
    return True


def keep_before(home: Home, moment: float) -> None:
    """Keep the samples of all attempts that began before a time and have none yet: the table is about to forget them.

    Raises:
        OSError: a file cannot be written.
    """
    with reading(home) as reader:
        attempts = sampled_before(reader, moment)
    for run_id, number in attempts:
        if not home.run(str(run_id)).devices(number).exists():
            keep(home, str(run_id), number)


def _read(path: Path) -> tuple[dict[str, list[DeviceUse]], bool] | None:
    """What an attempt's file holds and whether it was simulated; None if there is no file that can be read."""
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                return None
            body = json.loads(file.read(LARGEST_FILE + 1))
        if body["format"] != FORMAT:
            return None
        return {str(name): _uses(columns) for name, columns in body["devices"].items()}, bool(body.get("simulated"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _uses(columns: Mapping[str, object]) -> list[DeviceUse]:
    """Samples of one device; the file may come from elsewhere: values that are no numbers are not told."""
    rows = zip(*(columns[field] for field in _FIELDS), strict=True)
    uses = [DeviceUse(*(_number(value) for value in row)) for row in rows if _number(row[0]) is not None]
    return sorted(uses, key=lambda use: use.time)


def _number(value: Any) -> Any:
    """A number as the driver could have given it, whole where it was whole; None if it is none."""
    known = finite(value)
    return value if known is not None and abs(known) < LARGEST_INTEGER else None
