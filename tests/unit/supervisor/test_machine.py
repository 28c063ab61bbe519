"""The supervisor against a model of a few lines, under any order of wishes, endings and crashes (Hypothesis).

Supervisor, database, launcher and trainer processes are real. What a trainer says is written by the test, so that it
knows what the supervisor must make of it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mmtui.errors import RefusedError
from mmtui.paths import Home
from mmtui.services import code, queue, runs
from mmtui.services.launch import identity
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run
from mmtui.supervisor import outcome
from mmtui.supervisor.loop import Supervisor
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLEEPER = "import time\ntime.sleep(300)\n"
ACTIVE = ("starting", "running")
# What a person may ask for in which state, and where that ends once everything has settled. Written from the manual,
# not from the table of states.
ASKED = {
    "hold": {"queued": "held"},
    "release": {"held": "queued"},
    "cancel": {
        **dict.fromkeys(("queued", "held", "paused", "interrupted", "starting", "running"), "cancelled"),
    },
    "pause": {"starting": "paused", "running": "paused"},
    "resume": {"paused": "queued"},
    "retry": {"failed": "queued", "cancelled": "queued", "interrupted": "queued"},
}
MOST_LOSSES = len(outcome.BACK_OFF_SECONDS)


class Machine(RuleBasedStateMachine):
    """One slot. The model: a state, a count of losses and of attempts for each run; they wait in order of their ids."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="mm-")
        self.home = Home(Path(self.folder.name) / "h").create()
        source = self.home.root / "engine"
        source.mkdir()
        (source / "__init__.py").touch()
        (source / "__main__.py").write_text(SLEEPER)
        self.code = code.digest_of_sources(source)
        (self.home.code / self.code).mkdir()
        source.rename(self.home.code / self.code / "engine")
        self.supervisor = Supervisor(self.home)
        self.model: dict[str, str] = {}
        self.losses: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.seq: Counter[str] = Counter()

    # ---- what may happen ------------------------------------------------------------------------------------------

    @rule(held=st.booleans())
    def add(self, held: bool) -> None:
        database = Database(self.home)
        with database.write() as session:
            new = NewRun("x", "x", 0, {}, (), {"digest": self.code}, [("segment", 9)], held=held)
            run_id = str(insert_run(session, new))
            self.home.run(run_id).root.mkdir()
            self.home.run(run_id).recipe.write_text("{}")
        database.close()
        self.model[run_id] = "held" if held else "queued"

    @rule(verb=st.sampled_from(sorted(ASKED)), number=st.integers(0, 5))
    @precondition(lambda self: self.model)
    def ask(self, verb: str, number: int) -> None:
        run_id = sorted(self.model)[number % len(self.model)]
        state = self.model[run_id]
        after = ASKED[verb].get(state)
        if after is None:
            with pytest.raises(RefusedError):
                queue.wish(self.home, run_id, verb)
            return
        queue.wish(self.home, run_id, verb)
        self.model[run_id] = after
        if verb == "retry":
            self.losses[run_id] = 0
        if state in ACTIVE:
            self.settle()

    @rule()
    def tick(self) -> None:
        self.settle()

    @rule()
    @precondition(lambda self: self.at_work())
    def trainer_begins(self) -> None:
        run_id = self.at_work()
        self.say(run_id, "run_started", {"stages": [["segment", 9]], "resumed_global_step": -1})
        self.model[run_id] = "running"
        self.settle()

    @rule(status=st.sampled_from(["succeeded", "failed"]))
    @precondition(lambda self: self.at_work())
    def trainer_ends(self, status: str) -> None:
        run_id = self.at_work()
        if status == "failed":
            self.say(run_id, "error", {"text": "no such file"})
        self.say(run_id, "run_finished", {"status": status})
        self.kill(run_id)
        self.model[run_id] = status
        self.settle()

    @rule(with_supervisor=st.booleans(), times=st.integers(1, MOST_LOSSES + 1))
    @precondition(lambda self: self.at_work())
    def trainer_vanishes(self, with_supervisor: bool, times: int) -> None:
        for _ in range(times):
            run_id = self.at_work()
            if run_id:
                self.kill(run_id)
                if with_supervisor:
                    self.crash()
                self.lose(run_id)

    @rule()
    def crash(self) -> None:
        """The supervisor is gone between two ticks; what it knew only in memory is lost."""
        self.supervisor.database.close()
        self.supervisor.reader.close()
        self.orphans = self.supervisor.children  # kept, so that their end is waited for by the old handles
        self.supervisor = Supervisor(self.home)

    @rule()
    @precondition(lambda self: not self.at_work() and "queued" in self.model.values())
    def crash_between_claim_and_start(self) -> None:
        """It had claimed a run and died before the trainer was there: the next one must notice."""
        run_id = self.first_waiting()
        database = Database(self.home)
        with database.write() as session:
            begin_attempt(session, int(run_id), ["cpu:0"], "here")
        database.close()
        self.attempts[run_id] += 1
        self.crash()
        self.lose(run_id)

    # ---- what must hold always ------------------------------------------------------------------------------------

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        if hasattr(self, "model"):
            assert self.seen() == {i: (state, self.attempts[i]) for i, state in self.model.items()}

    @invariant()
    def one_trainer_where_one_is_at_work_and_none_else(self) -> None:
        if hasattr(self, "model"):
            assert len(self.living()) == bool(self.at_work())

    def teardown(self) -> None:
        if hasattr(self, "model"):
            for pid in self.living():
                os.killpg(pid, signal.SIGKILL)
            self.supervisor.database.close()
            self.supervisor.reader.close()
            self.folder.cleanup()

    # ---- the model ------------------------------------------------------------------------------------------------

    def at_work(self) -> str:
        return next((run_id for run_id, state in self.model.items() if state in ACTIVE), "")

    def first_waiting(self) -> str:
        return next((i for i in sorted(self.model, key=int) if self.model[i] == "queued"), "")

    def lose(self, run_id: str) -> None:
        """A trainer is gone: back in its old place, unless that has happened too often."""
        self.losses[run_id] += 1
        self.model[run_id] = "interrupted" if self.losses[run_id] > MOST_LOSSES else "queued"
        self.settle()

    def settle(self) -> None:
        """The first that waits starts if nobody is at work; the supervisor must come to the same."""
        first = self.first_waiting()
        if first and not self.at_work():
            self.model[first] = "starting"
            self.attempts[first] += 1
        wanted = {i: (state, self.attempts[i]) for i, state in self.model.items()}
        until(
            lambda: self.seen() == wanted and len(self.living()) == bool(self.at_work()),
            str(wanted),
            lambda: f"{self.seen()}, alive {self.living()}",
            self.step,
        )
        for _ in range(2):
            self.supervisor.tick()  # and it stays so

    # ---- hands and eyes -------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.supervisor.tick()
        time.sleep(0.003)

    def seen(self) -> dict[str, tuple[str, int]]:
        return {row.id: (row.state, row.attempt) for row in runs.list_runs(self.home)}

    def living(self) -> list[int]:
        """Trainers: what has told its pid and is still there. Not by the command line, which is empty during exec."""
        found = []
        for entry in self.home.runs.glob("*/attempts/*/pid"):
            pid, known = entry.read_text().split()
            if identity(int(pid)) == known:
                found.append(int(pid))
        return found

    def say(self, run_id: str, kind: str, values: dict[str, Any]) -> None:
        self.seq[run_id] += 1
        event = {"v": 1, "seq": self.seq[run_id], "t": time.time(), "kind": kind, "stage": "", "step": 0}
        with self.home.run(run_id).events(self.attempts[run_id]).open("a") as file:
            file.write(json.dumps({**event, "global_step": 0, "values": values}) + "\n")

    def kill(self, run_id: str) -> None:
        (pid,) = self.living()
        os.killpg(pid, signal.SIGKILL)


def test_supervisor_agrees_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "BACK_OFF_SECONDS", (0.0,) * MOST_LOSSES)
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "1")
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    # A counterexample is told as it was found: to make it small, each try would wait for the deadline.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    profile = settings(
        max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=checks, phases=phases
    )
    run_state_machine_as_test(Machine, settings=profile)
