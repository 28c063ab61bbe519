"""The full-screen program: it owns the feed, the terminal and nothing else."""

from __future__ import annotations

import asyncio
import functools
import locale
import os
import signal
import sys
from codecs import getincrementaldecoder
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.drivers import linux_driver
from textual.message import Message

from mmtui.paths import Home
from mmtui.tui.feed import Feed
from mmtui.tui.screens.runs import RunsScreen


class MmtuiApp(App[int]):
    """The program ``mmtui`` on a terminal."""

    CSS_PATH: ClassVar = Path(__file__).parent / "styles" / "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "mmtui"

    class LookAgain(Message):
        """The feed has something new; many of these are as good as one."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, MmtuiApp.LookAgain)

    def __init__(self, home: Home, select: str | None = None, ascii_only: bool = False) -> None:
        super().__init__(ansi_color=False)
        self.home, self.select, self.ascii_only = home, select, ascii_only
        self.animation_level = "none"
        self.feed = Feed(home, self._notify)
        self.runs_screen = RunsScreen()

    def _notify(self) -> None:
        self.post_message(self.LookAgain())

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Textual leaves the terminal in its full-screen mode when it is killed politely.
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.push_screen(self.runs_screen)
        self.feed.start()

    def on_unmount(self) -> None:
        self.feed.stop()

    def on_mmtui_app_look_again(self) -> None:
        if self.runs_screen.is_mounted:
            self.runs_screen.refresh_all()


def tolerate_old_mouse_reports() -> None:
    """Keep bytes that are no UTF-8 from ending the program (textual#6668).

    After a tmux re-attach a terminal may send X10 mouse reports, whose coordinates are raw bytes; Textual's input
    thread decodes them strictly and dies.
    """
    linux_driver.getincrementaldecoder = lambda name: functools.partial(  # type: ignore[attr-defined]
        getincrementaldecoder(name), errors="replace"
    )


def terminal_is_ascii() -> bool:
    """Whether the terminal's character set has no braille or box drawing."""
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    return "utf" not in encoding.lower() or os.environ.get("LC_ALL") in ("C", "POSIX")


def run(home: Home, select: str | None = None, ascii_only: bool | None = None) -> int:
    """Show the screen until the user leaves; returns the exit code."""
    tolerate_old_mouse_reports()
    chosen = terminal_is_ascii() if ascii_only is None else ascii_only
    return MmtuiApp(home, select, chosen).run() or 0
