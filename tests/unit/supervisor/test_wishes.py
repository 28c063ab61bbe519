"""Eight processes issue 1,600 wishes in all while a supervisor serves: exact winners, and nobody meets a lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.domain.states import RunEvent, RunState, next_state
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    Workshop = Any

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
PROCESSES, WISHES, RUNS = 8, int(os.environ.get("MMTUI_WISHES", "1600")) // 8, 40
"""MMTUI_WISHES=5000 plays a longer one."""

PERSON = """
import json, random, sys, time
from mmtui.errors import MmtuiError, RefusedError
from mmtui.paths import Home
from mmtui.services import queue
home, choose = Home.from_environment(), random.Random(int(sys.argv[1]))
granted, refused, errors = {}, 0, []
(home.root / f"ready{sys.argv[1]}").touch()
while len(list(home.root.glob("ready*"))) < PROCESSES:
    time.sleep(0.005)
for _ in range(COUNT):
    run_id = str(choose.randint(1, RUNS))
    verb = choose.choice("hold release cancel pause resume retry hold release priority move".split())
    try:
        if verb == "priority":
            queue.set_priority(home, run_id, choose.randint(-3, 3))
        elif verb == "move":
            queue.move(home, run_id, bottom=choose.random() < 0.5)
        else:
            queue.wish(home, run_id, verb)
        granted[verb] = granted.get(verb, 0) + 1
    except RefusedError:
        refused += 1
    except MmtuiError as error:
        errors.append(error.message)
    except Exception as error:
        errors.append(repr(error))
print(json.dumps([granted, refused, errors]))
"""


def test_wishes_of_eight_processes_have_exact_winners(workshop: Workshop) -> None:
    for _ in range(RUNS):
        workshop.add(steps=1_000_000, save_every=1_000_000)  # they end by wishes alone
    workshop.start(MMTUI_CPU_SLOTS="2")
    script = PERSON
    for name, number in (("PROCESSES", PROCESSES), ("COUNT", WISHES), ("RUNS", RUNS)):
        script = script.replace(name, str(number))
    people = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number)],
            env={**os.environ, "MMTUI_HOME": str(workshop.home.root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    told = [json.loads(person.communicate(timeout=2 * PATIENCE)[0]) for person in people]
    granted = sum((Counter(one[0]) for one in told), Counter())
    refused, errors = sum(one[1] for one in told), [text for one in told for text in one[2]]
    assert errors == []
    assert sum(granted.values()) + refused == PROCESSES * WISHES
    workshop.until(lambda: not workshop.sql("SELECT 1 FROM wishes"), "every wish was taken up")
    going = "SELECT 1 FROM runs WHERE state IN ('starting', 'pausing', 'stopping')"
    workshop.until(lambda: not workshop.sql(going), "the queue comes to rest")
    audit = workshop.sql('SELECT run_id, event, "before", "after", actor FROM transitions ORDER BY run_id, id')
    for one, following in pairwise(audit):
        assert one[0] != following[0] or one[3] == following[2], "each change began where the one before it ended"
    for _, event, before, after, _ in audit:
        assert event == "create" or next_state(RunState(before), RunEvent(event)) == after
    # Verbs of runs without a trainer take effect in the very transaction that granted them: one audit row for each.
    changes = Counter(event for _, event, _, _, actor in audit if actor == "user" and event != "create")
    for verb in ("hold", "release", "resume", "retry"):
        assert changes[verb] == granted[verb], verb
    # Those of a run with a trainer are wishes, of which the run may be done before they are read.
    assert changes["cancel"] <= granted["cancel"] and changes["pause"] <= granted["pause"]
    assert granted["hold"] > 20 and granted["cancel"] > 20 and refused > 100, "the processes did not meet"
    print(f"\n{sum(granted.values())} granted {dict(granted)}, {refused} refused, {len(audit)} changes")
