"""Launch a run: pick a recipe, change what is to be changed, see at once whether it is right."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from mmtui.domain.text import printable, shorten
from mmtui.domain.views import RecipeView
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import recipes
from mmtui.tui.screens.dialogs import Dialog

KEYS = "type to find a recipe   tab next field   enter queue it   esc close"
NAME_WIDTH = 36
DIALOG_WIDTH = 110
MARGIN = 10
"""Columns of a dialog's border, padding and scroll bar."""


@dataclass(frozen=True)
class NewRun:
    """What is to be queued."""

    recipe: str
    overrides: tuple[str, ...]
    name: str


class NewRunDialog(Dialog):
    """Answers with a ``NewRun`` that has been checked, or with None."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self.views: list[RecipeView] = recipes.list_recipes(home)
        self.sought = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("New run", classes="title")
            yield OptionList(*self._options(), id="recipes", markup=False)
            yield Static("", id="about", classes="note", markup=False)
            with Horizontal(classes="field"):
                yield Label("overrides")
                yield Input(placeholder="key=value key=value, e.g. segment.steps=200 seed=1", id="overrides")
            with Horizontal(classes="field"):
                yield Label("name")
                yield Input(placeholder="the recipe's name", id="name")
            yield Static("", id="verdict", markup=False)
            yield Static(KEYS, id="keys", classes="note", markup=False)

    def _options(self) -> list[Option]:
        """One line a recipe: names in full, as far as the dialog is wide, then what they are for."""
        room = max(min(self.app.size.width, DIALOG_WIDTH) - MARGIN, 20)
        widest = min(max((len(view.name) for view in self.views), default=0), NAME_WIDTH)
        return [Option(_line(view, widest, room), id=view.name) for view in self.views]

    def on_mount(self) -> None:
        self.query_one("#recipes", OptionList).highlighted = 0 if self.views else None
        self.query_one("#recipes").focus()
        self.check()

    @property
    def recipe(self) -> RecipeView | None:
        """The recipe under the cursor."""
        index = self.query_one("#recipes", OptionList).highlighted
        return self.views[index] if index is not None and index < len(self.views) else None

    def entered(self) -> NewRun | None:
        """What the fields say, None without a recipe."""
        if self.recipe is None:
            return None
        text = self.query_one("#overrides", Input).value
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        return NewRun(self.recipe.name, tuple(words), self.query_one("#name", Input).value.strip())

    def check(self) -> bool:
        """Say what would be run, or what is wrong; True if it can be queued."""
        verdict, about = self.query_one("#verdict", Static), self.query_one("#about", Static)
        wanted, view = self.entered(), self.recipe
        if wanted is None or view is None:
            verdict.update("no recipes are installed")
            return False
        about.update(f"{view.description}  (data: {view.data})")
        try:
            resolved = recipes.resolve(wanted.recipe, wanted.overrides, self.home)
        except MmtuiError as error:
            verdict.update(printable(error.message))
            verdict.set_classes("problem")
            return False
        plan = ", ".join(f"{name} {steps} steps" for name, steps in resolved.stages() if name != "evaluate")
        verdict.update(f"ok: {plan}; seed {resolved.seed}")
        verdict.set_classes("good")
        return True

    def on_key(self, event: Key) -> None:
        """Letters typed on the list go to the first recipe whose name has them."""
        found = self.query_one("#recipes", OptionList)
        if self.focused is not found:
            return
        if event.key == "backspace":
            self.sought = self.sought[:-1]
        elif event.character is not None and event.character.isprintable() and event.character.strip():
            self.sought += event.character.lower()
        else:
            self.sought = "" if event.key in ("up", "down", "pageup", "pagedown") else self.sought
        index = next((i for i, view in enumerate(self.views) if self.sought in view.name.lower()), None)
        if self.sought and index is None:
            self.sought = self.sought[:-1]
        elif self.sought:
            found.highlighted = index
        self.query_one("#keys", Static).update(f"find: {self.sought}" if self.sought else KEYS)

    @on(Input.Changed)
    @on(OptionList.OptionHighlighted)
    def _on_change(self) -> None:
        self.check()

    @on(OptionList.OptionSelected)
    def _on_recipe_chosen(self) -> None:
        self.query_one("#overrides").focus()

    @on(Input.Submitted)
    def _on_submit(self) -> None:
        if self.check():
            self.dismiss(self.entered())


def _line(view: RecipeView, name_width: int, room: int) -> str:
    """Never wider than ``room``: a line that wraps pushes the others off the list."""
    name = shorten(printable(view.name), name_width).ljust(name_width)
    return shorten(f"{name}  {printable(view.error or view.description)}", room)
