"""Over a real sshd on loopback: the screen works, and losing the connection ends the screen alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from mmtui.paths import Home
from mmtui.services import runs, supervisors
from tests.e2e import loopback
from tests.e2e.loopback import Server
from tests.e2e.support import mmtui, processes_of
from tests.e2e.terminals import (
    ENDLESS,
    RECIPE,
    Terminal,
    kinds_of,
    progress,
    screens_of,
    terminal_of,
    wait_for_moving_chart,
)
from tests.waiting import until

LEAVES_FULL_SCREEN = b"\x1b[?1049l"
Connect = Callable[..., Terminal]
pytestmark = loopback.NEEDS_SSH


@pytest.mark.parametrize("lost", ["client-killed", "terminal-not-read"])
def test_ssh_connection_lost_ends_the_screen_and_not_the_run(
    sshd: Server, short_home: Home, connect, lost: str
) -> None:
    client = connect()
    client.wait_for("no runs yet")
    client.send("n")
    client.wait_for("New run")
    client.wait_for("ok: match")
    unfocused = client.look_of("overrides")
    client.send("\r")
    until(lambda: client.look_of("overrides") != unfocused, "the focus on the overrides")
    client.send(" ".join(ENDLESS))
    client.wait_for("ok: match 20 steps")
    client.send("\r")
    wait_for_moving_chart(client.screen)
    (screen,) = screens_of(short_home)
    assert terminal_of(screen) != 0

    if lost == "client-killed":
        os.kill(client.child.pid, signal.SIGKILL)
    else:
        _stop_reading_then_give_up(psutil.Process(screen).parent())
    until(lambda: screen not in screens_of(short_home), "the screen ending")
    until(lambda: sshd.sessions() == [], "the end of everything that the connection began")
    left_at = progress(short_home)
    until(lambda: progress(short_home) > left_at, "the run going on")
    row = runs.get_run(short_home, "1").row
    assert (row.state, row.attempt) == ("running", 1), "nothing was started anew"
    assert kinds_of(short_home) == ["supervisor", "trainer"], "and nothing else is left"
    assert {terminal_of(process.pid) for process in processes_of(short_home)} == {0}
    assert supervisors.status(short_home).running


def _stop_reading_then_give_up(session: psutil.Process | None) -> None:
    """What a silent network does: the terminal's buffer fills up, and much later the server closes the terminal.

    The server's own patience is not waited for: OpenSSH 9.2 starts it anew with every byte that it sends.
    """
    assert session is not None and session.name().startswith("sshd")
    session.suspend()
    time.sleep(5)  # the longer the fuller: nothing depends on how full it gets
    session.kill()


def test_ssh_live_run_is_shown_and_q_gives_the_terminal_back(short_home: Home, connect: Connect) -> None:
    queued = mmtui(short_home, "run", RECIPE, *ENDLESS, "-q")
    assert queued.returncode == 0, queued.stderr
    client = connect(80, 24)
    wait_for_moving_chart(client.screen)
    assert "running" in client.screen()
    client.send("q")
    assert client.until_ended() == 0, "the exit status comes through ssh"
    assert LEAVES_FULL_SCREEN in client.received
    assert progress(short_home) > 0 and kinds_of(short_home) == ["supervisor", "trainer"]
    assert mmtui(short_home, "cancel", "1", "--now").returncode == 0
    assert mmtui(short_home, "wait", "1", "--timeout", "100").returncode in (0, 1)
    assert runs.get_run(short_home, "1").row.state == "cancelled"
