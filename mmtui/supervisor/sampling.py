"""Use of the devices while runs are active, for their history. Nothing is written while the machine is idle.

The table stays small: samples older than a day are thinned, those older than a week go. Before that every attempt has
its own part in its folder (``mmtui.services.device_history``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from mmtui.domain.views import GpuView
from mmtui.paths import Home
from mmtui.services.device_history import keep, keep_before, uses_now
from mmtui.services.devices import run_pids, snapshot, with_runs
from mmtui.store import samples as stored
from mmtui.store.db import Database
from mmtui.store.queries import active
from mmtui.store.runs import add_warning
from mmtui.store.session import reading
from mmtui.store.tables import DeviceSample
from mmtui.supervisor.placement import misplaced

SAMPLE_SECONDS = 5.0
TIDY_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class DeviceRecorder:
    """Writes one row per device every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._tidy_at = 0.0
        self._told: set[str] = set()

    def record(self, home: Home, database: Database) -> None:
        """Take a sample if one is due; called while something runs."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAMPLE_SECONDS
        now = snapshot(home, {})
        # What is lost or has no name is not in there: nothing is known of it.
        samples = [
            DeviceSample(
                t=use.time,
                device=device,
                utilisation=use.utilisation,
                memory_used=use.memory_used,
                memory_total=use.memory_total,
                power_watts=use.power_watts,
                temperature=use.temperature,
            )
            for device, use in uses_now(now).items()
        ]
        with database.write() as session:
            session.add_all(samples)
        if now.gpus:
            self._check_places(home, database, now.gpus)
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_SECONDS
            tidy(home, database, now.time)

    def attempt_ended(self, home: Home, run_id: int, number: int) -> None:
        """Keep what the devices did during an attempt; a failure of it is told and harms nothing."""
        try:
            keep(home, str(run_id), number)
        except OSError as error:
            logger.warning("run %d: the use of its devices cannot be kept: %s", run_id, error)

    def _check_places(self, home: Home, database: Database, gpus: Iterable[GpuView]) -> None:
        """Warn, once for a run, if it sits on a GPU that it was not given."""
        owners = run_pids(home)
        with reading(home) as reader:
            holders = active.holders(reader)
        given = {str(one.run_id): one.names for one in holders}
        attempts = {str(one.run_id): one.attempt for one in holders}
        for run_id, text in misplaced((with_runs(gpu, owners) for gpu in gpus), given).items():
            if text not in self._told:
                self._told.add(text)
                logger.error("run %s: %s", run_id, text)
                with database.write() as session:
                    add_warning(session, int(run_id), attempts[run_id], text)


def tidy(home: Home, database: Database, now: float) -> None:
    """Thin old samples and drop those that are too old; attempts without their own part get it first."""
    with reading(home) as reader:
        limit = stored.keep_from(reader, now)
    try:
        keep_before(home, now - stored.FULL_SECONDS)
    except OSError as error:
        logger.warning("device samples are not thinned: %s", error)
        return
    with database.write() as session:
        stored.thin(session, now, limit)
