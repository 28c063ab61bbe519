"""The full-screen program: it owns the feed, the terminal and nothing else."""

from __future__ import annotations

import asyncio
import functools
import locale
import os
import signal
import sys
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast

from rich.console import RenderableType
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.drivers import linux_driver
from textual.events import CursorPosition
from textual.message import Message
from textual.screen import Screen

from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import news
from mmtui.settings import PICTURES
from mmtui.tui import notify, themes
from mmtui.tui.actions import choose_keys
from mmtui.tui.feed import Feed
from mmtui.tui.graphics import Graphics, refusal
from mmtui.tui.link import QUESTION, Link
from mmtui.tui.output import Difference, Picture
from mmtui.tui.pages.raster import Look
from mmtui.tui.screens.dialogs import NewsDialog
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.queue import QueueScreen
from mmtui.tui.screens.run import CompareScreen, DevicesScreen, RunScreen
from mmtui.tui.screens.runs import RunsScreen
from mmtui.tui.terminal import COLORS, Driver, cell_size
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable

NEWS_SECONDS = 0.3
"""After the first picture: the news must not hold it up."""
BLANK_SECONDS = 1.0
"""Longest time without a picture, should the data be slow to come."""
PICTURES_SECONDS = 0.25
"""How often pictures that wait for the terminal look whether it has answered."""
AWAY_SECONDS = 60.0
"""Who was away for less has seen it."""


class MmtuiApp(App[int]):
    """The program ``mmtui`` on a terminal."""

    CSS_PATH: ClassVar = Path(__file__).parent / "styles" / "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    TITLE = "mmtui"

    class LookAgain(Message):
        """The feed has something new; many of these are as good as one."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, MmtuiApp.LookAgain)

    def __init__(
        self,
        home: Home,
        select: str | None = None,
        ascii_only: bool = False,
        notify: str = "off",
        theme: str = "ansi",
        pictures: str = "blocks",
    ) -> None:
        super().__init__(driver_class=Driver)
        self.home, self.select, self.ascii_only = home, select, ascii_only
        self.theme_name = theme
        self.theme = themes.use(theme)
        self.animation_level = "none"
        self.set_class(ascii_only, "ascii")
        self.notify_by = notify
        self.states: dict[str, str] = {}
        self.feed = Feed(home, self._notify)
        self.runs_screen = RunsScreen()
        self.link, self.late = Link(), False
        self.unseen, self.picture = True, Picture()
        self.no_pictures = refusal(pictures, os.environ)
        self.graphics = Graphics("blocks" if self.no_pictures else pictures, _first_id())
        self.pictures_wait, self.pictures_sent = False, False

    def _notify(self) -> None:
        self.post_message(self.LookAgain())

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Textual leaves the terminal in its full-screen mode when it is killed politely.
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.app_resume_signal.subscribe(self, lambda _: self.picture.forget())
        self.push_screen(self.runs_screen)
        self.feed.start()
        self.set_timer(NEWS_SECONDS, self._tell_news)
        self.set_timer(BLANK_SECONDS, self._begin_to_show)

    def _tell_news(self) -> None:
        """What has ended since somebody last looked; shown once the screen stands."""
        with suppress(MmtuiError):
            found = news.since(self.home)
            lines = found.lines(time.time())
            if lines and found.since is not None and time.time() - found.since > AWAY_SECONDS:
                self.push_screen(NewsDialog(lines))
        self._mark_seen()

    def _mark_seen(self) -> None:
        # In a thread: the database may be locked for a moment. It must import nothing that others import meanwhile.
        threading.Thread(target=_mark_seen, args=(self.home,), daemon=True).start()

    def _announce(self) -> None:
        """Tell the terminal of runs that have ended while the screen was open."""
        lines = self.feed.latest.rows
        rows = tuple(run for line in lines for run in (line.group.rows if line.group is not None else (line.run,)))
        over = notify.ended(self.states, rows)
        self.states = {row.id: row.state for row in rows}
        text = notify.sequence(notify.text_of(over), self.notify_by, os.environ) if over else ""
        self._send(text)

    def open_page(self, number: int) -> None:
        """Screen 2 to 5, over the runs."""
        table = self.runs_screen.query_one(RunsTable)
        if number == 2:
            if table.run is not None:
                self.open_run(table.run)
        elif number == 3:
            here = [table.run] if table.run is not None else []
            self.push_screen(CompareScreen(list(dict.fromkeys([*table.marked, *here]))))
        else:
            self.push_screen(QueueScreen() if number == 4 else DevicesScreen())

    def open_run(self, run_id: str) -> None:
        """Screen 2 with a run."""
        marked = self.runs_screen.query_one(RunsTable).marked
        self.push_screen(RunScreen(run_id, list(dict.fromkeys([*marked, *self.feed.latest.pinned]))))

    def next_theme(self) -> str:
        """Draw everything in the next theme; returns its name."""
        self.theme_name = themes.after(self.theme_name)
        self.theme = themes.use(self.theme_name)
        self.screen.refresh(layout=True)
        for panel in self.screen.query(LinesPanel):
            panel.refresh()
        return self.theme_name

    def on_unmount(self) -> None:
        self.feed.stop()

    def on_mmtui_app_look_again(self) -> None:
        self._announce()
        if not self.link.may_draw(time.monotonic()):
            self.late = True
            return
        self.late = False
        if self.runs_screen.is_mounted:
            self.runs_screen.refresh_all()
            if self.unseen:
                self.call_after_refresh(self._begin_to_show)
            else:
                self.picture_sent()

    def _begin_to_show(self) -> None:
        if self.unseen:
            self.unseen = False
            self.screen.refresh()
            self.picture_sent()

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Send nothing before there is a whole picture: empty panels and their titles would be sent again and again."""
        if self.unseen:
            return
        if isinstance(renderable, ChopsUpdate | LayoutUpdate):
            if self.picture.fit(*self.size):
                self.take_pictures_away()
            difference = Difference(renderable, self.picture, self.no_color)
            super()._display(screen, cast("RenderableType", difference))
            self.place_pictures()
        else:
            super()._display(screen, renderable)

    @property
    def look(self) -> Look:
        """What the terminal can show of pictures."""
        colors = 0 if self.no_color else COLORS.get(self.console.color_system or "", 0)
        return Look(self.ascii_only, colors, self.graphics.way, cell_size())

    def next_way(self) -> str:
        """Draw pictures the next way that this terminal may know; returns what to say."""
        way = PICTURES[(PICTURES.index(self.graphics.way) + 1) % len(PICTURES)]
        self._use_way(way)
        return self.no_pictures or f"pictures: {way}"

    def _use_way(self, way: str) -> None:
        self.take_pictures_away()
        self.no_pictures = refusal(way, os.environ)
        self.graphics = Graphics("blocks" if self.no_pictures else way, _first_id())

    def place_pictures(self) -> None:
        """Show the pictures in pixels of the page on top, and no others; they come when the cells have been drawn."""
        if self.graphics.way == "blocks" or self.unseen or not self.is_running:
            return
        there = self.screen.pictures() if isinstance(self.screen, PageScreen) else {}
        wanted = {box: picture for box, picture in there.items() if picture.way == self.graphics.way}
        text, bare = self.graphics.clear(wanted)
        text += "".join(self.picture.again(*box) for box in bare)
        for box in self.graphics.missing(wanted):
            costs = self.graphics.cost(wanted[box])
            if costs and not self.link.may_draw(time.monotonic()):
                self._wait_with_pictures()
                break
            text += self.graphics.show(box, wanted[box])
            if costs:
                self.pictures_sent = True
                self.picture_sent()
        self._send(text)

    def _wait_with_pictures(self) -> None:
        if not self.pictures_wait:
            self.pictures_wait = True
            self.set_timer(PICTURES_SECONDS, self._pictures_again)

    def _pictures_again(self) -> None:
        self.pictures_wait = False
        self.place_pictures()

    def take_pictures_away(self) -> None:
        """Leave none on the terminal; what it has stored is freed."""
        boxes = self.graphics.boxes
        text = self.graphics.leave()
        self._send(text + "".join(self.picture.again(*box) for box in boxes if self.graphics.way == "sixel"))

    def _send(self, text: str) -> None:
        if text and self._driver is not None:
            self._driver.write(text)
            self._driver.flush()

    def repaint(self) -> None:
        """Send the whole screen: who knows what the terminal shows."""
        self.picture.forget()
        self.screen.refresh(layout=True)

    def picture_sent(self) -> None:
        """Ask the terminal to say when it has drawn what was just sent."""
        if self._driver is not None and not self.is_headless and self.link.drawn(time.monotonic()):
            self.call_after_refresh(self._ask_terminal)

    def _ask_terminal(self) -> None:
        self._send(QUESTION)

    def on_cursor_position(self, _: CursorPosition) -> None:
        """The terminal has drawn what was sent before the question."""
        self.link.answered(time.monotonic())
        if self.pictures_sent and self.link.slow:
            self._use_way("blocks")
            self.no_pictures = "pictures are blocks again: the link is slow; p tries pixels"
            if isinstance(self.screen, PageScreen):
                self.screen.say(self.no_pictures)
                self.screen.redraw()
        self.pictures_sent = False
        if self.link.slow:
            self.set_timer(2 * self.link.delay, self._draw_late)
        else:
            self._draw_late()

    def _draw_late(self) -> None:
        self.place_pictures()
        if self.late:
            self.post_message(self.LookAgain())


def _first_id() -> int:
    """A number for the first picture that other programs on the terminal hardly use."""
    return (os.getpid() % 65536 << 12) + 1


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


def _mark_seen(home: Home) -> None:
    with suppress(MmtuiError):
        news.mark_seen(home)


def run(
    home: Home,
    select: str | None = None,
    ascii_only: bool | None = None,
    notify_by: str = "auto",
    keys: Sequence[str] = (),
    theme: str = "ansi",
    pictures: str = "blocks",
) -> int:
    """Show the screen until the user leaves; returns the exit code.

    Raises:
        UsageError: a key of the settings is for no action, or for two.
    """
    keymap = choose_keys(keys)
    tolerate_old_mouse_reports()
    for name in ("COLUMNS", "LINES"):
        # Textual believes them before it asks the terminal, and would then never hear of a new size.
        os.environ.pop(name, None)
    chosen = terminal_is_ascii() if ascii_only is None else ascii_only
    app = MmtuiApp(home, select, chosen, notify_by, theme, pictures)
    app.set_keymap(keymap)
    code = app.run() or 0
    _mark_seen(home)
    return code
