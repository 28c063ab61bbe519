"""What screens and the terminal's driver know of the program that they are part of.

They import this instead of the program itself, which imports them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mmtui.paths import Home
from mmtui.tui.feed import Feed
from mmtui.tui.terminal.link import Link

if TYPE_CHECKING:
    from mmtui.tui.pages.raster import Look


class Program(Protocol):
    """The app: what it holds for all screens, and what it does for them.

    Attributes:
        home: the data directory.
        opened_at: Unix time at which it began.
        select: id of the run on which the cursor is to stand first.
        ascii_only: the terminal's characters are those of ASCII.
        feed: where what is shown comes from.
        link: how fast the terminal draws what it is sent.
        commands: what was done so far, as command lines, the newest last.
        deeds: how many things are being done in threads.
        undone: what can be taken back: words for it, and what takes it back.
        undo_later: how often ``z`` was pressed while something was being done.
        leaving: the program ends when what keys have asked for is done, unless that fails.
        no_pictures: why there are no pictures in pixels, "" if there are.
    """

    home: Home
    opened_at: float
    select: str | None
    ascii_only: bool
    feed: Feed
    link: Link
    commands: list[str]
    deeds: int
    undone: list[tuple[str, Callable[[], object]]]
    undo_later: int
    leaving: bool
    no_pictures: str

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""

    @property
    def look(self) -> Look:
        """What the terminal can show of pictures."""

    def note_command(self, text: str) -> None:
        """Remember the command line of what was just done."""

    def tell_fault(self, where: object, error: Exception) -> None:
        """Say in the footer what has failed; the program goes on."""

    def open_page(self, number: int) -> None:
        """Screen 2 to 5, over the runs."""

    def open_run(self, run_id: str, tab: str = "charts") -> None:
        """Screen 2 with a run."""

    def open_output(self, command: str) -> None:
        """What a command of mmtui prints."""

    def next_theme(self) -> str:
        """Draw everything in the next theme; returns its name."""

    def next_way(self) -> str:
        """Draw pictures the next way that this terminal may know; returns what to say."""

    def place_pictures(self) -> None:
        """Show the pictures in pixels of the page on top, and no others."""

    def take_pictures_away(self) -> None:
        """Leave none on the terminal; what it has stored is freed."""

    def picture_sent(self) -> None:
        """Ask the terminal to say when it has drawn what was just sent."""

    def repaint(self) -> None:
        """Send the whole screen."""

    def leave(self) -> None:
        """End the program when what keys have asked for is done; asked once more, at once."""
