"""The output of a run's trainer, full screen."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import RichLog, Static

from mmtui.paths import Home
from mmtui.services import runs

POLL_SECONDS = 1.0
LINES = 5000


class LogScreen(Screen[None]):
    """Follows the newest attempt; scrolling up stops following."""

    BINDINGS: ClassVar = [
        Binding("q,escape,o", "close", "back", show=False),
        Binding("j", "scroll(1)", "down", show=False),
        Binding("k", "scroll(-1)", "up", show=False),
        Binding("g", "scroll(-1000000)", "top", show=False),
        Binding("G", "scroll(1000000)", "bottom", show=False),
    ]

    def __init__(self, home: Home, run_id: str) -> None:
        super().__init__()
        self.home, self.run_id = home, run_id
        self._shown: list[str] = []

    def compose(self) -> ComposeResult:
        yield Static(f" output of run {self.run_id}   j/k scroll   q back", markup=False)
        yield RichLog(max_lines=LINES, wrap=True, markup=False, highlight=False)

    def on_mount(self) -> None:
        self._load()
        self.set_interval(POLL_SECONDS, self._load)

    def _load(self) -> None:
        lines = runs.log_tail(self.home, self.run_id, LINES)
        if lines == self._shown:
            return
        log = self.query_one(RichLog)
        if lines[: len(self._shown)] == self._shown:
            fresh = lines[len(self._shown) :]
        else:
            log.clear()
            fresh = lines
        for line in fresh:
            log.write(Text(line))
        self._shown = lines

    def action_scroll(self, steps: int) -> None:
        """Scroll by lines."""
        log = self.query_one(RichLog)
        log.scroll_relative(y=steps, animate=False)
        log.auto_scroll = log.is_vertical_scroll_end

    def action_close(self) -> None:
        """Back to the runs."""
        self.app.pop_screen()
