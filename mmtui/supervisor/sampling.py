"""Use of the devices while runs are active, for their history. Nothing is written while the machine is idle."""

from __future__ import annotations

import time

from mmtui.devices import gpu_snapshot, host_snapshot
from mmtui.store.db import Database
from mmtui.store.tables import DeviceSample

SAMPLE_SECONDS = 5.0


class DeviceRecorder:
    """Writes one row per device every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def record(self, database: Database, active: bool) -> None:
        """Take a sample if one is due and something runs."""
        if not active or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAMPLE_SECONDS
        now = time.time()
        host = host_snapshot()
        samples = [
            DeviceSample(
                t=now,
                device="host",
                utilisation=host.cpu_percent,
                memory_used=host.memory_used,
                memory_total=host.memory_total,
            )
        ]
        for gpu in gpu_snapshot()[0]:
            if gpu.lost or not gpu.uuid:
                continue  # nothing is known of it, and two without a name would have the same key
            samples.append(
                DeviceSample(
                    t=now,
                    device=gpu.uuid,
                    utilisation=gpu.utilisation,
                    memory_used=gpu.memory_used,
                    memory_total=gpu.memory_total,
                    power_watts=gpu.power_watts,
                    temperature=gpu.temperature,
                )
            )
        with database.write() as session:
            session.add_all(samples)
