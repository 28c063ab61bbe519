"""What is typed on the screen: a filter for the runs, words to look for, or any command of mmtui."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from mmtui.domain.text import printable, shorten
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import commands, runs
from mmtui.tui.screens.dialogs import BOX_WIDTH, Dialog

MOST_LINES = 50
"""Command lines that are listed."""


class FilterDialog(Dialog):
    """A filter in the language of ``mmtui ls -F``; says while one types how many runs fit, or what is wrong."""

    def __init__(self, home: Home, text: str) -> None:
        super().__init__()
        self.home, self.text = home, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Show runs where", classes="title")
            yield Input(self.text, placeholder="state = failed and created > 2d and lr < 0.01", id="filter")
            yield Static("", id="found", markup=False)
            yield Static("enter shows them   empty: all runs   esc leaves it as it was", classes="note", markup=False)

    def on_mount(self) -> None:
        self._count(self.text)

    @on(Input.Changed, "#filter")
    def _changed(self, event: Input.Changed) -> None:
        self._count(event.value)

    def _count(self, text: str) -> None:
        try:
            count = runs.find(self.home, text, limit=1)[1]
            told = f"{count} run{'' if count == 1 else 's'}"
        except MmtuiError as error:
            told = f"! {printable(error.message)}"
        self.query_one("#found", Static).update(told)

    @on(Input.Submitted, "#filter")
    def _submitted(self, event: Input.Submitted) -> None:
        try:
            runs.find(self.home, event.value, limit=1)
        except MmtuiError:
            return  # what is wrong stands there already
        self.dismiss(event.value.strip())


class SearchDialog(Dialog):
    """Words to look for on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Find in the output", classes="title")
            yield Input(self.text, placeholder="words, upper or lower case", id="words")
            yield Static("enter finds   n next   N the one before   empty: nothing is marked", classes="note")

    @on(Input.Submitted, "#words")
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class CommandDialog(Dialog):
    """One line of the command line, without ``mmtui`` before it; tab completes."""

    BINDINGS: ClassVar = [Binding("tab", "complete", "complete", show=False, priority=True)]

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("mmtui", classes="title")
            yield Input(placeholder="ls -F 'miou > 50'", id="command")
            yield Static("tab completes   enter runs it   esc closes", id="hint", markup=False)

    def action_complete(self) -> None:
        """Complete the last word as a shell would, or show what there is."""
        field = self.query_one(Input)
        found = commands.completions(self.home, field.value)
        if found:
            before, _, _ = field.value.rpartition(" ")
            common = found[0]
            while not all(word.startswith(common) for word in found):
                common = common[:-1]
            whole = common + (" " if len(found) == 1 and not common.endswith("=") else "")
            field.value = f"{before} {whole}".lstrip()
            field.cursor_position = len(field.value)
        self.query_one("#hint", Static).update(shorten("  ".join(found), 300) if found else "nothing completes that")

    @on(Input.Submitted, "#command")
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.removeprefix("mmtui ").strip())


class CommandsDialog(Dialog):
    """What was done so far as command lines, newest first; answers with the one that is chosen."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__()
        self.lines = list(lines)[::-1][:MOST_LINES]

    def compose(self) -> ComposeResult:
        room = min(self.app.size.width, BOX_WIDTH) - 6
        with Vertical(classes="box"):
            yield Static("What was done, as command lines", classes="title")
            yield OptionList(*(Option(self.cut(printable(line), room)) for line in self.lines), markup=False)
            none = "" if self.lines else "nothing yet that has a command line\n"
            yield Static(f"{none}enter copies one   Y copies the newest   esc closes", classes="note", markup=False)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self.lines[event.option_index])
