"""What became of a trainer, and who a process is: without a supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtui.domain.states import RunEvent
from mmtui.services import trainers
from mmtui.services.launch import identity
from mmtui.store.tables import Attempt, Run
from mmtui.supervisor import process
from mmtui.supervisor.outcome import judge
from tests.waiting import until


def ending_of(tmp_path: Path, exit_code: int | None, outcome: str = "", **run: object) -> tuple[RunEvent, float | None]:
    made = Run(**{"id": 1, "state": "running", "global_step": 10, **run})
    ending = judge(made, Attempt(run_id=1, number=1, outcome=outcome), exit_code, tmp_path / "output.log", 0.0)
    return ending.event, ending.retry_in


@pytest.mark.parametrize(
    ("outcome", "exit_code", "expected"),
    [
        ("succeeded", 0, (RunEvent.EXIT_OK, None)),
        ("succeeded", None, (RunEvent.EXIT_OK, None)),
        ("succeeded", -9, (RunEvent.EXIT_OK, None)),  # its last word was written before it was killed
        ("failed", 1, (RunEvent.EXIT_ERROR, None)),
        ("stopped", 143, (RunEvent.EXIT_STOPPED, 0.0)),
        ("", 1, (RunEvent.EXIT_ERROR, None)),
        ("", 127, (RunEvent.EXIT_ERROR, None)),
        ("", 75, (RunEvent.VANISHED, 0.0)),  # the launcher met another trainer
        ("", 137, (RunEvent.VANISHED, 0.0)),
        ("", -9, (RunEvent.VANISHED, 0.0)),
        ("", 0, (RunEvent.VANISHED, 0.0)),
        ("", None, (RunEvent.VANISHED, 0.0)),
    ],
)
def test_judge_last_word_then_exit_code_then_silence(
    tmp_path: Path, outcome: str, exit_code: int | None, expected: tuple[RunEvent, float | None]
) -> None:
    assert ending_of(tmp_path, exit_code, outcome) == expected


@pytest.mark.parametrize(
    ("vanished", "waits"), [(0, 0.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, None), (9, None)], ids=lambda item: str(item)
)
def test_judge_each_loss_without_progress_waits_longer_until_the_fifth(
    tmp_path: Path, vanished: int, waits: float | None
) -> None:
    assert ending_of(tmp_path, -9, vanished=vanished, vanished_at_step=10) == (RunEvent.VANISHED, waits)
    # One step further than ever, and counting begins again.
    assert ending_of(tmp_path, -9, vanished=vanished, vanished_at_step=9) == (RunEvent.VANISHED, 0.0)


@pytest.mark.parametrize("state", ["stopping", "pausing"])
@pytest.mark.parametrize("exit_code", [-9, -15, 143, None])
def test_judge_run_that_was_told_to_go_is_not_started_again(tmp_path: Path, state: str, exit_code: int | None) -> None:
    assert ending_of(tmp_path, exit_code, state=state) == (RunEvent.VANISHED, None)
    assert ending_of(tmp_path, exit_code, "stopped", state=state) == (RunEvent.EXIT_STOPPED, None)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_identity_is_stable_and_dies_with_the_process_although_a_zombie_keeps_the_pid(
    sleeper: subprocess.Popen[bytes],
) -> None:
    known = identity(sleeper.pid)
    assert known is not None
    assert known == identity(sleeper.pid)
    assert trainers.is_alive(sleeper.pid, known)
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert Path(f"/proc/{sleeper.pid}/stat").exists()
    assert identity(sleeper.pid) is None
    assert not trainers.is_alive(sleeper.pid, known)


def test_is_alive_other_start_or_boot_or_nothing_known_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    known = identity(sleeper.pid)
    assert known is not None
    boot, tick = known.split(":")
    for other in (f"{boot}:{int(tick) + 1}", f"00000000:{tick}", ""):
        assert not trainers.is_alive(sleeper.pid, other)
        assert not process.signal_group(sleeper.pid, other, signal.SIGKILL)
    assert not trainers.is_alive(None, known)
    time.sleep(0.05)
    assert sleeper.poll() is None


def test_identity_name_with_spaces_and_parentheses_is_read_right(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "600"])
    try:
        until(lambda: "a) Z 1 (b" in Path(f"/proc/{child.pid}/stat").read_text())
        known = identity(child.pid)
        assert known is not None
        assert known.split(":")[1].isdigit()
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("text", ["", "x", "12", "12 a b", "-1 a:1", "999999999 a:1", "\x00 \x00"])
def test_pid_file_that_makes_no_sense_is_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert trainers.read_pid_file(tmp_path) is None


def test_pid_file_that_is_no_text_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "pid").write_bytes(b"\xff\xfe\x00")
    assert trainers.read_pid_file(tmp_path) is None


def test_end_leftovers_of_a_live_process_that_has_the_number_now_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process.end_leftovers(sleeper.pid)
    time.sleep(0.05)
    assert sleeper.poll() is None
