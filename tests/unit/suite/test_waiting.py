"""The suite's own waits, and the end of programs in a pseudo-terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import waiting
from tests.ptys import Program
from tests.waiting import PATIENCE, until, until_async

ROOT = Path(__file__).resolve().parents[3]
READY = "import signal, sys, time; {}; print('ready', flush=True); time.sleep(600)"


def test_answer_is_given_as_soon_as_there_is_one() -> None:
    left = [0, 0, 7]
    assert until(lambda: left.pop(0), meanwhile=str) == 7


def test_wait_in_vain_says_what_was_awaited_and_what_is_there_instead() -> None:
    with pytest.raises(AssertionError, match=r"^waited 0 s for rain; seen instead:\nsun"):
        until(lambda: False, "rain", lambda: "sun", seconds=0.0)


def test_wait_in_vain_that_has_no_name_shows_its_condition_and_what_that_is_about() -> None:
    weather = "sun"
    with pytest.raises(AssertionError, match=r"(?s)weather == \"rain\".*seen instead:\nweather: 'sun'"):
        until(lambda: weather == "rain", seconds=0.0)


def test_condition_is_asked_once_more_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = iter([0.0, 1.0, 100.0]), list[int]()
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert until(lambda: told, "what comes while this process sleeps", meanwhile=lambda: told.append(1), seconds=10)


async def test_same_for_screens() -> None:
    left = [0, 0, 7]
    assert await until_async(lambda: left.pop(0)) == 7


@pytest.mark.processes
def test_one_factor_makes_waits_and_the_limit_of_a_test_longer() -> None:
    environment = {**os.environ, "MMTUI_TEST_PATIENCE": "2.5", "MMTUI_REQUIRE_GROUPS": ""}
    words = [sys.executable, "-m", "pytest", "-vv", "--collect-only", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert "timeout: 750.0s" in done.stdout
    words = [sys.executable, "-c", "import tests.waiting as w; print(w.PATIENCE)"]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "300.0\n"


def begun(code: str) -> Program:
    program = Program(sys.executable, ["-c", READY.format(code)], 80, 24)
    program.expect("ready")
    return program


@pytest.mark.processes
@pytest.mark.parametrize("stopped", [False, True])
def test_program_in_a_terminal_leaves_as_it_wants_to(stopped: bool) -> None:
    program = begun("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))")
    if stopped:
        os.kill(program.pid, signal.SIGSTOP)
    program.close()
    assert (program.exitstatus, program.signalstatus) == (7, None)


@pytest.mark.processes
def test_program_in_a_terminal_that_does_not_listen_is_killed_and_waited_for() -> None:
    program = begun("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    program.patience = 0.2
    program.close()
    assert program.signalstatus == signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(program.pid, 0)
