"""A tab of a run's screen: what it shows, and what keys do on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from mmtui.tui.pages.charts import View
from mmtui.tui.pages.panes import Focus, Laid
from mmtui.tui.program import Program
from mmtui.tui.screens.dialogs import Dialog
from mmtui.tui.widgets.panels import Line


class RunPage(Protocol):
    """The screen as its tabs see it."""

    run_id: str
    others: list[str]
    """Runs that are marked besides: they lie over its charts, and its classes are compared with the first."""
    view: View
    offset_lines: int
    following: bool
    said: str

    @property
    def program(self) -> Program:
        """The program."""

    def focus_on(self, tab: str) -> Focus:
        """The marked panel of a tab."""

    def taken(self, laid: Laid) -> list[Line]:
        """Lines of a tab; where its marked panel lies is remembered."""

    def redraw(self) -> None:
        """Draw everything anew."""

    def show(self) -> None:
        """Put the part that fits on the screen."""

    def say(self, text: str) -> None:
        """Show a sentence in the footer."""

    def rows_of_body(self) -> int:
        """Lines that the screen has for a tab."""

    def ask(self, dialog: Dialog, answered: Callable[[object], None]) -> None:
        """Open a dialog."""


class RunTab:
    """One tab. What keys do here that mean something else on another tab is a method that says whether it did it."""

    NAME: ClassVar[str]
    FOLLOWED: ClassVar[bool] = False
    """Whether it stays at its end while lines are added, until somebody scrolls up."""

    def __init__(self, page: RunPage) -> None:
        self.page = page

    def lines(self, width: int, height: int) -> list[Line]:
        """What it shows; called in a thread.

        Raises:
            MmtuiError: it cannot be read; its words are shown instead.
        """
        raise NotImplementedError

    def pane_names(self) -> Sequence[str]:
        """Names of its panels, of which one is marked; () for a tab without."""
        return ()

    def before_showing(self) -> None:
        """Choose the lines that are shown; called whenever the screen is drawn."""

    def aside(self, steps: int) -> bool:
        """Left and right."""
        return False

    def slide(self, steps: int) -> bool:
        """Another moment."""
        return False

    def show_alone(self) -> bool:
        """One part over the whole screen, and back."""
        return False

    def next_pane(self, steps: int) -> bool:
        """Mark another part."""
        return False

    def next_one(self, steps: int) -> bool:
        """The next of what can be walked through."""
        return False

    def next_way(self) -> bool:
        """Another way to show pictures."""
        return False

    def search(self) -> bool:
        """Ask for words to look for."""
        return False

    def sort(self) -> bool:
        """The next order."""
        return False

    def choose_baseline(self) -> bool:
        """Ask for the run that is compared with."""
        return False
