"""The supervisor: one ordered tick, again and again. reap -> ingest -> wishes -> reconcile -> schedule and spawn."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mmtui.domain.placing import Slots
from mmtui.domain.scheduling import Waiting, order, pick_first, waiting_reasons
from mmtui.domain.states import ACTIVE_STATES, RunEvent, RunState, is_legal
from mmtui.domain.text import duration
from mmtui.errors import MmtuiError, NotFoundError, RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services.launch import identity
from mmtui.services.pending_edits import settle
from mmtui.services.queue_state import Queue
from mmtui.services.trainers import is_alive, read_pid_file
from mmtui.services.trust import startable
from mmtui.store import cells
from mmtui.store.db import Database
from mmtui.store.queries import active, attempts, damaged
from mmtui.store.queries import queue as queued
from mmtui.store.reader import Reader
from mmtui.store.reserve import DiskReserve
from mmtui.store.runs import (
    apply_verb,
    begin_attempt,
    read_attempt,
    read_run,
    set_pid,
    set_reasons,
    state_of,
    take_wishes,
    transition,
)
from mmtui.store.wholeness import refuse_incomplete
from mmtui.supervisor import process
from mmtui.supervisor.attempts import Attempts
from mmtui.supervisor.clock import GRACE_SAVE_SECONDS, Clock
from mmtui.supervisor.clustering import Jobs
from mmtui.supervisor.hooks import Hooks
from mmtui.supervisor.launchers import local
from mmtui.supervisor.launchers.slurm import Cluster
from mmtui.supervisor.proving import Proving
from mmtui.supervisor.sampling import DeviceRecorder
from mmtui.supervisor.served import Served
from mmtui.supervisor.takeover import take_over

if TYPE_CHECKING:
    from sqlmodel import Session

ACTIVE_SECONDS = 0.25
IDLE_SECONDS = 0.5
GRACE_SECONDS = 30.0
GRACE_NOW_SECONDS = 3.0
NEVER = float("inf")
LOCK_SECONDS = 15.0
"""How long a run without a known trainer is left alone while some process still holds its lock."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Serves one data directory. Its state is in the database; what it keeps in memory can be lost at any moment."""

    def __init__(self, home: Home, lock_inode: int | None = None) -> None:
        self.home, self.served = home, Served(home, lock_inode)
        self.database = Database(home, checkpoints=True)
        refuse_incomplete(home)
        self.served.hold_database()
        self.reader = Reader(home)
        self.children: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
        self.signalled: set[tuple[int, int]] = set()
        self.locked_since: dict[tuple[int, int], float] = {}
        self.recorder = DeviceRecorder()
        self.reserve = DiskReserve(home)
        self.clock = Clock(self.reader)
        self.queue = Queue(home, self.reader, self.clock.now)
        self.hooks = Hooks(home)
        self.stopping, self.lost, self.took_over = False, "", False
        cluster = Cluster(home)
        self.proving = Proving(home, self.reader, cluster.kill)
        self.attempts = Attempts(
            home,
            self.database,
            self.reader,
            self.clock.now,
            proving=self.proving,
            hooks=self.hooks,
            recorder=self.recorder,
            reserve=self.reserve,
        )
        self.jobs = Jobs(cluster, self.attempts, self.queue, self.clock.now)
        self.looked_at: object = None
        self.look_again_at = 0.0

    def serve(self) -> None:
        """Tick until asked to stop; runs go on without a supervisor."""
        logger.info("supervisor %d serves %s", os.getpid(), self.home.root)
        # Libraries are a large part of all objects and stay: looking at them again and again took longer than a tick.
        gc.collect()
        gc.freeze()
        while not self.stopping and not self._lost():
            busy = True
            try:
                self.reserve.hold()
                busy = self.tick()
                self.served.hold_log()
            except MmtuiError as error:
                # A full disk or a locked database passes; runs go on meanwhile and nothing is lost.
                logger.error("%s", error.message)
                self._make_room()
            except Exception:
                logger.exception("a tick failed; the next one tries again")
                self._make_room()
            time.sleep(ACTIVE_SECONDS if busy else IDLE_SECONDS)
        self.database.close()
        self.reader.close()
        self.served.close()
        logger.info("supervisor %d leaves; runs go on", os.getpid())

    def _make_room(self) -> None:
        """Before the next try: give the reserve back if the disk is full, else wait a little."""
        if self.reserve.release():
            logger.error(
                "the disk is full; space that was set aside is given back, so that the database can be written"
            )
        else:
            time.sleep(2)

    def stop(self, *_: object) -> None:
        """Leave after this tick (signal handler)."""
        self.stopping = True

    def tick(self) -> bool:
        """One round; True while anything is active or waiting."""
        if self.clock.follow(self.database):
            self.looked_at = None
        if not self.took_over:
            self.queue.strangers = take_over(self.database, self.home)
            self.took_over = True
        self._reap()
        working = active.attempts(self.reader)
        for run_id, number in working:
            self._alone(run_id, self.attempts.ingest, number)
            self._alone(run_id, self.proving.look, number)
        wishes = self._wishes()
        for run_id, number in active.attempts(self.reader):
            self._alone(run_id, self._reconcile, number)
        started = self._schedule() or self.jobs.submit_all()
        if working:
            self._enforce_limits()
            self.recorder.record(self.home, self.database)
            self._beat()
        self.hooks.look_after(time.monotonic())
        return bool(working or wishes or started or self.hooks.running)

    def _enforce_limits(self) -> None:
        """Stop runs whose time is over, as a person would: they checkpoint first, and can be retried."""
        for run_id, number, limit in attempts.over_time(self.reader, self.clock.now()):
            reason = f"its time limit of {duration(limit)} is over; mmtui retry {run_id} --time-limit goes on"
            with self.database.write() as session:
                transition(session, run_id, RunEvent.CANCEL, reason=reason)
                attempt = read_attempt(session, run_id, number)
                attempt.kill_at = self.clock.now() + GRACE_SAVE_SECONDS
                session.add(attempt)
            logger.info("run %d: %s", run_id, reason)

    def _alone(self, run_id: int, action: Callable[[int, int], object], number: int) -> None:
        """Do something for one run such that its failure holds up no other run; said once in the log."""
        try:
            action(run_id, number)
        except UnreachableError:
            raise
        except Exception as error:
            self.attempts.complain(run_id, error, f"attempt {number} cannot be looked after")

    def _lost(self) -> bool:
        """Whether the files were taken from under us: whatever is written now, nobody reads."""
        self.lost = self.served.problem()
        if self.lost:
            logger.error("%s; trainers go on", self.lost)
        return bool(self.lost)

    def _beat(self) -> None:
        """Heartbeat: the lock file's time, touched only while there is work."""
        with suppress(OSError):
            beat = self.clock.beat()
            os.utime(self.home.lock, (beat, beat))

    def _reap(self) -> None:
        """Keep the exit codes of children that have ended, by run and attempt, until they are judged."""
        ended = {key: child.returncode for key, child in self.children.items() if child.poll() is not None}
        for key in ended:
            del self.children[key]
        self.attempts.exits.update(ended)

    def _wishes(self) -> bool:
        if not queued.has_wishes(self.reader):
            return False
        with self.database.write(durable=True) as session:
            for wish in take_wishes(session):
                try:
                    self._grant(session, wish.run_id, wish.verb, json.loads(wish.arguments))
                except (RefusedError, NotFoundError) as error:
                    # The run went on since the wish was made; it is told in the log, not to a terminal that is gone.
                    logger.info("run %d: %s: %s", wish.run_id, wish.verb, error.message)
                except (ValueError, AttributeError) as error:
                    # No wish of this version: left in its place, it would fail every tick and hold up all runs.
                    logger.error("run %d: '%s' cannot be carried out: %s", wish.run_id, wish.verb, error)
        return True

    def _grant(self, session: Session, run_id: int, verb: str, arguments: dict[str, object]) -> None:
        run = read_run(session, run_id)
        if verb in ("cancel", "pause") and state_of(run) in ACTIVE_STATES:
            grace = GRACE_NOW_SECONDS if arguments.get("now") else GRACE_SECONDS
            grace = GRACE_SAVE_SECONDS if arguments.get("save") else grace
            if run.state != RunState.STOPPING:
                transition(session, run_id, RunEvent(verb), reason=f"{verb} was asked for", actor="user")
            attempt = read_attempt(session, run_id, run.attempt)
            attempt.kill_at = min(attempt.kill_at or float("inf"), self.clock.now() + grace)
            session.add(attempt)
            return
        apply_verb(session, run_id, verb)

    def _reconcile(self, run_id: int, number: int) -> None:
        """Bring what the database says of an active run in line with its process."""
        found = attempts.standing(self.reader, run_id, number)
        if found is None:
            return
        if found.is_on_cluster:
            self.jobs.reconcile(run_id, number, found.state, found.job, found.kill_at)
            return
        if found.pid is None and self._adopt(run_id, number):
            return
        if is_alive(found.pid, found.identity):
            self._signal(run_id, number, found)
            return
        if self._is_gone(run_id, number, found.pid):
            self._reap()  # it may have died since this tick began; its exit code tells a failure from a kill
            if self.attempts.ingest(run_id, number):
                self.attempts.finish(run_id, number)

    def _is_gone(self, run_id: int, number: int, pid: int | None) -> bool:
        """Whether nothing of an attempt lives or can still begin, so that it may be judged."""
        key = (run_id, number)
        if process.fence(self.home.run(str(run_id)).root):
            self.locked_since.pop(key, None)
            return True
        if pid is not None:
            process.end_leftovers(pid)
        # A launcher between its lock and its pid file, or workers that die just now: look again in the next tick.
        return time.monotonic() - self.locked_since.setdefault(key, time.monotonic()) > LOCK_SECONDS

    def _adopt(self, run_id: int, number: int) -> bool:
        """Take over a trainer whose supervisor died before it could note the pid."""
        found = read_pid_file(self.home.run(str(run_id)).attempt(number))
        if found is None:
            return False
        with self.database.write() as session:
            set_pid(session, run_id, number, found.pid, found.identity)
        logger.info("run %d: adopted its trainer, pid %d", run_id, found.pid)
        return True

    def _signal(self, run_id: int, number: int, found: attempts.Standing) -> None:
        """SIGTERM once (checkpoint and leave), SIGKILL when the grace is over."""
        if found.pid is None or found.state not in (RunState.STOPPING, RunState.PAUSING):
            return
        # Told on disk, for the next supervisor: a second SIGTERM would end the trainer without a checkpoint.
        told = self.home.run(str(run_id)).attempt(number) / "terminated"
        if (run_id, number) not in self.signalled and not told.exists():
            process.signal_group(found.pid, found.identity, signal.SIGTERM)
            self.signalled.add((run_id, number))
            told.touch(mode=0o600)
        if found.kill_at is not None and self.clock.now() > found.kill_at:
            process.signal_group(found.pid, found.identity, signal.SIGKILL)

    def _schedule(self) -> bool:
        """Start what can start; write why the others wait. Nothing is done while nothing has changed."""
        now, slots, rules = self.clock.now(), self.queue.slots(), self.queue.rules()
        seen = (self.reader.data_version(), slots, rules)
        if seen == self.looked_at and now < self.look_again_at:
            return False
        try:
            line = order(list(self.queue.waiting().values()))
            chosen = pick_first(line, slots, now, rules) if line else None
        except (TypeError, ValueError) as error:
            self._hold_damaged(error)
            return True
        self._give_up_on(self.queue.broken)
        started = False
        while chosen is not None:
            run, places = chosen
            try:
                self._start(run, places, slots)
            except UnreachableError:
                raise
            except Exception as error:
                # Whatever is wrong with it, the runs behind it must not wait for it for ever.
                logger.exception("run %d cannot be started", run.run_id)
                self.attempts.reject(run.run_id, error)
            started = True
            # Read again: one that needs the same stage now waits for the one that has just begun.
            line = order([other for key, other in self.queue.waiting().items() if key != run.run_id])
            slots, rules = self.queue.slots(), self.queue.rules()
            chosen = pick_first(line, slots, now, rules) if line else None
        if line:
            self._explain(waiting_reasons(line, slots, rules, in_order=True))
        # Own writes count as a change: the next tick looks once more, and then no more.
        self.looked_at = seen
        self.look_again_at = min((run.not_before for run in line if run.not_before > now), default=NEVER)
        return started

    def _hold_damaged(self, error: Exception) -> None:
        """Hold queued runs whose rows cannot be compared with others; raise the error if there are none."""
        found = dict(damaged.runs(self.reader))
        waiting = queued.queued_ids(self.reader) & found.keys()
        if not waiting:
            raise error
        for run_id in waiting:
            with self.database.write() as session:
                reason = f"its row has a damaged {' '.join(found[run_id])}: see mmtui doctor"
                transition(session, run_id, RunEvent.HOLD, reason=reason)

    def _give_up_on(self, broken: Mapping[int, tuple[str, str]]) -> None:
        """Hold or cancel runs whose condition cannot come true any more."""
        for run_id, (wish, reason) in broken.items():
            event = RunEvent.CANCEL if wish == "cancel" else RunEvent.HOLD
            fields: dict[str, Any] = {"ended_at": self.clock.now()} if event is RunEvent.CANCEL else {}
            with self.database.write() as session:
                transition(session, run_id, event, reason=reason, **fields)

    def _explain(self, reasons: Mapping[int, str]) -> None:
        """Write why runs wait, where that changed."""
        found, now = queued.reasons(self.reader), self.clock.now()
        changed = [
            {"key": run_id, "why": reasons[run_id]}
            for run_id, reason, not_before in found
            # While a run backs off, why it does is the reason.
            if run_id in reasons and reason != reasons[run_id] and not_before <= now
        ]
        if changed:
            with self.database.write() as session:
                set_reasons(session, changed)

    def _start(self, run: Waiting, places: Sequence[str], slots: Slots) -> None:
        run_id = run.run_id
        with self.database.write() as session:
            if not is_legal(state_of(read_run(session, run_id)), RunEvent.START):
                return
            number = begin_attempt(session, run_id, places, socket.gethostname(), self.clock.now())
            row = read_run(session, run_id)
            code, overrides = cells.mapped(row.code), cells.texts(row.overrides)
        kind = slots.place(places[0]).kind
        # On a model of GPU where its work was never measured; several processes share what one of them would need.
        probe = bool(kind) and len(places) == 1 and kind not in run.needs
        # Committed before the spawn: a supervisor that dies here leaves an attempt that the next one can judge.
        try:
            settle(self.home, str(run_id), overrides)
            child = local.start(self.home, run_id, number, places, startable(self.home, str(run_id), code), probe=probe)
        except (OSError, MmtuiError) as error:
            self.attempts.reject(run_id, error)
            return
        self.children[(run_id, number)] = child
        known = identity(child.pid)
        with self.database.write() as session:
            if known is not None:
                set_pid(session, run_id, number, child.pid, known)
        logger.info("run %d: attempt %d starts on %s, pid %d", run_id, number, ", ".join(places), child.pid)
