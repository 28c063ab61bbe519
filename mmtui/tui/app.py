"""The full-screen program: it owns the feed, the terminal and nothing else."""

from __future__ import annotations

import asyncio
import gc
import locale
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.console import RenderableType
from textual import work
from textual.app import App
from textual.events import CursorPosition, Event, Paste
from textual.events import Key as KeyEvent
from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker, WorkerError

from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import news
from mmtui.settings import PICTURES, Settings
from mmtui.tui import faults, notify, themes
from mmtui.tui.actions import choose_keys
from mmtui.tui.feed import Feed
from mmtui.tui.key_order import KeyOrder
from mmtui.tui.program import Program
from mmtui.tui.screens.common import CommonScreen
from mmtui.tui.screens.runs import RunsScreen
from mmtui.tui.terminal.diff import Difference, Picture, Update
from mmtui.tui.terminal.driver import COLORS, Driver, cell_size
from mmtui.tui.terminal.graphics import Graphics, refusal
from mmtui.tui.terminal.input import keep_escape_apart, tolerate_old_mouse_reports
from mmtui.tui.terminal.link import PATIENCE_SECONDS, QUESTION, Link
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable

if TYPE_CHECKING:
    from mmtui.tui.pages.raster import Look

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
        feed: Feed | None = None,
        pictures: str = "blocks",
    ) -> None:
        super().__init__(driver_class=Driver)
        self.home, self.select, self.ascii_only = home, select, ascii_only
        self.opened_at = time.time()
        self.theme_name = theme
        self.theme = themes.use(theme)
        self.animation_level = "none"
        self.set_class(ascii_only, "ascii")
        self.notify_by = notify
        self.states: dict[str, str] = {}
        self.feed = feed or Feed(home)
        self.runs_screen = RunsScreen()
        self.link, self.late = Link(), False
        self.unseen, self.picture, self.behind = True, Picture(), False
        self.keys_in_order = KeyOrder(self, self._handle_key)
        self.commands: list[str] = []
        self.undone: list[tuple[str, Callable[[], object]]] = []
        self.deeds, self.undo_later = 0, 0
        """What is being done in threads, and how often ``z`` was pressed meanwhile."""
        self.no_pictures = refusal(pictures, os.environ)
        self.graphics = Graphics("blocks" if self.no_pictures else pictures, _first_id())
        self.pictures_wait, self.pictures_sent = False, False
        self.leaving = False
        """Whether the program ends when what keys have asked for is done, unless that fails."""
        self.fault = ""
        """What has ended the program, "" if the user has."""

    def _notify(self) -> None:
        self.post_message(self.LookAgain())

    def note_command(self, text: str) -> None:
        """Remember the command line of what was just done; the same one twice in a row counts once."""
        if self.commands[-1:] != [text]:
            self.commands.append(text)

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Textual leaves the terminal in its full-screen mode when it is killed politely.
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.app_resume_signal.subscribe(self, lambda _: self.picture.forget())
        self.push_screen(self.runs_screen)
        self.feed.start()
        self.feed.tell(self._notify)
        self.set_timer(NEWS_SECONDS, self._tell_news)
        self.set_timer(BLANK_SECONDS, self._begin_to_show)

    def _tell_news(self) -> None:
        """What has ended since somebody last looked; shown once the screen stands."""
        with faults.outlived(self, "the news"):
            found = news.since(self.home)
            lines = found.lines(time.time())
            if lines and found.since is not None and time.time() - found.since > AWAY_SECONDS:
                from mmtui.tui.screens.dialogs import NewsDialog

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
        """Screen 2 to 5, over the runs. Screens are loaded when they are opened: the first picture comes sooner."""
        from mmtui.tui.screens.queue import QueueScreen
        from mmtui.tui.screens.run import CompareScreen, DevicesScreen

        table = self.runs_screen.query_one(RunsTable)
        if number == 2:
            if table.run is not None:
                self.open_run(table.run)
        elif number == 3:
            here = [table.run] if table.run is not None else []
            self.push_screen(CompareScreen(list(dict.fromkeys([*table.marked, *here]))))
        else:
            self.push_screen(QueueScreen() if number == 4 else DevicesScreen())

    def open_run(self, run_id: str, tab: str = "charts") -> None:
        """Screen 2 with a run."""
        from mmtui.tui.screens.run import RunScreen

        marked = self.runs_screen.query_one(RunsTable).marked
        others = list(dict.fromkeys([*marked, *self.feed.latest.pinned]))
        self.push_screen(RunScreen(run_id, others, RunScreen.TABS.index(tab)))

    def open_output(self, command: str) -> None:
        """What a command of mmtui prints."""
        from mmtui.tui.screens.output import OutputScreen

        self.push_screen(OutputScreen(command))

    def next_theme(self) -> str:
        """Draw everything in the next theme; returns its name."""
        self.theme_name = themes.after(self.theme_name)
        self.theme = themes.use(self.theme_name)
        self.screen.refresh(layout=True)
        for panel in self.screen.query(LinesPanel):
            panel.refresh()
        return self.theme_name

    def leave(self) -> None:
        """End the program when what keys have asked for is done; asked once more, at once."""
        deeds = [worker for worker in self.workers if worker.group == "deed" and not worker.is_finished]
        if self.leaving or not deeds:
            self.exit(0)
            return
        self.leaving = True
        top = self.screen_stack[-1]
        if isinstance(top, CommonScreen):
            top.say("leaving when that is done; once more leaves at once")
        self._leave_behind(deeds)

    @work(group="leave", exit_on_error=False)
    async def _leave_behind(self, deeds: Sequence[Worker[object]]) -> None:
        for deed in deeds:
            with suppress(WorkerError):  # it has failed, which it has told
                await deed.wait()
        if self.leaving:
            self.exit(0)

    def on_unmount(self) -> None:
        self.feed.stop()

    def on_mmtui_app_look_again(self) -> None:
        with faults.outlived(self, "runs that have ended"):
            self._announce()
        if not self.link.may_draw(time.monotonic()):
            self.late = True
            return
        self.late = False
        if self.runs_screen.is_mounted and self.runs_screen.query("#header"):  # without: it is being closed
            with faults.outlived(self, "the runs"):
                self.runs_screen.refresh_all()
            if self.unseen:
                self.call_after_refresh(self._begin_to_show)
            else:
                self.picture_sent()

    def _begin_to_show(self) -> None:
        if self.unseen:
            self.unseen = False
            gc.enable()
            self.screen.refresh()
            self.picture_sent()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Send nothing before there is a whole picture: empty panels and their titles would be sent again and again."""
        if self.unseen:
            return
        if not isinstance(renderable, Update):
            super()._display(screen, renderable)
            return
        room = self.link.room(time.monotonic())
        if room == 0:
            self._fall_behind()
            return
        if self.picture.fit(*self.size):
            self.take_pictures_away()
        difference = Difference(renderable, self.picture, room, self.no_color)
        super()._display(screen, cast("RenderableType", difference))
        self.link.sent(difference.size)
        self.place_pictures()
        if difference.cut:
            self._fall_behind()
        if room is not None and difference.size and self.link.drawn(time.monotonic()):
            self._ask_terminal()

    def _fall_behind(self) -> None:
        """Something waits for the terminal's answer; should none come, it is sent all the same."""
        if not self.behind:
            self.behind = True
            self.set_timer(PATIENCE_SECONDS + 0.5, self._catch_up)

    def _catch_up(self) -> None:
        """Send what the terminal does not show yet."""
        if self.behind and self.link.room(time.monotonic()) != 0:
            self.behind = False
            self.screen.refresh()

    @property
    def look(self) -> Look:
        """What the terminal can show of pictures."""
        from mmtui.tui.pages.raster import Look

        colors = 0 if self.no_color else COLORS.get(self.console.color_system or "", 0)
        return Look(self.ascii_only, colors, self.graphics.way, cell_size())

    def _back_to_blocks(self) -> None:
        """Pictures in pixels are too much for this link."""
        from mmtui.tui.screens.page import PageScreen

        self._use_way("blocks")
        self.no_pictures = "pictures are blocks again: the link is slow; p tries pixels"
        if isinstance(self.screen, PageScreen):
            self.screen.say(self.no_pictures)
            self.screen.redraw()

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
        with faults.outlived(self, "pictures"):
            self._place_pictures()

    def _place_pictures(self) -> None:
        from mmtui.tui.screens.page import PageScreen

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

    async def on_event(self, event: Event) -> None:
        """Keys and pasted texts have their turns.

        Escape and a key that come in one piece, as over a slow link, are two keys: nothing here is bound to Alt.
        """
        if not isinstance(event, KeyEvent | Paste):
            await super().on_event(event)
        elif event.is_forwarded:
            await self._handle_key(event)
        elif isinstance(event, KeyEvent) and event.key.startswith("alt+"):
            self.keys_in_order.take(KeyEvent("escape", None))
            self.keys_in_order.take(KeyEvent(event.key.removeprefix("alt+"), event.character))
        else:
            self.keys_in_order.take(event)

    async def _handle_key(self, event: Event) -> None:
        with faults.outlived(self, event):
            await super().on_event(event)

    def push_screen(self, screen: Any, callback: Callable[[Any], Any] | None = None, *more: Any, **named: Any) -> Any:
        """Show a screen over the others; what is done with its answer may fail without ending the program."""
        answered = faults.outliving(self, callback) if callback is not None else None
        return super().push_screen(screen, answered, *more, **named)

    def tell_fault(self, where: object, error: Exception) -> None:
        """Say in the footer what has failed; the program goes on."""
        text = f"! {faults.told(self.home, where, error)}"
        self.leaving = False
        with suppress(Exception):  # the footer itself may be what has failed: the log knows
            screens = [screen for screen in self.screen_stack if isinstance(screen, CommonScreen)]
            if screens and screens[-1].said != text:  # to say it draws: what fails at drawing must come to an end
                screens[-1].say(text)

    def _handle_exception(self, error: Exception) -> None:
        """The program ends: keep what is to be said when the terminal is the user's again."""
        if not self.fault:
            self.fault = faults.told(self.home, "the whole screen", getattr(error, "error", error))
        super()._handle_exception(error)

    def action_repaint(self) -> None:
        """Send the whole screen, from a dialog too."""
        self.repaint()

    def picture_sent(self) -> None:
        """Ask the terminal to say when it has drawn what was just sent."""
        if self._driver is None or self.is_headless or self.link.narrow:
            return  # on a narrow link every part is followed by a question
        if self.link.drawn(time.monotonic()):
            self.call_after_refresh(self._ask_terminal)

    def _ask_terminal(self) -> None:
        if self._driver is not None:
            self._send(QUESTION)
            self.link.asked()

    def on_cursor_position(self, _: CursorPosition) -> None:
        """The terminal has drawn what was sent before the question."""
        self.link.answered(time.monotonic(), whole=not self.behind)
        if self.pictures_sent and self.link.slow:
            self._back_to_blocks()
        self.pictures_sent = False
        if self.behind:
            self._catch_up()
        elif self.link.slow:
            self.set_timer(2 * self.link.delay, self._draw_late)
        else:
            self._draw_late()

    def _draw_late(self) -> None:
        self.place_pictures()
        if self.late:
            self.post_message(self.LookAgain())


def _as_program(app: MmtuiApp) -> Program:
    """Nothing but a check of types: the app is what screens take it for."""
    return app


def _first_id() -> int:
    """A number for the first picture that other programs on the terminal hardly use."""
    return (os.getpid() % 65536 << 12) + 1


def terminal_is_ascii() -> bool:
    """Whether the terminal's character set has no braille or box drawing."""
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    return "utf" not in encoding.lower() or os.environ.get("LC_ALL") in ("C", "POSIX")


def _mark_seen(home: Home) -> None:
    try:
        news.mark_seen(home)
    except Exception as error:
        faults.told(home, "the news", error)


def run(home: Home, settings: Settings, select: str | None = None, feed: Feed | None = None) -> int:
    """Show the screen until the user leaves; returns the exit code.

    Args:
        select: id of the run on which the cursor stands.
        feed: one that has begun to read, see ``mmtui.cli.screen``.

    Raises:
        UsageError: a key of the settings is for no action, or for two.
        MmtuiError: a fault has ended the screen.
    """
    keymap = choose_keys(settings.keys)
    tolerate_old_mouse_reports()
    keep_escape_apart()
    for name in ("COLUMNS", "LINES"):
        # Textual believes them before it asks the terminal, and would then never hear of a new size.
        os.environ.pop(name, None)
    ascii_only = settings.ascii or terminal_is_ascii()
    app = MmtuiApp(home, select, ascii_only, settings.notify, settings.theme, feed, settings.pictures)
    app.set_keymap(keymap)
    code = app.run(mouse=settings.mouse) or 0
    _mark_seen(home)
    if app.fault:
        raise MmtuiError(app.fault)
    return code or app.return_code or 0
