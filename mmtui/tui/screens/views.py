"""Which columns the runs have, and views that are kept under a name."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from mmtui.domain.text import printable
from mmtui.errors import MmtuiError, NotFoundError
from mmtui.paths import Home
from mmtui.services import runs, saved_views
from mmtui.services.saved_views import SavedView
from mmtui.tui.rows import SORTS
from mmtui.tui.screens.dialogs import Dialog

ROOM = 68


class ColumnsDialog(Dialog):
    """Columns as of ``mmtui ls -c``; answers with their names."""

    def __init__(self, home: Home, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.home, self.columns = home, columns

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Columns behind the name", classes="title")
            yield Input(", ".join(self.columns), placeholder="miou, max miou, last loss, lr, seed, tag", id="columns")
            yield Static("", id="found", markup=False)
            yield Static("enter shows them   empty: as at first   esc leaves them", classes="note", markup=False)

    @on(Input.Changed, "#columns")
    def _changed(self) -> None:
        self.query_one("#found", Static).update(printable(self._problem()))

    def _names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.query_one(Input).value.split(",") if name.strip())

    def _problem(self) -> str:
        try:
            runs.find(self.home, columns=self._names(), limit=1)
        except MmtuiError as error:
            return f"! {error.message}"
        return ""

    @on(Input.Submitted, "#columns")
    def _submitted(self) -> None:
        if not self._problem():
            self.dismiss(self._names())


class SortDialog(Dialog):
    """The order of the runs: one that is usual, or any columns; answers with the sort keys."""

    BINDINGS: ClassVar = [Binding("down", "to_list", show=False)]

    def __init__(self, home: Home, sort: tuple[str, ...]) -> None:
        super().__init__()
        self.home, self.sort = home, sort

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Order of the runs", classes="title")
            yield OptionList(*(text for text, _ in SORTS), id="orders", markup=False)
            yield Input(", ".join(self.sort), placeholder="any columns: -miou, max val_loss, lr, created", id="sort")
            yield Static("", id="found", markup=False)
            yield Static("enter takes it   tab list or columns   -name: largest first   esc closes", classes="note")

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        known = [keys for _, keys in SORTS]
        options.highlighted = known.index(self.sort) if self.sort in known else 0
        (options if self.sort in known else self.query_one(Input)).focus()

    def action_to_list(self) -> None:
        """From the columns to the list."""
        self.query_one(OptionList).focus()

    def _keys(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.query_one(Input).value.split(",") if name.strip())

    def _problem(self) -> str:
        try:
            runs.find(self.home, sort=self._keys(), limit=1)
        except MmtuiError as error:
            return f"! {error.message}"
        return ""

    @on(Input.Changed, "#sort")
    def _changed(self) -> None:
        self.query_one("#found", Static).update(printable(self._problem()))

    @on(Input.Submitted, "#sort")
    def _submitted(self) -> None:
        if not self._problem():
            self.dismiss(self._keys())

    @on(OptionList.OptionSelected)
    def _taken(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(SORTS[event.option_index][1])


class ViewsDialog(Dialog):
    """Take a view that was kept, or keep the present one under a name; answers with its name and the view."""

    BINDINGS: ClassVar = [
        Binding("down", "to_list", show=False),
        Binding("ctrl+d,delete", "forget", show=False, priority=True),
    ]

    def __init__(self, home: Home, now: SavedView) -> None:
        super().__init__()
        self.home, self.now = home, now

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Views of the runs", classes="title")
            yield OptionList(id="views", markup=False)
            yield Static(f"now: {self.cut(printable(self.now.command()), ROOM)}", classes="note", markup=False)
            yield Input(placeholder="a name keeps what is shown now", id="name")
            yield Static("", id="problem", markup=False)
            yield Static("enter takes or keeps it   tab list or name   ctrl+d forgets it   esc closes", classes="note")

    def on_mount(self) -> None:
        self._fill()

    def _fill(self) -> None:
        try:
            self.views = saved_views.load(self.home)
        except MmtuiError as error:
            self.views = {}
            self.query_one("#problem", Static).update(printable(f"! {error.message}"))
        options = self.query_one(OptionList)
        options.clear_options()
        for name, view in self.views.items():
            options.add_option(Option(self.cut(printable(f"{name:16} {view.command()}"), ROOM), id=name))
        options.display = bool(self.views)
        options.highlighted = 0 if self.views else None
        (options if self.views else self.query_one(Input)).focus()

    def action_to_list(self) -> None:
        """From the name to the list."""
        if self.views:
            self.query_one(OptionList).focus()

    def action_forget(self) -> None:
        """Forget the view under the cursor."""
        options = self.query_one(OptionList)
        if options.has_focus and options.highlighted is not None:
            with suppress(NotFoundError):  # somebody else was quicker
                saved_views.remove(self.home, list(self.views)[options.highlighted])
            self._fill()

    @on(OptionList.OptionSelected)
    def _taken(self, event: OptionList.OptionSelected) -> None:
        name = str(event.option.id)
        self.dismiss((name, self.views[name]))

    @on(Input.Submitted, "#name")
    def _kept(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        try:
            saved_views.save(self.home, name, self.now)
        except MmtuiError as error:
            self.query_one("#problem", Static).update(printable(f"! {error.message}"))
            return
        self.dismiss((name, self.now))
