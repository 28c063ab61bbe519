"""What becomes of attempts: their events are read, their ends judged; those that cannot start are rejected."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtui.domain.states import RunEvent, RunState
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file, is_all_read
from mmtui.store.db import Database
from mmtui.store.queries import attempts
from mmtui.store.queries import queue as queued
from mmtui.store.reader import Reader
from mmtui.store.reserve import DiskReserve
from mmtui.store.runs import end_attempts, read_attempt, read_run, transition
from mmtui.store.tables import Attempt, Run
from mmtui.supervisor.hooks import Hooks
from mmtui.supervisor.outcome import Ending, judge, last_written
from mmtui.supervisor.proving import Proving
from mmtui.supervisor.sampling import DeviceRecorder

if TYPE_CHECKING:
    from sqlmodel import Session

TURN_BYTES = 8 * 1024 * 1024
TURN_LINES = 5000
"""So much of a run's events is read in one tick, then it is the next run's turn: both are a fraction of a second."""

logger = logging.getLogger(__name__)


class Attempts:
    """Looks after the attempts of one data directory, wherever they train.

    Args:
        database, reader: both sides of its database.
        now: seconds since the epoch, as the supervisor counts them.
        proving: judges the code that trainers report.
        hooks: told of ends.
        recorder: keeps what the devices did during an attempt.
        reserve: knows whether the disk is full.
    """

    def __init__(
        self,
        home: Home,
        database: Database,
        reader: Reader,
        now: Callable[[], float],
        *,
        proving: Proving,
        hooks: Hooks,
        recorder: DeviceRecorder,
        reserve: DiskReserve,
    ) -> None:
        self.home, self.database, self.reader, self._now = home, database, reader, now
        self.proving, self._hooks, self._recorder, self._reserve = proving, hooks, recorder, reserve
        self.exits: dict[tuple[int, int], int] = {}
        """Exit codes of those that have ended and are not judged yet, by run and number."""
        self._complaints: set[tuple[int, str]] = set()

    def complain(self, run_id: int, error: Exception, text: str) -> None:
        """Say once in the log what is wrong with a run."""
        complaint = (run_id, repr(error))
        if complaint not in self._complaints:
            self._complaints.add(complaint)
            logger.error("run %d: %s", run_id, text, exc_info=error)

    def ingest(self, run_id: int, number: int) -> bool:
        """Read on in what the trainer has written; whether all of it has been read, as far as it went."""
        offset, file = attempts.ingested(self.reader, run_id, number), self.home.run(str(run_id)).events(number)
        if offset is None:
            return True
        try:
            reached = ingest_file(self.database, file, run_id, number, offset, TURN_BYTES, TURN_LINES)
            return is_all_read(file, reached)
        except OSError as error:
            # Its events are lost; that the run ends, and frees its place, must not depend on them.
            self.complain(run_id, error, f"the events of attempt {number} cannot be read")
            return True

    def finish(self, run_id: int, number: int) -> None:
        """A trainer is gone: judge what became of it, and put it back if policy says so."""
        files, now, exit_code = self.home.run(str(run_id)), self._now(), self.exits.get((run_id, number))
        with self.database.write(durable=True) as session:
            run, attempt = read_run(session, run_id), read_attempt(session, run_id, number)
            ending = self.judged(run, attempt, exit_code, files.log(number), now)
            # Nobody knows when one ended that was no child of this supervisor: it wrote until then.
            attempt.ended_at = now if exit_code is not None else last_written(files, attempt, now)
            attempt.exit_code = exit_code
            attempt.outcome = attempt.outcome or ending.outcome
            session.add(attempt)
            session.flush()
            self._apply(session, run, ending, now)
        self.exits.pop((run_id, number), None)
        self._recorder.attempt_ended(self.home, run_id, number)
        if ending.event is RunEvent.EXIT_ERROR:
            self._hold_group(run_id)
        self._hooks.ended(self.reader, run_id, time.monotonic())
        logger.info("run %d: attempt %d: %s %s", run_id, number, ending.event.value, ending.reason)

    def judged(self, run: Run, attempt: Attempt, exit_code: int | None, log: Path, now: float) -> Ending:
        """What became of an attempt; one that cannot be judged has failed: its place is free again."""
        try:
            ending = self.proving.judge(run, attempt)
            return ending or judge(run, attempt, exit_code, log, now, disk_full=self._reserve.spent)
        except Exception as error:
            logger.exception("run %s: attempt %d cannot be judged", run.id, attempt.number)
            text = f"its end could not be judged ({type(error).__name__}: {error}); see supervisor.log"
            return Ending(RunEvent.EXIT_ERROR, "failed", text, text)

    def _hold_group(self, run_id: int) -> None:
        """The rest of a sweep that asked for it is held when one of its runs has failed."""
        for other in queued.to_hold_after(self.reader, run_id):
            with self.database.write() as session:
                transition(session, other, RunEvent.HOLD, reason=f"run #{run_id} of its sweep has failed")

    def _apply(self, session: Session, run: Run, ending: Ending, now: float) -> None:
        assert run.id is not None
        fields: dict[str, Any] = {"ended_at": now, **({"error": ending.error} if ending.error else {})}
        transition(session, run.id, ending.event, reason=ending.reason, **fields)
        session.refresh(run)
        if run.state == RunState.INTERRUPTED and ending.retry_in is not None:
            transition(
                session,
                run.id,
                RunEvent.REQUEUE,
                reason=ending.reason,
                not_before=now + ending.retry_in,
                ended_at=None,
                vanished=ending.vanished,
                # The furthest it ever came: trainers that die a step earlier or later each time do not get on.
                vanished_at_step=max(run.vanished_at_step, run.global_step),
            )

    def reject(self, run_id: int, error: Exception) -> None:
        """A run that could not be started at all has failed."""
        text = f"the trainer could not be started: {error}"
        if isinstance(error, MmtuiError):
            text = "; ".join(part for part in (error.message, error.hint) if part)
        now = self._now()
        with self.database.write() as session:
            transition(session, run_id, RunEvent.REJECT, reason=text, error=text, ended_at=now)
            end_attempts(session, run_id, now)
        logger.error("run %d: %s", run_id, text)
