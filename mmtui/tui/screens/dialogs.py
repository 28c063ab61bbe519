"""Dialogs: cancel, a line of text, keys, news. Each answers its caller and does nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Key
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from mmtui.domain.text import duration, in_ascii, printable, shorten
from mmtui.domain.views import RunDetail, RunRow
from mmtui.tui import faults
from mmtui.tui.actions import actions_of, key_text
from mmtui.tui.keys import ACTIONS, Action

BOX_WIDTH = 76
MOST_NAMED = 6
"""Runs that a question names; of more it tells the number."""
_RETRY = "It can be retried from its last checkpoint."


class Dialog(ModalScreen[object]):
    """A box over the screen; Escape closes it without an answer."""

    def cut(self, text: str, width: int) -> str:
        """A line of at most ``width`` cells, in what the terminal can show."""
        if not getattr(self.app, "ascii_only", False):
            return shorten(text, width)
        return in_ascii(shorten(in_ascii(text), width))

    BINDINGS: ClassVar = [
        Binding("escape", "dismiss_dialog", "close", show=False),
        Binding("ctrl+l", "app.repaint", "repaint", show=False, priority=True),
    ]

    async def _dispatch_message(self, message: Message) -> None:
        # Textual ends with the program a part whose handler fails.
        with faults.outlived(self, message):
            await super()._dispatch_message(message)

    def action_dismiss_dialog(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


class CancelDialog(Dialog):
    """Asks how runs are to be stopped; the default is not to stop them."""

    BINDINGS: ClassVar = [
        Binding("s", "answer('save')", "save and stop", show=False),
        Binding("X", "answer('now')", "stop now", show=False),
        Binding("q,n", "dismiss_dialog", "keep running", show=False),
    ]

    def __init__(self, found: Sequence[RunDetail], now: float) -> None:
        super().__init__()
        self.found, self.now = found, now

    def compose(self) -> ComposeResult:
        several = len(self.found) > 1
        row = self.found[0].row
        title = f"Cancel {len(self.found)} runs?" if several else f"Cancel run {row.id} {self._short_name(row)}?"
        with Vertical(classes="box"):
            yield Static(title, classes="title", markup=False)
            for one in self.found[:MOST_NAMED]:
                which = f"{one.row.id} {self._short_name(one.row)}: " if several else ""
                yield Static(f"{which}{self._invested(one.row)}", markup=False)
            if len(self.found) > MOST_NAMED:
                yield Static(f"and {len(self.found) - MOST_NAMED} more", markup=False)
            yield Static("They can be retried from their last checkpoints." if several else _RETRY, markup=False)
            yield Static("s      save a checkpoint and stop (up to 30 s)", markup=False)
            yield Static("X      stop now (3 s to save)", markup=False)
            yield Static(f"esc    keep {'them' if several else 'it'} running", markup=False)

    def _short_name(self, row: RunRow) -> str:
        return self.cut(printable(row.name), 40)

    def _invested(self, row: RunRow) -> str:
        spent = duration(self.now - row.started_at) if row.started_at else "no time"
        where = f"{self.cut(printable(row.stage), 20)} {100 * row.progress:.0f}%" if row.stage else "not started"
        return f"{row.state}, {where}, {spent} invested"

    def action_answer(self, answer: str) -> None:
        """Close with an answer."""
        self.dismiss(answer)


class TrustDialog(Dialog):
    """Asks whether code that came with runs from elsewhere may run; the default is that it may not.

    Args:
        found: SHA-256 of the code, by run.
    """

    BINDINGS: ClassVar = [
        Binding("Y", "dismiss_with_run", "run it", show=False),
        Binding("q,n", "dismiss_dialog", "leave it", show=False),
    ]

    def __init__(self, found: Mapping[str, str]) -> None:
        super().__init__()
        self.found = found

    def compose(self) -> ComposeResult:
        several = len(self.found) > 1
        with Vertical(classes="box"):
            yield Static(f"Run code from elsewhere? Run {', '.join(self.found)}", classes="title", markup=False)
            yield Static("It came with a capsule and could do anything that you can do.", markup=False)
            for digest in dict.fromkeys(self.found.values()):
                yield Static(f"SHA-256 {digest}", markup=False)
            yield Static("Look at it in the folder imported-code of the data directory.", markup=False)
            yield Static("Y      run it", markup=False)
            yield Static(f"esc    leave {'them' if several else 'it'} as it is", markup=False)

    def action_dismiss_with_run(self) -> None:
        """Yes."""
        self.dismiss("run")


class LineDialog(Dialog):
    """One line of text; answers with it."""

    def __init__(self, title: str, text: str, hint: str) -> None:
        super().__init__()
        self.title_text, self.text, self.hint = title, text, hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.cut(self.title_text, BOX_WIDTH - 4), classes="title", markup=False)
            yield Input(self.text, id="line")
            yield Static(self.hint, classes="note", markup=False)

    @on(Input.Submitted, "#line")
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class KeysDialog(Dialog):
    """Every key, from the table; typing searches, enter does what is chosen if this screen can.

    Args:
        screen: name of the screen it was called from; its own keys come first.
        only_here: only what that screen can do now, by name: the palette.
    """

    BINDINGS: ClassVar = [
        Binding("down", "step(1)", show=False, priority=True),
        Binding("up", "step(-1)", show=False, priority=True),
        Binding("pagedown", "step(10)", show=False, priority=True),
        Binding("pageup", "step(-10)", show=False, priority=True),
    ]

    def __init__(self, screen: str, tab: str = "", only_here: bool = False) -> None:
        super().__init__()
        self.screen_name, self.tab, self.only_here = screen, tab, only_here
        here = actions_of(screen, tab)
        self.found = here if only_here else [*here, *(action for action in ACTIONS if action not in here)]
        self.shown: list[Action] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("What to do" if self.only_here else "Keys", classes="title")
            yield Input(placeholder="type to search, enter does it, esc closes", id="search")
            yield OptionList(id="found", markup=False)
            yield Static("", id="about", classes="note", markup=False)

    def on_mount(self) -> None:
        self._show("")

    def on_resize(self) -> None:
        self.query_one("#found").styles.max_height = max(self.app.size.height - 7, 3)

    @on(Input.Changed, "#search")
    def _on_search(self, event: Input.Changed) -> None:
        self._show(event.value)

    def _show(self, words: str) -> None:
        wanted = words.lower().split()
        self.shown = [a for a in self.found if all(word in self._searched(a) for word in wanted)]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._line(action), id=action.id) for action in self.shown])
        if self.shown:
            options.highlighted = 0
        else:
            options.add_option(Option("no key does that", disabled=True))
            self.query_one("#about", Static).update("")

    def _searched(self, action: Action) -> str:
        return f"{key_text(action)} {action.label} {action.help} {action.id} {action.command}".lower()

    def _line(self, action: Action) -> str:
        where = "" if action.on(self.screen_name, self.tab) else f" (on {action.screens.replace(' ', ', ')})"
        room = min(self.app.size.width, BOX_WIDTH) - 6
        return self.cut(f"{key_text(action):12} {action.label:10} {action.help}{where}", room)

    @on(OptionList.OptionHighlighted)
    def _tell(self, event: OptionList.OptionHighlighted) -> None:
        """All that is known of the chosen one: names for config.toml and the command line."""
        if event.option_index < len(self.shown):
            action = self.shown[event.option_index]
            command = f"the same as: {action.command}" if action.command else "no command line does that"
            self.query_one("#about", Static).update(f"{action.help}\n{action.id}: {command}")

    def action_step(self, steps: int) -> None:
        """Move the cursor."""
        options = self.query_one(OptionList)
        if self.shown:
            here = options.highlighted or 0
            options.highlighted = min(max(here + steps, 0), len(self.shown) - 1)

    @on(Input.Submitted, "#search")
    def _submitted(self) -> None:
        self._take(self.query_one(OptionList).highlighted)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._take(event.option_index)

    def _take(self, index: int | None) -> None:
        if index is None or index >= len(self.shown):
            return
        action = self.shown[index]
        if action.on(self.screen_name, self.tab):
            self.dismiss(action.method)


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
