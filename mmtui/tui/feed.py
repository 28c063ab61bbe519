"""Fresh data for the screen, read in a thread: the database is asked only when it has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mmtui.domain.states import ACTIVE_STATES
from mmtui.domain.views import DeviceSnapshot
from mmtui.paths import Home
from mmtui.services import devices, runs, supervisors
from mmtui.services.live import Changes, one_moment
from mmtui.tui import faults
from mmtui.tui.layout import PANELS, arrange
from mmtui.tui.model import Snapshot, Wanted
from mmtui.tui.rows import Rows
from mmtui.tui.widgets.plot import chart_buckets

POLL_SECONDS = 0.5
LEAST_SECONDS = 1.0
"""Between two pictures that nobody asked for: over SSH each of them is sent."""
DEVICE_SECONDS = 2.0
DEVICE_PATIENCE = 0.3
"""So long a picture waits for the devices: a driver that starts, or a sick GPU, takes seconds."""


_FIRST = Wanted()


def first_wanted(columns: int, rows: int, select: str | None) -> Wanted:
    """What a screen of this size looks at first."""
    boxes = arrange(columns, max(rows - 2, 0), PANELS[0], zoomed=False)
    return Wanted(run_id=select, buckets=chart_buckets(boxes["chart"].width))


class Feed:
    """Polls in a thread of its own and says when there is something new.

    It needs no Textual and can begin before that is loaded.

    Args:
        home: the data directory.
        wanted: what to read first.
    """

    def __init__(self, home: Home, wanted: Wanted = _FIRST) -> None:
        self.home = home
        self.latest = Snapshot()
        self._wanted = wanted
        self._notify: Callable[[], None] = _nobody
        self._wake, self._stop = threading.Event(), threading.Event()
        self._rows = Rows(home)
        self._devices_due, self._read_at = 0.0, -LEAST_SECONDS
        self._devices = _Look(home)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin polling; again is fine."""
        if not self._thread.is_alive():
            self._thread.start()

    def tell(self, notify: Callable[[], None]) -> None:
        """Call this, from the thread, whenever ``latest`` has changed; it carries no data."""
        self._notify = notify
        if self.latest != Snapshot():
            notify()

    def stop(self) -> None:
        """End polling."""
        self._stop.set()
        self._wake.set()

    def want(self, wanted: Wanted, *, again: bool = False) -> None:
        """Look at something else from now on; ``again`` reads it even if nothing has changed."""
        if wanted != self._wanted or again:
            self._wanted = wanted
            if again:
                self._devices_due = 0.0
            self._wake.set()

    def _run(self) -> None:
        changes = Changes(self.home)
        while not self._stop.is_set():
            try:
                self._turn(changes)
            except Exception as error:
                if not self._stop.is_set():  # else the screen is closing and cannot be told any more
                    faults.told(self.home, "the feed", error)
            self._wake.wait(POLL_SECONDS)
        changes.close()

    def _turn(self, changes: Changes) -> None:
        forced = self._wake.is_set()
        self._wake.clear()
        due = time.monotonic() - self._read_at >= LEAST_SECONDS
        fresh = self._look(changes, forced) if forced or due else None
        if fresh is not None and fresh != self.latest:
            self.latest = fresh
            self._notify()

    def _look(self, changes: Changes, forced: bool) -> Snapshot | None:
        """A new snapshot, None if there is nothing new."""
        try:
            again = forced or bool(self.latest.trouble)  # what failed may be a file: no change of the database tells
            if not changes.seen() and not again and not self._devices_wanted():
                return None
            return self._read(self._wanted)
        except Exception as error:
            # The screen stays, says what is wrong and tries again.
            return Snapshot(wanted=self._wanted, problem=faults.told(self.home, "the list of runs", error))

    def _devices_wanted(self) -> bool:
        """Devices are sampled while something runs; an idle screen sends nothing."""
        if self._devices.latest is not self.latest.devices:
            return True  # they came late
        busy = any(self.latest.counts.get(state.value) for state in ACTIVE_STATES)
        return self.latest.devices is None or (busy and time.monotonic() >= self._devices_due)

    def _read(self, wanted: Wanted) -> Snapshot:
        self._read_at = time.monotonic()
        if self._devices.latest is None:
            self._look_at_devices()  # beside the database
        with one_moment(self.home):
            stored = self._stored(wanted)
        return replace(stored, devices=self._sample(stored.counts), device_trouble=self._devices.trouble)

    def _stored(self, wanted: Wanted) -> Snapshot:
        """What the database and the runs' files hold."""
        counts = runs.count_runs(self.home)
        pinned = runs.pinned(self.home)
        rows, total = self._rows.window(wanted, pinned)
        run_id = wanted.run_id or (rows[0].run.id if rows else None)
        snapshot = Snapshot(
            wanted=wanted,
            rows=rows,
            pinned=tuple(pinned),
            total=total,
            counts=counts,
            supervisor=supervisors.status(self.home),
            run_id=run_id,
        )
        return snapshot if run_id is None else self._with_run(snapshot, run_id, wanted)

    def _with_run(self, base: Snapshot, run_id: str, wanted: Wanted) -> Snapshot:
        """The selected run as well; if it cannot be read, why: the list stands all the same."""
        try:
            return self._with_details(base, run_id, wanted)
        except Exception as error:
            return replace(base, trouble=faults.told(self.home, f"run {run_id}", error))

    def _with_details(self, base: Snapshot, run_id: str, wanted: Wanted) -> Snapshot:
        detail = runs.get_run(self.home, run_id)
        metrics = tuple(runs.metric_names(self.home, run_id))
        metric = wanted.metric if wanted.metric in metrics or not metrics else metrics[0]
        return replace(
            base,
            detail=detail,
            metrics=metrics,
            series=runs.series(self.home, run_id, metric, max_buckets=wanted.buckets),
            graph=runs.graph_stats(self.home, run_id),
            classes=runs.class_table(self.home, run_id),
            log=tuple(runs.log_tail(self.home, run_id, 200, max(detail.row.attempt, 1))),
        )

    def _sample(self, counts: dict[str, int]) -> DeviceSnapshot | None:
        """The devices: looked at anew if that is due, those of the last time if they do not answer soon."""
        busy = any(counts.get(state.value) for state in ACTIVE_STATES)
        if time.monotonic() >= self._devices_due and (busy or self._devices_due == 0.0):
            self._look_at_devices()
        self._devices.wait(DEVICE_PATIENCE)
        return self._devices.latest

    def _look_at_devices(self) -> None:
        self._devices_due = time.monotonic() + DEVICE_SECONDS
        self._devices.begin()


class _Look:
    """Looks at the devices in threads, one at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.latest: DeviceSnapshot | None = None
        self.trouble = ""
        """Why the last look saw nothing."""
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look, unless that is under way."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="devices", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until it is done, at most so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self.latest, self.trouble = devices.snapshot(self.home), ""
        except OSError:
            pass  # the data directory was removed
        except Exception as error:
            self.trouble = faults.told(self.home, "the devices", error)


def _nobody() -> None:
    """Nobody is told."""
