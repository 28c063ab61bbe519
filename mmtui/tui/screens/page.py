"""A full-screen page of lines: read and drawn in a thread, sent only where it has changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Static

from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.services.live import Changes
from mmtui.tui.graphics import Body, Box, Placed
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.panels import Line

if TYPE_CHECKING:
    from mmtui.tui.app import MmtuiApp

LOOK_SECONDS = 1.0
TOP = 2
"""Lines above the body: header and tabs."""


class PageScreen(Screen[None]):
    """Tabs on top, lines below. A page only reads: what it shows comes from ``lines_of`` in a thread."""

    TABS: ClassVar[tuple[str, ...]] = ()
    HINTS: ClassVar[str] = ""
    AUTO_FOCUS = None
    BINDINGS: ClassVar = [
        Binding("q,escape,1", "close", "runs", show=False),
        Binding("right_square_bracket,tab", "turn(1)", "next tab", show=False, priority=True),
        Binding("left_square_bracket,shift+tab", "turn(-1)", "previous tab", show=False, priority=True),
        Binding("j,down", "scroll_lines(1)", "down", show=False),
        Binding("k,up", "scroll_lines(-1)", "up", show=False),
        Binding("ctrl+d,pagedown,space", "scroll_lines(15)", "page down", show=False),
        Binding("ctrl+u,pageup", "scroll_lines(-15)", "page up", show=False),
        Binding("g,home", "scroll_lines(-1000000)", "top", show=False),
        Binding("G,end", "scroll_lines(1000000)", "bottom", show=False),
        Binding("2", "open_page(2)", "run", show=False),
        Binding("3", "open_page(3)", "compare", show=False),
        Binding("4", "open_page(4)", "queue", show=False),
        Binding("5", "open_page(5)", "devices", show=False),
        Binding("ctrl+l", "repaint", "repaint", show=False),
    ]

    def __init__(self, tab: int = 0) -> None:
        super().__init__()
        self.tab, self.offset_lines = tab, 0
        self.body: list[Line] = []
        self.dirty, self.busy = True, False
        self.changes: Changes | None = None
        self.said = ""

    @property
    def program(self) -> MmtuiApp:
        """The app, with its own type."""
        return cast("MmtuiApp", self.app)

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
        if not self.busy and self.is_current and may:
            self.busy = True
            self._read()

    @work(thread=True, group="page", exit_on_error=False)
    def _read(self) -> None:
        changes, width, height = self.changes, *self.app.size
        fresh: list[Line] | None = None
        try:
            changed = changes is not None and changes.seen()
            if changed or self.dirty:
                self.dirty = False
                fresh = self.lines_of(self.TABS[self.tab], width, max(height - 3, 1))
        except MmtuiError as error:
            fresh = [[(f"! {printable(error.message)}", "bad")], [(printable(error.hint), "dim")]]
        except RuntimeError:
            fresh = None  # the screen was closed meanwhile
        if not self.program.is_running or not self.is_running:
            return
        self.app.call_from_thread(self._have_read, fresh)

    def _have_read(self, fresh: list[Line] | None) -> None:
        self.busy = False
        if fresh is not None:
            self.body = fresh
            self.show()
            self.program.picture_sent()
        if self.dirty:
            self._look()

    def show(self) -> None:
        """Put the part that fits on the screen."""
        panel = self.query_one("#page", LinesPanel)
        room = max(self.app.size.height - 3, 1)
        self.offset_lines = min(max(self.offset_lines, 0), max(len(self.body) - room, 0))
        shown = self.body[self.offset_lines : self.offset_lines + room]
        more = f"  {self.offset_lines + 1}-{self.offset_lines + len(shown)} of {len(self.body)} lines"
        tabs = "  ".join(f"[{name}]" if number == self.tab else name for number, name in enumerate(self.TABS))
        panel.show(shown, f"{tabs}{more if len(self.body) > room else ''}")
        self._set("#header", f" mmtui  {self.title_of()}")
        self._set("#footer", f" {self.said or self.hints()}")
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

    def hints(self) -> str:
        """What the keys do, for the footer."""
        turn = "tab other tab  " if len(self.TABS) > 1 else ""
        return f"q back  {turn}j/k scroll  {self.HINTS}"

    def _set(self, selector: str, text: str) -> None:
        widget = self.query_one(selector, Static)
        text = text.encode("ascii", "replace").decode() if self.program.ascii_only else text
        if getattr(widget, "shown_text", None) != text:
            widget.shown_text = text  # type: ignore[attr-defined]
            widget.update(text)

    def say(self, text: str) -> None:
        """A word in the footer until the next key."""
        self.said = text
        self.show()

    def on_key(self) -> None:
        if self.said:
            self.said = ""
            self.show()

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
            self.redraw()

    def action_scroll_lines(self, steps: int) -> None:
        """Scroll."""
        self.offset_lines += steps
        self.show()

    def action_repaint(self) -> None:
        """Paint everything again."""
        self.program.repaint()
