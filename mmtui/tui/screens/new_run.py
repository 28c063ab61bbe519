"""Launch a run: pick a recipe, change what is to be changed, see at once whether it is right and what it would cost."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.events import DescendantBlur, DescendantFocus, Key
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from mmtui.domain.text import printable
from mmtui.domain.views import RecipeView
from mmtui.paths import Home
from mmtui.services import forecast, recipe_form, recipes
from mmtui.services.recipe_form import Field, Form
from mmtui.services.recipes import Sample
from mmtui.services.run_check import RunCheck
from mmtui.tui import faults
from mmtui.tui.screens.dialogs import Dialog
from mmtui.tui.screens.run_checker import MOST_CHECKED, Pending, RunChecker
from mmtui.tui.screens.run_request import NewRun, words_of
from mmtui.tui.widgets.pick_list import PickList
from mmtui.tui.widgets.recipe_panes import Edit, FormList, Preview, RecipeList, following

WIDE = 120
"""From this width on the resolved recipe stands beside the other panes."""
MOST_CHECKED_AT_LAST = 64
"""Runs of a sweep that are checked before they are queued."""
Answer = TypeVar("Answer")
AT_ONCE = 8
"""Recipes that are read between two pictures."""
FIRST = "shapes_mixmatch"
"""Where the cursor stands when nothing has run: a recipe that needs no data and a minute."""
PANES = ("recipes", "form", "preview")
RING = (*PANES, "overrides", "name", "options")
"""Where tab goes, in this order."""
KEYS: dict[str, tuple[str, ...]] = {
    "recipes": ("letters find", "enter type changes", "tab form", "ctrl+g queue it", "esc close"),
    "form": (
        "letters find",
        "enter edit",
        "left/right choose",
        "ctrl+g queue it",
        "tab preview",
        "del recipe's own",
        "esc close",
    ),
    "edit": ("enter take it", "esc leave it", "a,b or 0..4: one run each", "empty: the recipe's"),
    "preview": ("j/k scroll", "enter queue it", "tab next field", "esc close"),
    "": ("enter queue it", "tab next", "shift+tab back", "esc close"),
}
"""What keys do where the focus is; as many are told as fit."""


class NewRunDialog(Dialog):
    """Answers with a ``NewRun`` that has been checked, or with None."""

    BINDINGS: ClassVar = [
        Binding("tab", "turn(1)", "next field", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", "previous field", show=False, priority=True),
        Binding("ctrl+g", "queue", "queue it", show=False, priority=True),
    ]

    def __init__(self, home: Home, like: NewRun | None = None, title: str = "New run", at: str = FIRST) -> None:
        """A dialog that begins with a run like another, or else with the cursor ``at`` a recipe."""
        super().__init__()
        self.home, self.like, self.title_text = home, like, title
        self.files = recipes.names(home)
        names = list(self.files)
        if like is not None and like.recipe not in self.files:
            names.insert(0, like.recipe)
        self.recipe_list, self.form_list, self.preview = RecipeList(names), FormList(), Preview()
        self.at = like.recipe if like is not None else at
        self.checker = RunChecker(home, self)
        self.form: Form | None = None
        self.busy = False
        """Keys wait until what a key has asked for is done; see ``mmtui.tui.key_order``."""
        self.queueing = False
        """Whether that is to queue the run."""
        self.revealed = ""
        """The key that the resolved recipe is to show once it is checked."""
        self.pane, self.left = "recipes", "recipes"
        self.asked_about: tuple[str, ...] | None = None
        """The overrides of which was said that they will be lost."""
        self.edited: tuple[Field, tuple[str, ...]] | None = None
        """The field that is being edited, and the overrides before that."""

    def compose(self) -> ComposeResult:
        like = self.like or NewRun("", (), "")
        with Vertical(classes="box"):
            yield Static("", id="tabs", classes="title", markup=False)
            with Horizontal(id="panes"):
                with Container(id="left"):
                    yield self.recipe_list
                    yield self.form_list
                    yield Edit(id="edit")
                yield self.preview
            with Horizontal(classes="field"):
                yield Label("overrides")
                placeholder = "segment.steps=200 seed=0..4   (a,b or 0..4: one run each)"
                yield Input(shlex.join(like.overrides), placeholder=placeholder, id="overrides")
            with Horizontal(classes="field"):
                yield Label("name")
                yield Input(like.name, placeholder="the recipe's name", id="name")
            with Horizontal(classes="field"):
                yield Label("options")
                placeholder = "as of mmtui run: --gpus 2 --priority 1 --hold --time-limit 2h"
                yield Input(shlex.join(like.options), placeholder=placeholder, id="options")
            yield Static("", id="verdict", markup=False)
            yield Static("", id="keys", classes="note", markup=False)

    def on_mount(self) -> None:
        self.recipe_list.go_to(self.at)
        self._show_pane("recipes" if self.like is None else "form")
        self.query_one(f"#{self.pane}").focus()
        self.tell("reading recipes", "")
        if self.pane == "form":
            self._when_settled(lambda: None)
        self.call_after_refresh(self._load)

    # ---- reading recipes, in a thread: the first needs the schema, all together take some tenths of a second --------

    @work(thread=True, group="recipes", exit_on_error=False)
    def _load(self) -> None:
        # The one under the cursor first: with it everything that reading needs is imported.
        if self.at in self.files:
            self._load_one(self.at, None)
        try:
            costs: forecast.Costs | None = forecast.Costs(self.home)
        except Exception as error:
            costs = None
            faults.told(self.home, "what runs cost", error)
        self._from_thread(self._begin, costs)
        names = sorted(self.files, key=lambda name: name != self.at)
        for start in range(0, len(names), AT_ONCE):
            priced = [self._load_one(name, costs) for name in names[start : start + AT_ONCE]]
            self._from_thread(self.recipe_list.learn, [one for one in priced if one is not None])

    def _load_one(self, name: str, costs: forecast.Costs | None) -> tuple[RecipeView, float | None] | None:
        """A recipe and what it would cost; None if it fails: the others are read all the same."""
        try:
            view, recipe = recipes.load(self.files[name])
            return view, costs.seconds(recipe) if costs and recipe else None
        except Exception as error:
            faults.told(self.home, f"the recipe {name}", error)
            return None

    def _from_thread(self, told: Callable[[Answer], None], value: Answer) -> None:
        if self.app.is_running and self.is_running:
            self.app.call_from_thread(told, value)

    def _begin(self, costs: forecast.Costs | None) -> None:
        self.checker.begin(costs)
        if self.entered() is None:
            self.tell("no recipes are installed", "problem")
        self.look()

    # ---- what was entered -------------------------------------------------------------------------------------------

    @property
    def views(self) -> list[str]:
        """Names of the recipes there are."""
        return [item.key for item in self.recipe_list.items]

    @property
    def recipe(self) -> RecipeView | None:
        """The recipe under the cursor, None before it is read."""
        return self.recipe_list.views.get(self.recipe_list.key or "")

    def _input(self, name: str) -> Input:
        return self.query_one(f"#{name}", Input)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides as they are typed."""
        return words_of(self._input("overrides").value)

    def entered(self) -> NewRun | None:
        """What the fields say, None without a recipe or when they are gone."""
        name = self.recipe_list.key
        if name is None or not self.query("#options"):
            return None
        return NewRun(name, self.overrides, self._input("name").value.strip(), words_of(self._input("options").value))

    def write(self, overrides: Sequence[str], key: str) -> None:
        """Take overrides in which the value of a key was changed."""
        self._set_overrides(overrides)
        self.revealed = key

    @work(group="check")
    async def look(self) -> None:
        """Check what is entered, in a thread."""
        await self.checker.look()

    async def check(self, most: int = MOST_CHECKED) -> bool:
        """Check what is entered now, and show what was found; True if it can be queued."""
        wanted = self.entered()
        if wanted is None:
            return self.tell("no recipes are installed", "problem")
        return (await self.checker.check(wanted, most)).good

    def show(self, found: RunCheck) -> None:
        """Show what was found about what is entered."""
        if not self.query("#verdict"):
            return
        if found.form is not None:
            self.form = found.form
            self.form_list.set_fields(found.form.fields)
            if found.sample is not None or found.form.problems:
                self._show_preview(found.form, found.sample)
        if self.revealed:
            self.preview.reveal(self.revealed)
            self.revealed = ""
        self.tell(found.verdict, "good" if found.good else "problem")

    def _when_settled(self, deed: Callable[[], None]) -> None:
        """Do what needs the form of what is entered; the keys behind wait until it is done."""
        if self.checker.settled:
            deed()
        else:
            self.busy = True
            self._do_when_settled(deed)

    @work(group="deed")
    async def _do_when_settled(self, deed: Callable[[], None]) -> None:
        try:
            await self.checker.settle()
            if self.is_current:
                deed()
        finally:
            self.busy = False

    def _show_preview(self, form: Form, sample: Sample | None) -> None:
        head = []
        if sample is not None and sample.count > 1:
            swept = [one for one in form.fields if one.values]
            head = [f"{sample.count} runs; the first of them is shown"]
            head += [f"  {one.key} = {one.values_text}" for one in swept]
        self.preview.set_lines(recipe_form.preview(form), head)

    def tell(self, text: str, kind: str) -> bool:
        """Say a line below the fields; True if it is a good one."""
        for verdict in self.query("#verdict").results(Static):  # none if the dialog is closed
            verdict.update(self.cut(text, 400))
            verdict.set_classes(kind)
        return kind == "good"

    # ---- panes and the focus ----------------------------------------------------------------------------------------

    def _show_pane(self, name: str) -> None:
        """Show a pane, alone where the terminal is narrow."""
        self.pane = name
        self.left = name if name != "preview" else self.left
        wide = self.app.size.width >= WIDE
        self.query_one("#panes").set_class(wide, "wide")
        self.query_one("#left").display = wide or name != "preview"
        self.recipe_list.display = self.left == "recipes"
        self.form_list.display = self.left == "form"
        self.preview.display = wide or name == "preview"
        labels = {"recipes": "recipe", "form": "form", "preview": "preview"}
        tabs = "  ".join(f"[{label}]" if key == name else f" {label} " for key, label in labels.items())
        self.query_one("#tabs", Static).update(self.cut(f"{printable(self.title_text)}   {tabs}", 200))

    def on_resize(self) -> None:
        self._show_pane(self.pane)
        self._place_edit()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Tell the keys of what has the focus; panes come to the front."""
        name = event.widget.id or ""
        if name in PANES:
            self._show_pane(name)
        self.query_one("#keys", Static).update(_hints(KEYS.get(name, KEYS[""]), self.app.size.width - 4))

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Who leaves a field takes what is right and leaves what is not."""
        if event.widget.id == "edit" and self.edited is not None:
            self._when_settled(lambda: self._end_edit(keep=self.form is not None and not self._problem()))

    def action_turn(self, steps: int) -> None:
        """The next pane or field."""
        focused = self.focused.id if self.focused is not None else None
        here = "form" if focused == "edit" else focused if focused in RING else self.pane
        name = RING[(RING.index(str(here)) + steps) % len(RING)]
        if name in PANES:
            self._show_pane(name)
        self.query_one(f"#{name}", Widget).focus()
        if name == "form":
            self._when_settled(lambda: None)  # letters are for the form of the recipe that was chosen

    # ---- the recipe and its form ------------------------------------------------------------------------------------

    @on(PickList.Moved)
    def _moved(self, event: PickList.Moved) -> None:
        if event.list is self.recipe_list:
            self.look()
        else:
            self.preview.reveal(self.form_list.key or "")

    @on(PickList.Chosen)
    def _chosen(self, event: PickList.Chosen) -> None:
        if event.list is self.recipe_list:
            self._input("overrides").focus()
        else:
            self._when_settled(self._choose_field)

    def _choose_field(self) -> None:
        one = self.form_list.field
        if one is None or self.form is None:
            return
        if one.toggles:
            self._turn_value(1)
        else:
            self._begin_edit(one)

    @on(PickList.Turned)
    def _turned(self, event: PickList.Turned) -> None:
        if event.list is self.form_list:
            self._when_settled(partial(self._turn_value, event.steps))

    @on(PickList.Cleared)
    def _cleared(self, event: PickList.Cleared) -> None:
        if event.list is self.form_list:
            self._when_settled(self._clear_value)

    def _clear_value(self) -> None:
        one = self.form_list.field
        if one is not None:
            self._set_overrides(recipe_form.without(self.overrides, one.key))
            self.look()

    def _turn_value(self, steps: int) -> None:
        """The next of a field's choices."""
        one = self.form_list.field
        if one is not None and one.type.choices:
            self._write(one, self.overrides, following(one.type.choices, one.text, steps))

    def _write(self, one: Field, overrides: tuple[str, ...], text: str) -> None:
        """Give a field a value."""
        if self.form is not None:
            self.checker.pending = Pending(self.form.recipe, overrides, one.key, text)
            self.look()

    def _set_overrides(self, overrides: Sequence[str]) -> None:
        with self.prevent(Input.Changed):
            self._input("overrides").value = shlex.join(overrides)

    def _begin_edit(self, one: Field) -> None:
        self.edited = (one, self.overrides)
        edit = self.query_one("#edit", Edit)
        edit.choices = one.type.choices
        with self.prevent(Input.Changed):
            edit.value = one.text
        edit.placeholder = one.recipe_text
        self._place_edit()
        edit.display = True
        edit.focus()

    def _place_edit(self) -> None:
        edit, x = self.query_one("#edit", Edit), self.form_list.value_at()
        edit.styles.offset = (x, self.form_list.row_at())
        edit.styles.width = max(self.form_list.size.width - x, 10)

    def _problem(self) -> str:
        """Why the field that is edited cannot have its value, "" if it can."""
        field = self.form_list.fields.get(self.edited[0].key) if self.edited is not None else None
        return field.problem if field is not None else ""

    def _end_edit(self, *, keep: bool) -> None:
        if self.edited is None:
            return
        _, before = self.edited
        self.edited = None
        edit = self.query_one("#edit", Edit)
        focused = edit.has_focus
        edit.display = False
        if not keep:
            self.checker.pending = None
            self._set_overrides(before)
            self.look()
        if focused:
            self.form_list.focus()

    @on(Input.Changed, "#edit")
    def _edit_changed(self, event: Input.Changed) -> None:
        if self.edited is not None:
            self._write(self.edited[0], self.edited[1], event.value)

    @on(Input.Submitted, "#edit")
    def _edit_submitted(self) -> None:
        self._when_settled(self._take_edit)

    def _take_edit(self) -> None:
        if not self._problem():
            self._end_edit(keep=True)

    @on(Input.Changed, "#overrides, #options")
    def _on_change(self) -> None:
        self.look()

    # ---- the end ----------------------------------------------------------------------------------------------------

    @on(Input.Submitted, "#overrides, #name, #options")
    def action_queue(self) -> None:
        """Queue what was entered, if it is right."""
        if not self.busy:
            self.busy = self.queueing = True
            self._queue()

    @work(group="deed")
    async def _queue(self) -> None:
        try:
            await self.checker.settle()
            wanted = self.entered()
            if await self.check(MOST_CHECKED_AT_LAST) and self.is_current:
                self.dismiss(wanted)
        finally:
            self.busy = self.queueing = False

    def on_key(self, event: Key) -> None:
        """Enter on the resolved recipe queues it."""
        if event.key == "enter" and self.focused is self.preview:
            event.stop()
            self.action_queue()

    def action_dismiss_dialog(self) -> None:
        """Leave the field that is edited, else close without an answer; changes are thrown away at the second time."""
        self.workers.cancel_group(self, "deed")
        self.busy = False
        if self.queueing:
            self.queueing = False
            self.tell("stopped: nothing was queued", "problem")
        elif self.edited is not None:
            self._end_edit(keep=False)
        elif self.overrides not in (self.asked_about, self.like.overrides if self.like is not None else ()):
            self.asked_about = self.overrides
            self.tell("esc once more throws the changes away; ctrl+g queues them", "problem")
        else:
            self.dismiss(None)


def _hints(hints: Sequence[str], width: int) -> str:
    """As many hints as fit."""
    text = ""
    for hint in hints:
        if len(text) + len(hint) > width:
            break
        text += f"{hint}  "
    return text.rstrip()
