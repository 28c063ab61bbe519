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

from mmtui.domain.text import duration, printable
from mmtui.domain.views import RecipeView
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import forecast, forks, recipes
from mmtui.tui.screens.dialogs import Dialog

KEYS = "type to find a recipe   tab next field   enter queue it   esc close"
NAME_WIDTH = 36
MOST_CHECKED = 20
"""Members of a sweep that are checked while one types; all are when they are queued."""
DIALOG_WIDTH = 110
MARGIN = 10
"""Columns of a dialog's border, padding and scroll bar."""


@dataclass(frozen=True)
class NewRun:
    """What is to be queued."""

    recipe: str
    overrides: tuple[str, ...]
    name: str
    options: tuple[str, ...] = ()

    def command(self) -> str:
        """The command line that queues it, without ``mmtui``."""
        name = ("--name", self.name) if self.name else ()
        return shlex.join(["run", self.recipe, *self.overrides, *name, *self.options])


class NewRunDialog(Dialog):
    """Answers with a ``NewRun`` that has been checked, or with None."""

    def __init__(self, home: Home, like: NewRun | None = None, title: str = "New run") -> None:
        super().__init__()
        self.home, self.like, self.heading = home, like, title
        self.views: list[RecipeView] = recipes.list_recipes(home)
        self.costs = forecast.Costs(home)
        self.sought = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.heading, classes="title", markup=False)
            yield OptionList(*self._options(), id="recipes", markup=False)
            yield Static("", id="about", classes="note", markup=False)
            with Horizontal(classes="field"):
                yield Label("overrides")
                yield Input(placeholder="segment.steps=200 seed=0..4   (a,b or 0..4: one run each)", id="overrides")
            with Horizontal(classes="field"):
                yield Label("name")
                yield Input(placeholder="the recipe's name", id="name")
            with Horizontal(classes="field"):
                yield Label("options")
                yield Input(placeholder="as of mmtui run: --gpus 2 --priority 1 --hold --time-limit 2h", id="options")
            yield Static("", id="verdict", markup=False)
            yield Static(KEYS, id="keys", classes="note", markup=False)

    def _options(self) -> list[Option]:
        """One line a recipe: names in full, as far as the dialog is wide, then what they are for."""
        room = max(min(self.app.size.width, DIALOG_WIDTH) - MARGIN, 20)
        widest = min(max((len(view.name) for view in self.views), default=0), NAME_WIDTH)
        return [Option(self._line(view, widest, room), id=view.name) for view in self.views]

    def _line(self, view: RecipeView, name_width: int, room: int) -> str:
        """Never wider than ``room``: a line that wraps pushes the others off the list."""
        name = self.cut(printable(view.name), name_width).ljust(name_width)
        return self.cut(f"{name}  {printable(view.error or view.description)}", room)

    def on_mount(self) -> None:
        self.query_one("#recipes", OptionList).highlighted = 0 if self.views else None
        self.query_one("#recipes").focus()
        if self.like is not None:
            names = [view.name for view in self.views]
            if self.like.recipe in names:
                self.query_one("#recipes", OptionList).highlighted = names.index(self.like.recipe)
            self.query_one("#overrides", Input).value = shlex.join(self.like.overrides)
            self.query_one("#name", Input).value = self.like.name
            self.query_one("#options", Input).value = shlex.join(self.like.options)
            self.query_one("#overrides").focus()
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
        overrides, options = (_words(self.query_one(f"#{name}", Input).value) for name in ("overrides", "options"))
        return NewRun(self.recipe.name, overrides, self.query_one("#name", Input).value.strip(), options)

    def check(self) -> bool:
        """Say what would be run, or what is wrong; True if it can be queued."""
        verdict, about = self.query_one("#verdict", Static), self.query_one("#about", Static)
        wanted, view = self.entered(), self.recipe
        if wanted is None or view is None:
            verdict.update("no recipes are installed")
            return False
        published = f", published mIoU {view.reference_miou:.1f}" if view.reference_miou is not None else ""
        about.update(f"{view.description}  (data: {view.data}{published})")
        try:
            members = recipes.sweep(wanted.recipe, wanted.overrides, self.home)
            several = [recipes.resolve(wanted.recipe, texts, self.home) for texts in members[:MOST_CHECKED]]
            origin = forks.named_in(wanted.options)
            forked = "".join(dict.fromkeys(f"; {forks.describe(self.home, origin, one)}" for one in several if origin))
        except MmtuiError as error:
            verdict.update(printable(error.message))
            verdict.set_classes("problem")
            return False
        resolved, count = several[0], len(members)
        plan = ", ".join(f"{name} {steps} steps" for name, steps in resolved.stages() if name != "evaluate")
        times = [self.costs.seconds(one) for one in several]
        known = [seconds for seconds in times if seconds is not None]
        cost = f"; about {duration(sum(known) * count / len(known))}" if known else ""
        runs = f"{count} runs, each {plan}" if count > 1 else f"{plan}; seed {resolved.seed}"
        verdict.update(f"ok: {runs}{'' if forked else cost}{printable(forked)}")
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


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())
