"""``mmtui`` without a verb: the screen on a terminal, a short status otherwise."""

from __future__ import annotations

import os
import signal
import sys

from mmtui.errors import UsageError
from mmtui.paths import Home


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
    from mmtui.tui.app import run

    # The screen handles its own end; in a pipe that closes there is no screen.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    settings = render.settings()
    return run(
        home,
        select,
        True if settings.ascii else None,
        settings.notify,
        settings.keys,
        settings.theme,
        settings.pictures,
    )
