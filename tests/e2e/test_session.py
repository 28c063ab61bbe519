"""A working day over ssh, by a real sshd on loopback: in tmux, left, come back to, resized, hung up on, killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e import loopback
from tests.e2e.support import TINY, mmtui
from tests.e2e.terminals import (
    ENDLESS,
    PROGRAM,
    Terminal,
    kinds_of,
    progress,
    screens_of,
    wait_for_moving_chart,
)
from tests.waiting import until

NAMES = ("[red]bold[/red] [/]", "bell\x07 and \x1b[31mred", "🚀 rocket", "中文名字", "x" * 300)
"""Markup, control characters, emoji, wide characters, and 300 of them."""
LEAVES_FULL_SCREEN, MOUSE_OFF, CURSOR_ON = b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"
pytestmark = [
    *loopback.NEEDS_SSH,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed (Debian: tmux)"),
]
Connect = Callable[..., Terminal]


@pytest.fixture
def waiting(short_home: Home) -> Home:
    """Five runs that are held, with names that break terminals."""
    for name in NAMES:
        done = mmtui(short_home, "run", "shapes_mixmatch", *TINY, "--hold", "--name", name, "-q")
        assert done.returncode == 0, done.stderr
    return short_home


def in_tmux(home: Home) -> str:
    """The screen in a tmux session that is made, or come back to."""
    return f"tmux -S {home.root.parent / 'tmux'} -u -f /dev/null new-session -A -s work {PROGRAM}"


def launch(client: Terminal) -> None:
    client.send("n")
    client.wait_for("New run")
    client.send("shapes_mixm")
    client.wait_for("shapes_mixmatch")
    unfocused = client.look_of("overrides")
    client.send("\r")
    until(lambda: client.look_of("overrides") != unfocused, "the focus on the overrides")
    client.send(" ".join(ENDLESS))
    client.wait_for("segment 1000000 steps")
    client.send("\r")


def test_session_of_a_day_over_ssh_in_tmux(waiting: Home, connect: Connect) -> None:
    client = connect(command=in_tmux(waiting))
    client.wait_for("5 held")
    for shown in ("[red]bold[/red] [/]", "bell", "🚀", "中", "xxxxxxxxxx"):
        client.wait_for(shown)
    launch(client)
    wait_for_moving_chart(client.screen)

    client.send("2")  # watch: every tab of the run that trains
    client.wait_for("[charts]")
    for tab in ("graph", "classes", "predictions", "log"):
        client.send("\t")
        client.wait_for(f"[{tab}]")
    client.send("q")

    client.wait_for("runs 1/6")
    client.send("/")
    client.wait_for("Show runs where")
    client.send("state = held and steps = 20")
    client.wait_for("5 runs")
    client.send("\r")
    client.wait_for("filter: state = held")
    client.wait_for("runs 1/5")

    client.send(" j 3")  # two marked, compared
    client.wait_for("what differs")
    client.wait_for("classes, IoU %")
    client.send("q")

    client.send("4")
    client.wait_for("[queue]")
    order = runs.queue_order(waiting)
    client.send("jJ")
    until(lambda: runs.queue_order(waiting) != order, "another order")
    client.send("z")
    until(lambda: runs.queue_order(waiting) == order, "the order as it was")
    client.send("q")

    (screen,) = screens_of(waiting)
    client.send("\x02d")  # detach
    client.until_ended()
    assert screens_of(waiting) == [screen], "the screen lives on in tmux"
    left_at = progress(waiting, "6")
    until(lambda: progress(waiting, "6") > left_at, "the run going on")

    client = connect(100, 30, command=in_tmux(waiting))  # come back, in a smaller window
    client.wait_for("filter: state = held")
    until(lambda: "runs 1/5" in client.screen() or "runs 2/5" in client.screen(), "the table", client.screen)
    assert screens_of(waiting) == [screen]
    client.send("/")
    client.wait_for("Show runs where")
    client.send("\x15\r")  # no filter
    client.wait_for("/6")
    client.send("g")
    client.child.setwinsize(24, 80)
    wait_for_moving_chart(client.screen)

    client.send("uu\x1b")  # keys that mean nothing here do nothing
    client.send("x")
    client.wait_for("Cancel")
    client.send("\x1b")
    client.send(" ")
    client.send("q")
    client.until_ended()
    assert screens_of(waiting) == []
    assert kinds_of(waiting) == ["supervisor", "trainer"], "leaving the screen stops nothing"
    assert runs.get_run(waiting, "6").row.state == "running"
    assert mmtui(waiting, "cancel", "6", "--now").returncode == 0
    until(lambda: runs.get_run(waiting, "6").row.state == "cancelled", "the run's end")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_session_that_is_killed_gives_the_terminal_back(
    waiting: Home, connect: Connect, number: signal.Signals, code: int
) -> None:
    client = connect(120, 40)
    client.wait_for("5 held")
    os.write(client.child.child_fd, b"\x1b[M \xff\xfe")  # an old terminal's mouse, far right
    client.send("4")
    client.wait_for("[queue]")
    (screen,) = screens_of(waiting)
    os.kill(screen, number)
    assert client.until_ended() == code
    for left_behind in (LEAVES_FULL_SCREEN, MOUSE_OFF, CURSOR_ON):
        assert left_behind in bytes(client.received)


def test_session_cancels_what_it_launched(waiting: Home, connect: Connect) -> None:
    client = connect(80, 24)
    client.wait_for("5 held")
    launch(client)
    wait_for_moving_chart(client.screen)
    client.send("x")
    client.wait_for("Cancel run 6")
    client.send("X")
    client.wait_for("1 cancelled")
    until(lambda: "trainer" not in kinds_of(waiting), "the trainer's end")
    client.send("@")
    client.wait_for("mmtui cancel 6 --now")
