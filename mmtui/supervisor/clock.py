"""The supervisor's clock: it goes on steadily, and follows the machine's only where it can move what is counted."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from mmtui.services.launch import boot_id
from mmtui.store import cells, clock
from mmtui.store.clock_changes import Change, move
from mmtui.store.db import Database
from mmtui.store.reader import Reader
from mmtui.store.runs import set_setting
from mmtui.supervisor.outcome import BACK_OFF_SECONDS

SECONDS = 2.0
"""A difference of the clocks between two looks that is no jitter any more."""
GRACE_SAVE_SECONDS = 600.0
"""The longest time that a trainer is given to checkpoint and leave."""
SETTING = "clock"
"""Where the clock is kept for the next supervisor: it may be set while there is none."""

logger = logging.getLogger(__name__)


class Clock:
    """Unix time that does not jump between two calls of ``follow``.

    Attributes:
        began: offset of the machine's clock at the start of this supervisor.
    """

    def __init__(self, reader: Reader) -> None:
        self.began = clock.offset()
        self._asleep = clock.steady() - time.monotonic()
        self._looked = False
        self._kept = _kept(reader)
        self._offset = self.began if self._kept is None else self._kept

    def now(self) -> float:
        """Unix time as of the last look, gone on since: differences of it are durations."""
        return clock.steady() + self._offset

    def beat(self) -> float:
        """What the heartbeat is dated: it is told apart by seconds since the start, which nobody sets."""
        return clock.steady() + self.began

    def follow(self, database: Database) -> bool:
        """Look whether the machine's clock was set, or the machine slept, and move what is counted; whether so."""
        before, offset, asleep = self.now(), clock.offset(), clock.steady() - time.monotonic()
        jump, slept = offset - self._offset, asleep - self._asleep
        first, self._looked = not self._looked, True
        if self._kept is not None and abs(jump) < SECONDS and slept < SECONDS:
            return False
        with database.write() as session:
            change = Change(jump, slept, before, delays=not first)
            move(session, change, most_grace=GRACE_SAVE_SECONDS, most_back_off=BACK_OFF_SECONDS[-1])
            set_setting(session, SETTING, f"{boot_id()} {offset!r}")
        self._offset, self._asleep, self._kept = offset, asleep, offset
        if abs(jump) >= SECONDS:
            logger.warning("the clock was set by %+.0f s", jump)
        return True


def _kept(reader: Reader) -> float | None:
    """The offset that an earlier supervisor of this start of the machine has kept; None if there is none."""
    with suppress(ValueError):
        boot, offset = reader.settings().get(SETTING, "").split()
        return cells.number(float(offset)) if boot == boot_id() else None
    return None
