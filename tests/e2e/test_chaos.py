"""A campaign of faults against the whole program: real queue, supervisors, engine, command lines.

Bounded here; ``make chaos N=500`` runs as many faults as one likes. At the end every run that was ever promised is
accounted for, none was trained twice at once, no event is lost or doubled, and every run ended with the bits of its
twin that nobody disturbed. The counts are printed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmtui.paths import Home
from mmtui.services import queue, runs, supervisors
from tests.e2e.support import TINY, kill_everything
from tests.waiting import FACTOR, until

FAULTS = int(os.environ.get("MMTUI_CHAOS", "10"))
SEED = int(os.environ.get("MMTUI_CHAOS_SEED", "20"))
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300 + 6 * FAULTS)]

OVERRIDES = (
    *TINY,
    "match.steps=150",
    "segment.steps=150",
    "segment.eval_every=30",
    "runtime.checkpoint_every=6",
    "runtime.log_every=1",
    "runtime.reuse_stages=false",
    "runtime.device=cpu",
)
# Kinds that do not become one row each: metrics and confusion have tables of their own, of progress only the newest
# word is kept, heartbeats only move last_event_at.
NOT_ROWS = {"metrics", "confusion", "progress", "heartbeat"}


class Campaign:
    """One data directory and everything that is done to it."""

    def __init__(self, home: Home, choose: random.Random) -> None:
        self.home, self.choose = home.create(), choose
        self.counts: Counter[str] = Counter()
        self.promised: list[str] = []
        self.torn: set[Path] = set()

    def queue(self, seed: int) -> None:
        self.promised.append(queue.enqueue(self.home, "shapes_mixmatch", OVERRIDES, name=f"seed{seed}", seed=seed))

    def serve(self) -> None:
        """As every command line does."""
        supervisors.ensure(self.home)

    # ---- faults ---------------------------------------------------------------------------------------------------

    def kill_supervisor(self) -> None:
        pid, _ = supervisors.holder(self.home)
        if pid is not None and pid > 0:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_trainer(self) -> None:
        pid = self._a_trainer()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def stop_trainer_for_a_while(self) -> None:
        pid = self._a_trainer()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGSTOP)
                time.sleep(self.choose.uniform(0.05, 0.6))
                os.killpg(pid, signal.SIGCONT)

    def stop_supervisor_for_a_while(self) -> None:
        pid, _ = supervisors.holder(self.home)
        if pid is not None and pid > 0:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(self.choose.uniform(0.05, 0.6))
                os.kill(pid, signal.SIGCONT)

    def kill_command_line(self) -> None:
        """A queueing command that dies at any moment: what it has printed must exist, the rest must do no harm."""
        words = [sys.executable, "-m", "mmtui", "run", "shapes_mixmatch", *OVERRIDES, "--hold", "-q"]
        environment = {**os.environ, "MMTUI_HOME": str(self.home.root)}
        child = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with suppress(subprocess.TimeoutExpired):
            child.wait(self.choose.uniform(0.2, 2.0))
        child.kill()
        printed, _ = child.communicate()
        self.promised += printed.split()

    def kill_wish(self) -> None:
        """Pause or cancel-and-retry by a command line that may die on the way; the end puts everything back."""
        run_id = self.choose.choice(self.promised)
        verb = self.choose.choice(["pause", "resume", "hold", "release", "cancel", "retry"])
        words = [sys.executable, "-m", "mmtui", verb, run_id, "-q"]
        environment = {**os.environ, "MMTUI_HOME": str(self.home.root)}
        child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(self.choose.uniform(0.1, 1.5))
        child.kill()
        child.wait()

    def lose_power(self) -> None:
        """Everything dies at once, and of one event file the last line is only half on disk."""
        pid = self._a_trainer()
        self.kill_supervisor()
        for other in self._trainers():
            with suppress(ProcessLookupError):
                os.killpg(other, signal.SIGKILL)
        if pid is None:
            return
        time.sleep(0.1)
        files = sorted(self.home.runs.glob("*/attempts/*/events.jsonl"), key=lambda file: file.stat().st_mtime)
        if files:
            text = files[-1].read_bytes()
            last = text[:-1].rfind(b"\n") + 1
            with files[-1].open("r+b") as file:
                file.truncate(max(last + (len(text) - last) // 2, 1))
            self.torn.add(files[-1])

    def two_supervisors(self) -> None:
        """A second one must leave by itself."""
        environment = {**os.environ, "MMTUI_HOME": str(self.home.root)}
        words = [sys.executable, "-m", "mmtui.supervisor"]
        children = [subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
        # Both look for the lock once they have started, which takes seconds on a busy machine.
        until(lambda: sum(child.poll() is None for child in children) <= 1, "one of two supervisors leaving")

    # ---- looking --------------------------------------------------------------------------------------------------

    def _trainers(self) -> list[int]:
        rows = self.sql(
            "SELECT a.pid FROM runs r JOIN attempts a ON a.run_id = r.id AND a.number = r.attempt"
            " WHERE r.state IN ('starting', 'running', 'pausing', 'stopping') AND a.pid IS NOT NULL"
        )
        return [row[0] for row in rows if psutil.pid_exists(row[0])]

    def _a_trainer(self) -> int | None:
        """A trainer that has begun to train, if there is one within a few seconds."""
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            rows = self.sql("SELECT pid FROM attempts WHERE ended_at IS NULL AND device != '' AND pid IS NOT NULL")
            found = [row[0] for row in rows if psutil.pid_exists(row[0])]
            if found:
                time.sleep(self.choose.uniform(0, 1))
                return self.choose.choice(found)
            time.sleep(0.1)
        return None

    def busy(self) -> bool:
        """Whether anything is left to disturb."""
        return bool(self.sql("SELECT 1 FROM runs WHERE state IN ('queued', 'starting', 'running') LIMIT 1"))

    def sql(self, text: str, *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(self.home.database, timeout=30)
        try:
            return connection.execute(text, parameters).fetchall()
        finally:
            connection.close()

    def settle(self) -> None:
        """Put back what wishes have stopped, and wait until all promised runs have succeeded."""
        until(
            lambda: set(self.states().values()) == {"succeeded"},
            "all promised runs",
            lambda: (self.states(), self.home.supervisor_log.read_text()[-3000:]),
            self.put_back,
            seconds=(120 + 3 * FAULTS) * FACTOR,
        )

    def states(self) -> dict[str, str]:
        return {run_id: runs.get_run(self.home, run_id).row.state for run_id in self.promised}

    def put_back(self) -> None:
        """Undo what wishes have stopped."""
        self.serve()
        states = self.states()
        failed = [(i, runs.get_run(self.home, i).error) for i, state in states.items() if state == "failed"]
        assert not failed
        for run_id, state in states.items():
            verb = {"held": "release", "paused": "resume", "cancelled": "retry", "interrupted": "retry"}.get(state)
            if verb:
                queue.wish(self.home, run_id, verb)
        time.sleep(0.3)


@pytest.fixture
def campaign(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaign]:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    yield Campaign(home, random.Random(SEED))
    kill_everything(home)


def undisturbed(recipe: Path, folder: Path) -> None:
    """The same recipe by the engine alone."""
    command = [sys.executable, "-m", "engine", "train", "--recipe", str(recipe), "--run-dir", str(folder), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)


def test_faults_at_random_lose_nothing_double_nothing_and_change_no_bit(campaign: Campaign, tmp_path: Path) -> None:
    faults = [
        *(campaign.kill_supervisor, campaign.kill_trainer, campaign.kill_trainer, campaign.lose_power),
        *(campaign.stop_trainer_for_a_while, campaign.stop_supervisor_for_a_while),
        *(campaign.kill_command_line, campaign.kill_wish, campaign.kill_wish, campaign.two_supervisors),
    ]
    for seed in range(2):
        campaign.queue(seed)
    for number in range(FAULTS):
        campaign.serve()
        time.sleep(campaign.choose.uniform(0.1, 1.6))
        # Each kind once in every round, in an order of its own.
        if number % len(faults) == 0:
            turn = campaign.choose.sample(faults, len(faults))
        fault = turn[number % len(faults)]
        fault()
        campaign.counts[fault.__name__] += 1
        if not campaign.busy():
            campaign.queue(2 + number)
    campaign.settle()
    examine(campaign, tmp_path)


def examine(campaign: Campaign, tmp_path: Path) -> None:
    """Everything that must hold after the campaign."""
    home = campaign.home
    attempts = campaign.sql("SELECT run_id, number, outcome FROM attempts")
    checked, events_seen, twins = 0, 0, {}
    for run_id in campaign.promised:
        told = events_of(home, run_id)
        events_seen += len(told)
        never_twice_at_once(told)
        same_in_files_and_database(campaign, run_id, told)
        recipe = home.run(run_id).recipe
        seed = runs.get_run(home, run_id).row.seed
        if seed not in twins:
            twins[seed] = tmp_path / f"twin{seed}"
            undisturbed(recipe, twins[seed])
        for stage in ("match", "segment"):
            file = Path("checkpoints") / stage / "final" / "model.safetensors"
            mine, other = home.run(run_id).root / file, twins[seed] / file
            assert mine.read_bytes() == other.read_bytes(), f"run {run_id}: the weights of stage {stage} differ"
        checked += 1
    audit = campaign.sql('SELECT run_id, "before", "after" FROM transitions ORDER BY run_id, id')
    for one, following in pairwise(audit):
        assert one[0] != following[0] or one[2] == following[1], "the audit has a gap"
    print(
        f"\nchaos: {sum(campaign.counts.values())} faults {dict(campaign.counts)}; {checked} runs promised, all ended"
        f" bit-identical to undisturbed twins; {len(attempts)} attempts"
        f" ({Counter(outcome for _, _, outcome in attempts)}), none of a run at once; {events_seen} events, none lost"
        f" or doubled; {len(campaign.torn)} event files torn"
    )


def events_of(home: Home, run_id: str) -> list[tuple[int, dict[str, Any]]]:
    """Every complete line of every attempt: (attempt, event)."""
    found = []
    for file in sorted(home.run(run_id).attempts.glob("*/events.jsonl")):
        for line in file.read_bytes().split(b"\n")[:-1]:
            found.append((int(file.parent.name), json.loads(line)))
    return found


def never_twice_at_once(told: list[tuple[int, dict[str, Any]]]) -> None:
    """An attempt's first word comes after the last word of the one before."""
    spans: dict[int, list[float]] = {}
    for attempt, event in told:
        spans.setdefault(attempt, []).append(event["t"])
    for one, following in pairwise(sorted(spans)):
        assert max(spans[one]) <= min(spans[following]), f"attempts {one} and {following} overlap"


def same_in_files_and_database(campaign: Campaign, run_id: str, told: list[tuple[int, dict[str, Any]]]) -> None:
    """Each event is stored once. What the database had read before a file was torn stays, and is the only surplus."""
    torn = {int(file.parent.name) for file in campaign.torn if file.parent.parent.parent.name == run_id}
    for table, kind in (("metrics", "metrics"), ("evaluations", "confusion")):
        name = "name, " if table == "metrics" else "'', "
        rows = campaign.sql(f"SELECT attempt, {name} global_step FROM {table} WHERE run_id = ?", run_id)
        if kind == "metrics":
            wanted = Counter((a, n, e["global_step"]) for a, e in told if e["kind"] == kind for n in e["values"])
        else:
            wanted = Counter((a, "", e["global_step"]) for a, e in told if e["kind"] == kind)
        surplus, missing = Counter(rows) - wanted, wanted - Counter(rows)
        assert not missing, f"run {run_id}: {table} lack {list(missing)[:3]}"
        assert {row[0] for row in surplus} <= torn, f"run {run_id}: {table} have more than was written"
    rows = campaign.sql(
        "SELECT attempt, seq, kind FROM events WHERE run_id = ? AND kind != 'progress' AND seq > 0", run_id
    )
    wanted = Counter((a, e["seq"], e["kind"]) for a, e in told if e["kind"] not in NOT_ROWS)
    assert not wanted - Counter(rows)
    assert {row[0] for row in Counter(rows) - wanted} <= torn
    assert max(Counter((attempt, seq) for attempt, seq, _ in rows).values(), default=1) == 1
