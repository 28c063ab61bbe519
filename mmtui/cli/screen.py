"""``mmtui`` without a verb: the screen on a terminal, a short status otherwise."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from mmtui.cli.diagnostics import leave_signals
from mmtui.errors import UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.tui.feed import Feed


def on_terminal() -> bool:
    """Whether a person sits in front of both stdin and stdout."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def open_screen_or_status() -> int:
    """The screen on a terminal; a short status in a pipe."""
    if on_terminal():
        return open_screen(Home.from_environment())
    from mmtui.cli.ordering import queue

    queue()
    return 0


def open_screen(home: Home, select: str | None = None) -> int:
    """Run the full-screen program; returns its exit code.

    Raises:
        UsageError: the terminal cannot show it.
    """
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UsageError("this terminal (TERM=dumb) has no full screen", "follow runs as plain lines with: mmtui watch")
    from mmtui.cli import render

    gc.disable()  # loading makes many objects and no rubbish; the screen enables it when it stands
    feed = _begin_to_read(home, select)
    from mmtui.tui.app import run

    # The screen handles its own end; in a pipe that closes there is no screen.
    leave_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    settings = render.settings()
    return run(home, settings, select, feed)


def _begin_to_read(home: Home, select: str | None) -> Feed:
    """Read what the screen shows first in a thread: Textual takes as long to load as that takes to read."""
    from mmtui.services.live import is_current
    from mmtui.tui.feed import Feed, first_wanted

    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    feed = Feed(home, first_wanted(columns, rows, select))
    if is_current(home):
        feed.start()
    return feed
