"""A trainer that reports other code than what was frozen for its run is ended, and nobody goes on from its work.

It is the second guard. The first is the program that loads the code (``engine.own_code``): it refuses before anything
of other code runs. So this one meets trainers that were started in another way, or whose report is wrong.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from engine.own_code import other_code
from mmtui.domain import proof
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import stages
from mmtui.store.queries import attempts, codes
from mmtui.store.queries.reports import reports
from mmtui.store.reader import Reader
from mmtui.store.tables import Attempt, Run
from mmtui.supervisor import process
from mmtui.supervisor.outcome import Ending

logger = logging.getLogger(__name__)


class Proving:
    """What the trainers of one data directory have reported.

    Args:
        reader: of its database.
        kill_job: ends a job of SLURM.
    """

    def __init__(self, home: Home, reader: Reader, kill_job: Callable[[str], object]) -> None:
        self.home, self.reader, self._kill_job = home, reader, kill_job
        self.seen: set[tuple[int, int]] = set()

    def look(self, run_id: int, number: int) -> None:
        """End a trainer once it has reported other code.

        By SIGKILL: asked politely it would write a checkpoint first, and the frozen code would go on from that.
        """
        key = (run_id, number)
        if key in self.seen or number not in reports(self.reader, run_id):
            return
        text = self.fault(run_id, number)
        if text:
            logger.error("run %d: attempt %d is ended: %s", run_id, number, text)
        if not text or self._end(run_id, number):
            self.seen.add(key)

    def _end(self, run_id: int, number: int) -> bool:
        """Kill a trainer; False if nobody knows yet which process it is."""
        pid, identity, job = attempts.process(self.reader, run_id, number)
        if job:
            self._kill_job(job)
        elif pid is not None:
            process.signal_group(pid, identity, signal.SIGKILL)
        return bool(job) or pid is not None

    def fault(self, run_id: int, number: int) -> str:
        """What is wrong with the code that an attempt has reported, "" if nothing is."""
        code = codes.of_run(self.reader, run_id)
        loaded = proof.other(code, reports(self.reader, run_id).get(number, ()))
        return other_code(loaded, proof.frozen(code)) if loaded else ""

    def judge(self, run: Run, attempt: Attempt) -> Ending | None:
        """The end of an attempt that ran other code: it has failed, whatever it says of itself. None for any other.

        What it has put among the outputs that runs share is taken out again.
        """
        self.seen.discard((attempt.run_id, attempt.number))
        text = self.fault(attempt.run_id, attempt.number)
        if not text:
            return None
        attempt.outcome = "failed"
        for key in stages.withdraw(self.home, str(run.id), attempt.spawned_at):
            logger.warning("run %s: its output %s is no longer shared: %s", run.id, key, text)
        return Ending(RunEvent.EXIT_ERROR, "failed", text, text)
