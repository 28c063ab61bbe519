"""The supervisor's part that serves runs on SLURM: submits them, follows their jobs, ends them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mmtui.domain.scheduling import order, own_reason
from mmtui.domain.slurm import NOT_BEGUN, waiting_words
from mmtui.domain.states import RunEvent, RunState, is_legal
from mmtui.errors import MmtuiError
from mmtui.services.pending_edits import settle
from mmtui.services.queue_state import Queue
from mmtui.services.trust import startable
from mmtui.store import cells
from mmtui.store.queries import attempts, known
from mmtui.store.runs import begin_attempt, read_attempt, read_run, set_reasons, state_of, transition
from mmtui.supervisor.attempts import Attempts
from mmtui.supervisor.launchers.slurm import Cluster, is_live

UNKNOWN_SECONDS = 60.0
"""A claim without a job that SLURM knows of is given up after this."""

logger = logging.getLogger(__name__)


class Jobs:
    """Runs of one data directory whose launcher is SLURM.

    Args:
        cluster: its jobs.
        looked_after: what becomes of attempts.
        queue: what waits.
        now: seconds since the epoch, as the supervisor counts them.
    """

    def __init__(self, cluster: Cluster, looked_after: Attempts, queue: Queue, now: Callable[[], float]) -> None:
        self.cluster, self.attempts, self.queue, self._now = cluster, looked_after, queue, now
        self.home, self.database, self.reader = looked_after.home, looked_after.database, looked_after.reader
        self.told: set[str] = set()
        self.nobody_waits = -1
        """State of the database in which no run waited for SLURM."""

    def submit_all(self) -> bool:
        """Hand over every run that nothing but SLURM stands in the way of."""
        queue, version = self.queue, self.reader.data_version()
        if version == self.nobody_waits:
            return False
        waiting = queue.waiting(on_cluster=True)
        if not waiting:
            self.nobody_waits = version
            return False
        now, rules, started, reasons = self._now(), queue.rules(), False, []
        for run in order(list(waiting.values())):
            reason = own_reason(run, rules)
            if reason or run.not_before > now:
                reasons.append({"key": run.run_id, "why": reason})
                continue
            self._submit(run.run_id)
            started, rules = True, queue.rules()
        changed = [row for row in reasons if row["why"]]
        if changed:
            with self.database.write() as session:
                set_reasons(session, changed)
        return started

    def _submit(self, run_id: int) -> None:
        database, home = self.database, self.home
        with database.write() as session:
            run = read_run(session, run_id)
            if not is_legal(state_of(run), RunEvent.START):
                return
            number = begin_attempt(session, run_id, [], "slurm", self._now())
            code, asked, overrides = cells.mapped(run.code), cells.mapped(run.launcher), cells.texts(run.overrides)
        try:
            settle(home, str(run_id), overrides)
            job = self.cluster.submit(run_id, number, asked, startable(home, str(run_id), code))
        except (OSError, MmtuiError) as error:
            self.attempts.reject(run_id, error)
            return
        self._store(run_id, number, job)
        logger.info("run %d: attempt %d is SLURM job %s", run_id, number, job)

    def _store(self, run_id: int, number: int, job: str) -> None:
        with self.database.write() as session:
            attempt = read_attempt(session, run_id, number)
            attempt.job = job
            session.add(attempt)

    def reconcile(self, run_id: int, number: int, state: str, job: str, kill_at: float | None) -> None:
        """Bring what the database says of a run in line with its job. While SLURM is silent nothing is judged."""
        jobs = self.cluster.look()
        if jobs is None:
            return
        if not job:
            self._adopt(run_id, number)
            return
        _, word, reason = jobs.get(job, ("", "", ""))
        if is_live(word):
            self._follow(run_id, state, job, word, reason, kill_at)
            return
        self._over(run_id, number, state, job, word)

    def _adopt(self, run_id: int, number: int) -> None:
        """The supervisor died between handing the run over and noting the job's number."""
        job = self.cluster.find(run_id, number)
        if job:
            self._store(run_id, number, job)
            return
        began = attempts.spawned_at(self.reader, run_id, number)
        if began is not None and self._now() - began > UNKNOWN_SECONDS:
            self.attempts.finish(run_id, number)

    def _follow(self, run_id: int, state: str, job: str, word: str, reason: str, kill_at: float | None) -> None:
        if state in (RunState.STOPPING, RunState.PAUSING):
            overdue = kill_at is not None and self._now() > kill_at
            if word in NOT_BEGUN or overdue:
                self.cluster.kill(job)
            elif job not in self.told:
                self.told.add(job)
                self.cluster.leave(job)
        elif state == RunState.STARTING:
            self._explain(run_id, waiting_words(job, word, reason) if word in NOT_BEGUN else f"SLURM job {job} starts")

    def _explain(self, run_id: int, text: str) -> None:
        if known.has_other_reason(self.reader, run_id, text):
            with self.database.write() as session:
                run = read_run(session, run_id)
                run.reason = text
                session.add(run)

    def _over(self, run_id: int, number: int, state: str, job: str, word: str) -> None:
        if not self.attempts.ingest(run_id, number):
            return
        ended_here = bool(self.attempts.proving.fault(run_id, number))
        if word == "CANCELLED" and state in (RunState.STARTING, RunState.RUNNING) and not ended_here:
            reason = f"SLURM job {job} was cancelled outside mmtui"
            with self.database.write() as session:
                if is_legal(state_of(read_run(session, run_id)), RunEvent.CANCEL):
                    transition(session, run_id, RunEvent.CANCEL, reason=reason)
        elif word == "FAILED":
            # Only counts where the trainer itself could not say why.
            self.attempts.exits[(run_id, number)] = 1
        logger.info("run %d: SLURM job %s is over: %s", run_id, job, word or "no longer listed")
        self.attempts.finish(run_id, number)
