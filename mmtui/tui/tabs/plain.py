"""Tabs that show a page and have no keys of their own: charts, devices, recipe and history of a run."""

from __future__ import annotations

from collections.abc import Sequence

from mmtui.tui.pages import charts, facts, run_devices
from mmtui.tui.tabs.base import RunTab
from mmtui.tui.widgets.panels import Line


class ChartsTab(RunTab):
    """Curves of the run, those of marked runs over them."""

    NAME = "charts"

    def lines(self, width: int, height: int) -> list[Line]:
        """A chart for each metric."""
        page = self.page
        ids, ascii_only = [page.run_id, *page.others], page.program.ascii_only
        focus = page.focus_on(self.NAME)
        return page.taken(charts.charts(page.program.home, ids, width, height, ascii_only, page.view, focus))

    def pane_names(self) -> Sequence[str]:
        """The metrics."""
        return charts.metrics(self.page.program.home, self.page.run_id)


class DevicesTab(RunTab):
    """What the run has used of its devices."""

    NAME = "devices"

    def lines(self, width: int, height: int) -> list[Line]:
        """Curves of use and memory."""
        page, program = self.page, self.page.program
        return run_devices.run_devices(program.home, page.run_id, width, height, program.ascii_only, page.view)


class ConfigTab(RunTab):
    """The resolved recipe."""

    NAME = "config"

    def lines(self, width: int, height: int) -> list[Line]:
        """A line for each key."""
        return facts.config(self.page.program.home, self.page.run_id, width, self.page.program.ascii_only)


class HistoryTab(RunTab):
    """What has happened to the run."""

    NAME = "history"

    def lines(self, width: int, height: int) -> list[Line]:
        """Attempts, changes of state, lineage, code and versions."""
        page, program = self.page, self.page.program
        return facts.history(program.home, page.run_id, width, program.ascii_only, page.view.moment)
