"""The tab of what a run's trainers printed."""

from __future__ import annotations

from mmtui.domain.text import printable, shorten
from mmtui.tui.pages import log
from mmtui.tui.screens.commands import SearchDialog
from mmtui.tui.tabs.base import RunPage, RunTab
from mmtui.tui.widgets.panels import Line


class LogTab(RunTab):
    """The output; ``/`` looks for words in it, ``n`` and ``N`` go from place to place."""

    NAME = "log"
    FOLLOWED = True

    def __init__(self, page: RunPage) -> None:
        super().__init__(page)
        self.words, self.seeking = "", False
        self.found: tuple[str, list[int]] = ("", [])
        """What was looked for in the lines that are shown, and the numbers of the lines where it stands."""
        self.place = -1

    def lines(self, width: int, height: int) -> list[Line]:
        """The end of it, or as it was at a step."""
        page, program, words = self.page, self.page.program, self.words
        lines, places = log.log(program.home, page.run_id, width, program.ascii_only, page.view.moment, words)
        self.found = (words, places)
        return lines

    def search(self) -> bool:
        """Ask for words to look for."""
        self.page.ask(SearchDialog(self.words), self._search)
        return True

    def _search(self, words: object) -> None:
        if isinstance(words, str):
            self.words, self.seeking = words, bool(words)
            self.page.redraw()

    def before_showing(self) -> None:
        """After a search, where the words stand."""
        if self.seeking and self.found[0] == self.words:
            self.seeking = False
            places = self.found[1]
            first = self.page.offset_lines
            self._go_to(next((i for i, place in enumerate(places) if place >= first), len(places) - 1))

    def next_one(self, steps: int) -> bool:
        """The next place."""
        places = self.found[1]
        if not self.words:
            return True
        if steps > 0:
            here = next((i for i, place in enumerate(places) if place > self.place), 0)
        else:
            here = next((i for i in reversed(range(len(places))) if places[i] < self.place), len(places) - 1)
        self._go_to(here)
        self.page.show()
        return True

    def _go_to(self, index: int) -> None:
        """Show one of the places that were found."""
        page, places = self.page, self.found[1]
        if not places:
            page.said = f"'{printable(self.words)}' does not occur in what is shown"
            return
        self.place, page.following = places[index], False
        page.offset_lines = self.place - page.rows_of_body() // 2
        page.said = f"{index + 1} of {len(places)}  '{shorten(printable(self.words), 40)}'  n next  N before"
