"""The demo as a process: on a terminal, and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mmtui.paths import Home
from mmtui.services import queue, runs, supervisors
from tests.ptys import Program
from tests.waiting import PATIENCE

pytestmark = pytest.mark.e2e

# The real recipes take minutes; this one has every stage and takes seconds.
SMALL_DEMO = """
import sys
from mmtui.services import demo
demo.RECIPES = ("shapes_smoke", "shapes_smoke")
from mmtui.__main__ import main
sys.argv = ["mmtui", "demo"]
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def everything_ended(home: Home) -> Iterator[None]:
    """No trainer and no supervisor outlives the test."""
    yield
    for row in runs.list_runs(home, states=["queued", "starting", "running"]):
        queue.cancel(home, row.id, now=True)
    active = [row.id for row in runs.list_runs(home)]
    runs.wait(home, active, timeout=PATIENCE)
    supervisors.stop(home, PATIENCE)


def test_demo_on_a_terminal_opens_the_screen_and_leaving_it_leaves_the_runs(home: Home) -> None:
    child = Program(sys.executable, ["-c", SMALL_DEMO], 160, 40, encoding="utf-8")
    child.expect("queued runs 1 and 2")
    child.expect("loss")
    child.send("q")
    child.expect("mmtui compare 1 2")
    assert child.until_ended() == 0
    child.close()
    assert supervisors.status(home).running
    assert {row.state for row in runs.list_runs(home)} <= {"queued", "starting", "running", "succeeded"}


def test_demo_interrupted_says_how_to_cancel_and_leaves_the_runs(home: Home) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_DEMO],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    assert "run 1" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "mmtui cancel 1 2" in err
    assert "Traceback" not in err
    assert {row.state for row in runs.list_runs(home)} <= {"queued", "starting", "running"}
