"""Dialogs: cancel, help. Each answers its caller and does nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mmtui.domain.text import duration, printable, shorten
from mmtui.domain.views import RunDetail
from mmtui.tui.actions import ACTIONS, key_text

BOX_WIDTH = 76
CancelAnswer = Literal["save", "now"] | None


class Dialog(ModalScreen[object]):
    """A box over the screen; Escape closes it without an answer."""

    def cut(self, text: str, width: int) -> str:
        """A line of at most ``width`` cells, in what the terminal can show."""
        text = shorten(text, width)
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        return text.replace("…", "~").encode("ascii", "replace").decode() if ascii_only else text

    BINDINGS: ClassVar = [Binding("escape", "dismiss_dialog", "close", show=False)]

    def action_dismiss_dialog(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


class CancelDialog(Dialog):
    """Asks how a run is to be stopped; the default is not to stop it."""

    BINDINGS: ClassVar = [
        Binding("s", "answer('save')", "save and stop", show=False),
        Binding("X", "answer('now')", "stop now", show=False),
        Binding("q,n", "dismiss_dialog", "keep running", show=False),
    ]

    def __init__(self, detail: RunDetail, now: float) -> None:
        super().__init__()
        self.detail, self.now = detail, now

    def compose(self) -> ComposeResult:
        row = self.detail.row
        spent = duration(self.now - row.started_at) if row.started_at else "no time"
        where = f"{row.stage} {100 * row.progress:.0f}%" if row.stage else "not started"
        with Vertical(classes="box"):
            yield Static(f"Cancel run {row.id} {self.cut(printable(row.name), 40)}?", classes="title", markup=False)
            yield Static(f"{row.state}, {where}, {spent} invested. It can be retried from its last checkpoint.")
            yield Static("s      save a checkpoint and stop (up to 30 s)", markup=False)
            yield Static("X      stop now (3 s to save)", markup=False)
            yield Static("esc    keep it running", markup=False)

    def action_answer(self, answer: str) -> None:
        """Close with an answer."""
        self.dismiss(answer)


class HelpDialog(Dialog):
    """Every key, from the table of actions; typing searches."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Keys", classes="title")
            yield Input(placeholder="type to search, esc to close", id="search")
            yield Static("", id="found", markup=False)

    def on_mount(self) -> None:
        self._show("")

    @on(Input.Changed, "#search")
    def _on_search(self, event: Input.Changed) -> None:
        self._show(event.value)

    def _show(self, words: str) -> None:
        wanted = words.lower().split()
        lines = []
        for action in ACTIONS:
            text = f"{key_text(action):14} {action.help}"
            text += f"  ({action.id})" if wanted else ""
            if action.command:
                text += f"  [{action.command}]"
            if all(word in text.lower() for word in wanted):
                lines.append(self.cut(text, min(self.app.size.width, BOX_WIDTH) - 4))
        room = max(self.app.size.height - 6, 3)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more: type to search"]
        self.query_one("#found", Static).update("\n".join(lines) or "no key does that")


class NewsDialog(Dialog):
    """What has ended while nobody looked; any key closes it."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__()
        self.lines = lines

    def compose(self) -> ComposeResult:
        title, *rest = self.lines
        with Vertical(classes="box"):
            yield Static(title[:1].upper() + title[1:], classes="title", markup=False)
            yield Static("\n".join(line[2:] for line in rest), markup=False)
            yield Static("any key closes this", markup=False)

    def on_key(self, event: Key) -> None:
        """Close; the key does nothing else."""
        event.stop()
        self.dismiss(None)
