"""Which run a run's classes are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from mmtui.domain.text import printable
from mmtui.domain.views import RunRow, doubted
from mmtui.tui.screens.dialogs import Dialog

ROOM = 68


class BaselineDialog(Dialog):
    """Runs of the same classes in a list; answers with an id, "" for none, None if it is closed."""

    BINDINGS: ClassVar = [
        Binding("j", "move(1)", "down", show=False),
        Binding("k", "move(-1)", "up", show=False),
        Binding("q", "dismiss_dialog", "close", show=False),
    ]

    def __init__(self, rows: Sequence[RunRow], now: str) -> None:
        super().__init__()
        self.rows, self.now = rows, now

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Compare the classes with", classes="title")
            yield OptionList(id="baselines", markup=False)
            yield Static("enter takes it   esc leaves it as it is", classes="note", markup=False)

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        ids = ["", *(row.id for row in self.rows)]
        options.add_option(Option("no run, the published numbers alone", id="none"))
        for row in self.rows:
            miou = row.metrics.get("miou")
            mean = doubted("-" if miou is None else f"{miou:.2f}", row.doubts)
            pinned = "  pinned" if "pinned" in row.tags else ""
            text = f"run {row.id:>4}  mIoU {mean:>5}  {printable(row.name)}{pinned}"
            options.add_option(Option(self.cut(text, ROOM), id=f"run-{row.id}"))
        options.highlighted = ids.index(self.now) if self.now in ids else 0
        options.focus()

    def action_move(self, steps: int) -> None:
        """Another line."""
        options = self.query_one(OptionList)
        if options.highlighted is not None:
            options.highlighted = (options.highlighted + steps) % options.option_count

    @on(OptionList.OptionSelected)
    def _taken(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(str(event.option.id).removeprefix("run-").replace("none", ""))
