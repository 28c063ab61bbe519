"""The tab of a run's match graph."""

from __future__ import annotations

from collections.abc import Sequence

from mmtui.tui.pages import graph
from mmtui.tui.tabs.base import RunPage, RunTab
from mmtui.tui.widgets.panels import Line


class GraphTab(RunTab):
    """Statistics, edges, embeddings and distances of the match graph; ``n`` draws another class."""

    NAME = "graph"

    def __init__(self, page: RunPage) -> None:
        super().__init__(page)
        self.shown_class: int | None = None
        """Index of the class whose edges are drawn, None: the one with most nodes."""

    def lines(self, width: int, height: int) -> list[Line]:
        """The panels."""
        page, program = self.page, self.page.program
        moment, focus = page.view.moment, page.focus_on(self.NAME)
        size = (width, height)
        return page.taken(
            graph.graph(program.home, page.run_id, size, program.ascii_only, moment, self.shown_class, focus)
        )

    def pane_names(self) -> Sequence[str]:
        """The panels."""
        return graph.PANES

    def next_one(self, steps: int) -> bool:
        """Another class."""
        page = self.page
        found = graph.classes_of(page.program.home, page.run_id, page.view.moment)
        if found:
            here = graph.chosen_class(found, self.shown_class)
            order = sorted(found)
            self.shown_class = order[(order.index(here) + steps) % len(order)]
            page.redraw()
        return True
