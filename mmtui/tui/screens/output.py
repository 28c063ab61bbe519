"""What a command of mmtui prints, as a page."""

from __future__ import annotations

from typing import ClassVar

from mmtui.domain.text import printable
from mmtui.services import commands
from mmtui.tui.actions import bindings
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.widgets.panels import Line


class OutputScreen(PageScreen):
    """What a command printed."""

    NAME, TABS = "output", ("output",)
    BINDINGS: ClassVar = bindings("output")

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command, self.printed = command, list[Line]()

    def title_of(self) -> str:
        """The command."""
        return f"mmtui {printable(self.command)}"

    def lines_of(self, tab: str, width: int, height: int) -> list[Line]:
        """Run it once; what it printed stays."""
        if not self.printed:
            self.printed = [
                [(printable(text), "")] for text in commands.run(self.program.home, self.command, width)
            ] or [[("it printed nothing", "dim")]]
        return self.printed
