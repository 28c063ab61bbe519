"""A full-screen page of lines: read and drawn in a thread, sent only where it has changed."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Key
from textual.widgets import Static

from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.services.live import Changes, one_moment
from mmtui.tui import faults
from mmtui.tui.actions import footer_text
from mmtui.tui.screens.common import CommonScreen
from mmtui.tui.terminal.graphics import Body, Box, Placed
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.panels import Line, trouble

LOOK_SECONDS = 1.0
TITLE_DASHES = 6
"""Cells that are drawn around a title."""
TOP = 2
"""Lines above the body: header and tabs."""


class PageScreen(CommonScreen):
    """Tabs on top, lines below. A page only reads: what it shows comes from ``lines_of`` in a thread."""

    TABS: ClassVar[tuple[str, ...]] = ()
    FOLLOWED: ClassVar[frozenset[str]] = frozenset()
    """Tabs that stay at their end while lines are added, until somebody scrolls up."""
    LIVE_SECONDS: ClassVar[float] = 0.0
    """A page that changes without the database is read again so often; 0 = it is not."""

    def __init__(self, tab: int = 0) -> None:
        super().__init__()
        self.tab, self.offset_lines = tab, 0
        self.body: list[Line] = []
        self.dirty, self.reading, self.read_at = True, False, 0.0
        self.following = self.TABS[tab] in self.FOLLOWED if self.TABS else False
        self.changes: Changes | None = None

    @property
    def tab_name(self) -> str:
        """The tab that is open."""
        return self.TABS[self.tab] if len(self.TABS) > 1 else ""

    def title_of(self) -> str:
        """What stands before the tabs."""
        return ""

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """The lines of a tab; called in a thread.

        Raises:
            MmtuiError: they cannot be read; its words are shown instead.
        """
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield Static("", id="header", markup=False)
        with Container(id="body"):
            yield LinesPanel("", id="page")
        yield Static("", id="footer", markup=False)

    def on_mount(self) -> None:
        self.query_one("#page").display = True
        self.changes = Changes(self.program.home)
        self.set_interval(LOOK_SECONDS, self._look)
        self.call_after_refresh(self.redraw)

    def on_unmount(self) -> None:
        if self.changes is not None:
            self.changes.close()

    def on_resize(self) -> None:
        panel = self.query_one("#page")
        width, height = self.app.size
        panel.styles.width, panel.styles.height = width, max(height - 2, 1)
        self.call_after_refresh(self.redraw)

    def redraw(self) -> None:
        """Draw everything anew, as soon as the thread is free."""
        self.dirty = True
        self._look()

    def _look(self) -> None:
        may = self.dirty or self.program.link.may_draw(time.monotonic())
        if not self.reading and self.is_current and may:
            self.reading = True
            self._read()

    @work(thread=True, group="page", exit_on_error=False)
    def _read(self) -> None:
        changes, width, height = self.changes, *self.app.size
        fresh: list[Line] | None = None
        try:
            changed = changes is not None and changes.seen()
            live = self.LIVE_SECONDS and time.monotonic() - self.read_at >= self.LIVE_SECONDS
            if changed or live or self.dirty:
                self.dirty, self.read_at = False, time.monotonic()
                with one_moment(self.program.home):
                    fresh = self.lines_of(self.TABS[self.tab], width, max(height - 3, 1))
        except MmtuiError as error:
            fresh = [[(f"! {printable(error.message)}", "bad")], [(printable(error.hint), "dim")]]
        except Exception as error:
            fresh = self._fault(error) if self.is_running else None  # else the screen was closed meanwhile
        if not self.program.is_running or not self.is_running:
            return
        self.app.call_from_thread(self._have_read, fresh)

    def _have_read(self, fresh: list[Line] | None) -> None:
        self.reading = False
        if fresh is not None:
            self.body = fresh
            self._show_fresh()
            self.program.picture_sent()
        if self.dirty:
            self._look()

    def _show_fresh(self) -> None:
        """Show what was read; if it cannot be drawn, why."""
        try:
            self.show()
        except Exception as error:
            self.body, self.offset_lines = self._fault(error), 0
            PageScreen.show(self)

    def _fault(self, error: Exception) -> list[Line]:
        """Lines in the place of a page."""
        text = faults.told(self.program.home, f"the page {self.NAME} {self.tab_name}", error)
        return trouble(text, self.app.size.width, self.program.ascii_only)

    def _heading(self) -> str:
        """What stands before the tabs; should it fail, why."""
        try:
            return self.title_of()
        except Exception as error:
            return f"! {faults.told(self.program.home, f'the title of {self.NAME}', error)}"

    def show(self) -> None:
        """Put the part that fits on the screen."""
        panel = self.query_one("#page", LinesPanel)
        room = max(self.app.size.height - 3, 1)
        last = max(len(self.body) - room, 0)
        self.offset_lines = last if self.following else min(max(self.offset_lines, 0), last)
        shown = self.body[self.offset_lines : self.offset_lines + room]
        panel.show(shown, self._title(len(shown), room))
        self.set_text("#header", f" mmtui  {self._heading()}{self.program.link.words()}")
        self.set_text("#footer", f" {self.said or footer_text(self.NAME, self.app.size.width - 2, self.tab_name)}")
        self.call_after_refresh(self.program.place_pictures)

    def pictures(self) -> dict[Box, Placed]:
        """Pictures in pixels that lie over the lines, by their boxes on the screen: those that can be seen whole."""
        found = {}
        room = max(self.app.size.height - 3, 1)
        for picture in self.body.placed if isinstance(self.body, Body) else ():
            top = picture.line - self.offset_lines
            if top >= 0 and top + picture.rows <= room:
                found[(picture.column, top + TOP, picture.columns, picture.rows)] = picture
        return found

    def _title(self, count: int, room: int) -> str:
        """The tabs, and which lines are shown; close together where the screen is narrow."""
        first, last, total = self.offset_lines + 1, self.offset_lines + count, len(self.body)
        end = "  at the end" if self.following else ""
        names = [f"[{name}]" if number == self.tab else name for number, name in enumerate(self.TABS)]
        wide = "  ".join(names) + (f"  {first}-{last} of {total} lines" if total > room else "") + end
        if len(wide) <= self.app.size.width - TITLE_DASHES:
            return wide
        return " ".join(names) + (f" {first}-{last}/{total}" if total > room else "") + (" end" if end else "")

    def show_words(self) -> None:
        """Header and footer."""
        self.show()

    def look_again(self) -> None:
        """Read and draw everything anew."""
        self.redraw()

    def on_key(self, event: Key) -> None:
        """Note what the key does."""
        self.key_pressed(event.key)

    def action_close(self) -> None:
        """Back to the runs."""
        self.app.pop_screen()

    def action_open_page(self, number: int) -> None:
        """Another page in the place of this one."""
        self.app.pop_screen()
        self.program.open_page(number)

    def action_turn(self, steps: int) -> None:
        """Another tab."""
        if len(self.TABS) > 1:
            self.tab, self.offset_lines = (self.tab + steps) % len(self.TABS), 0
            self.following = self.TABS[self.tab] in self.FOLLOWED
            self.redraw()

    def action_move(self, steps: int) -> None:
        """Scroll; at the end of a page that grows it is followed."""
        self.offset_lines += steps
        at_end = self.offset_lines >= len(self.body) - max(self.app.size.height - 3, 1)
        self.following = at_end and self.TABS[self.tab] in self.FOLLOWED
        self.show()
