"""What every screen can do: tell what keys do, take a command, copy, choose colours.

Dialogs are imported when they are opened: the first picture comes sooner without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, cast

from textual import work
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from mmtui.domain.text import in_ascii
from mmtui.tui import faults
from mmtui.tui.actions import action_of, command_text
from mmtui.tui.keys import LOOK
from mmtui.tui.program import Program

INTERRUPT_SECONDS = 2.0


class CommonScreen(Screen[None]):
    """A full screen with a header and a footer line; ``NAME`` is its name in the table of keys."""

    NAME: ClassVar[str] = ""
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.said = ""
        self.last_interrupt = 0.0

    @property
    def program(self) -> Program:
        """The app, as far as screens know it."""
        return cast("Program", self.app)

    @property
    def tab_name(self) -> str:
        """The tab that is open, "" where there are none."""
        return ""

    def acting_ids(self) -> list[str]:
        """Ids of the runs that a key acts on."""
        return []

    def show_words(self) -> None:
        """Draw header and footer again: ``said`` has changed."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Show a word on what a key did, in the footer, until the next key."""
        self.said = text
        if self.query("#header"):  # else the screen was closed before a thread had its answer
            self.show_words()

    def set_text(self, selector: str, text: str) -> None:
        """Header or footer; sent only when it has changed."""
        widget = self.query_one(selector, Static)
        text = in_ascii(text) if self.program.ascii_only else text
        if getattr(widget, "shown_text", None) != text:
            widget.shown_text = text  # type: ignore[attr-defined]
            widget.update(text)

    def key_pressed(self, key: str) -> None:
        """Note the command line of a key that looks at something (deeds note their own); take the last word away."""
        with faults.outlived(self, f"the key {key}"):  # else the key would not do what it is for
            self._note_key(key)
            if self.said:
                self.said = ""
                self.show_words()

    def _note_key(self, key: str) -> None:
        action = action_of(self.NAME, key)
        if action is not None and action.command and action.weight == LOOK and not action.asks:
            self.program.note_command(command_text(action, self.acting_ids()))

    async def _dispatch_message(self, message: Message) -> None:
        # Textual ends with the program a part whose handler fails.
        with faults.outlived(self, message):
            await super()._dispatch_message(message)

    def do(self, words: str, deed: Callable[[], object], back: Callable[[], object] | None = None) -> None:
        """Do something in a thread and say so; ``back`` takes it back (``z``)."""
        self.program.deeds += 1
        self._do(words, deed, back)

    @work(thread=True, group="deed", exit_on_error=False)
    def _do(self, words: str, deed: Callable[[], object], back: Callable[[], object] | None) -> None:
        try:
            deed()
        except Exception as error:
            self.app.call_from_thread(self._failed, f"! {faults.told(self.program.home, words, error)}")
            return
        if back is not None:
            self.program.undone.append((words, back))
        self.app.call_from_thread(self._done, words)

    def _failed(self, words: str) -> None:
        self.program.leaving = False  # nobody would read why
        self._ended(words)

    def _done(self, words: str) -> None:
        self._ended(words)
        self.look_again()

    def _ended(self, words: str) -> None:
        """What was asked for is done, or refused; an undo that was asked for meanwhile has its turn."""
        self.say(words)
        self.program.deeds -= 1
        if self.program.undo_later and not self.program.deeds:
            self.program.undo_later -= 1
            self.action_undo()

    def look_again(self) -> None:
        """Read what may have changed."""

    def action_undo(self) -> None:
        """Take the last change back; one that is being made is waited for."""
        if self.program.deeds:
            self.program.undo_later += 1
            return
        if not self.program.undone:
            self.say("there is nothing to undo")
            return
        words, back = self.program.undone.pop()
        self.do(f"undone: {words}", back)

    def action_show_help(self) -> None:
        """Every key."""
        from mmtui.tui.screens.dialogs import KeysDialog

        self.app.push_screen(KeysDialog(self.NAME, self.tab_name), self._chosen)

    def action_palette(self) -> None:
        """Every action of this screen, to be chosen by words."""
        from mmtui.tui.screens.dialogs import KeysDialog

        self.app.push_screen(KeysDialog(self.NAME, self.tab_name, only_here=True), self._chosen)

    async def _chosen(self, method: object) -> None:
        if isinstance(method, str):
            await self.run_action(method)

    def action_command(self) -> None:
        """Ask for a command line and show what it says."""
        from mmtui.tui.screens.commands import CommandDialog

        self.app.push_screen(CommandDialog(self.program.home), self._command)

    def _command(self, text: object) -> None:
        if isinstance(text, str) and text.strip():
            self.program.note_command(f"mmtui {text.strip()}")
            self.program.open_output(text)

    def action_show_commands(self) -> None:
        """What was done, as command lines."""
        from mmtui.tui.screens.commands import CommandsDialog

        self.app.push_screen(CommandsDialog(self.program.commands), self._copy)

    def action_copy_command(self) -> None:
        """Copy the newest of them."""
        self._copy(self.program.commands[-1] if self.program.commands else None)

    def action_copy_id(self) -> None:
        """Copy the ids of the runs a key would act on."""
        self._copy(" ".join(self.acting_ids()) or None)

    def _copy(self, text: object) -> None:
        if isinstance(text, str):
            self.app.copy_to_clipboard(text)
            self.say(f"copied: {text}")

    def action_next_theme(self) -> None:
        """Other colours."""
        self.say(f"theme: {self.program.next_theme()}")

    def action_repaint(self) -> None:
        """Paint everything again."""
        self.program.repaint()

    def action_reload(self) -> None:
        """Look again."""
        self.look_again()

    def action_interrupt(self) -> None:
        """Ctrl-C twice leaves."""
        now = time.monotonic()
        if now - self.last_interrupt < INTERRUPT_SECONDS:
            self.program.leave()
        else:
            self.say("ctrl+c again leaves; runs go on. x cancels a run")
        self.last_interrupt = now

    def action_open_page(self, number: int) -> None:
        """One of the other screens."""
        self.program.open_page(number)
