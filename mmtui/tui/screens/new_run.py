"""Launch a run: pick a recipe, change what is to be changed, see at once whether it is right and what it would cost."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.events import DescendantBlur, DescendantFocus, Key
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from mmtui.domain.text import duration, printable
from mmtui.domain.views import RecipeView, RunDetail
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import forecast, forks, inputs, recipe_form, recipes
from mmtui.services.recipe_form import Field, Form
from mmtui.services.recipes import Sample
from mmtui.tui.screens.dialogs import Dialog
from mmtui.tui.widgets.pick_list import PickList
from mmtui.tui.widgets.recipe_panes import FormList, Preview, RecipeList

WIDE = 120
"""From this width on the resolved recipe stands beside the other panes."""
MOST_CHECKED = 8
"""Runs of a sweep that are checked while one types; all are when they are queued."""
MOST_CHECKED_AT_LAST = 64
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


def like_run(home: Home, detail: RunDetail) -> NewRun:
    """A new run like one there is; a fork begins where that one began.

    Where its recipe is no longer known by name, the one that it was queued with.
    """
    tie = detail.parent
    origin = ("--from", f"{tie.run}@{tie.global_step}") if tie is not None and tie.here else ()
    if detail.row.recipe in recipes.names(home):
        return NewRun(detail.row.recipe, detail.overrides, "", origin)
    return NewRun(detail.paths["recipe"], (), "", origin)


class Edit(Input):
    """The value of one field, where it stands in the form."""

    choices: tuple[str, ...] = ()

    def on_key(self, event: Key) -> None:
        """Left and right go through the choices, as long as one of them stands there."""
        if event.key in ("left", "right") and self.value in self.choices:
            event.stop()
            event.prevent_default()
            self.value = following(self.choices, self.value, 1 if event.key == "right" else -1)


def following(choices: Sequence[str], now: str, steps: int) -> str:
    """The choice that comes after another, or before it; round at the ends."""
    place = choices.index(now) if now in choices else -1 if steps > 0 else 0
    return choices[(place + steps) % len(choices)]


class NewRunDialog(Dialog):
    """Answers with a ``NewRun`` that has been checked, or with None."""

    BINDINGS: ClassVar = [
        Binding("tab", "turn(1)", "next field", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", "previous field", show=False, priority=True),
        Binding("ctrl+g", "queue_soon", "queue it", show=False, priority=True),
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
        self.costs: forecast.Costs | None = None
        self.form: Form | None = None
        self.ready = False
        self.checked: NewRun | None = None
        """What was entered when it was last checked."""
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
        self._tell("reading recipes", "")
        self.call_after_refresh(self._load)

    # ---- reading recipes, in a thread: the first needs the schema, all together take some tenths of a second --------

    @work(thread=True, group="recipes", exit_on_error=False)
    def _load(self) -> None:
        # The one under the cursor first: with it everything that reading needs is imported.
        if self.at in self.files:
            recipes.load(self.files[self.at])
        try:
            costs: forecast.Costs | None = forecast.Costs(self.home)
        except MmtuiError:
            costs = None
        self._from_thread(self._begin, costs)
        names = sorted(self.files, key=lambda name: name != self.at)
        for start in range(0, len(names), AT_ONCE):
            found = [recipes.load(self.files[name]) for name in names[start : start + AT_ONCE]]
            priced = [(view, costs.seconds(recipe) if costs and recipe else None) for view, recipe in found]
            self._from_thread(self.recipe_list.learn, priced)

    def _from_thread(self, told: Callable[..., None], value: Any) -> None:
        if self.app.is_running and self.is_running:
            self.app.call_from_thread(told, value)

    def _begin(self, costs: forecast.Costs | None) -> None:
        self.costs, self.ready = costs, True
        self.check()

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
        return _words(self._input("overrides").value)

    def entered(self) -> NewRun | None:
        """What the fields say, None without a recipe."""
        name = self.recipe_list.key
        if name is None:
            return None
        return NewRun(name, self.overrides, self._input("name").value.strip(), _words(self._input("options").value))

    def check(self, most: int = MOST_CHECKED) -> bool:
        """Show what would be run and say what it costs, or what is wrong; True if it can be queued."""
        wanted = self.entered()
        if wanted is None:
            return self._tell("no recipes are installed", "problem")
        if not self.ready:
            return False
        self.checked = wanted
        try:
            self.form = recipe_form.build(wanted.recipe, wanted.overrides, self.home)
            self.form_list.set_fields(self.form.fields)
            for problem in self.form.problems.values():
                self._show_preview(self.form, None)
                return self._tell(printable(problem), "problem")
            sample = self._sample(wanted, most)
            self._show_preview(self.form, sample)
            self._refuse_lacking(sample, wanted.options)
            summary = self._summary(sample, forks.named_in(wanted.options))
        except MmtuiError as error:
            return self._tell(printable(error.message), "problem")
        return self._tell(summary, "good")

    def _sample(self, wanted: NewRun, most: int) -> Sample:
        """Some of the runs that the command line means."""
        options, overrides = wanted.options, list(wanted.overrides)
        for number, word in enumerate(options):
            if word.startswith("--seed"):
                seed = word.partition("=")[2] or next(iter(options[number + 1 :]), "")
                overrides.append(f"seed={seed}")
        zipped, smoke = "--zip" in options, "--smoke" in options
        return recipes.sample(wanted.recipe, overrides, self.home, most=most, zipped=zipped, smoke=smoke)

    def _refuse_lacking(self, sample: Sample, options: Sequence[str]) -> None:
        """Raises UsageError if what the runs read is not there, as queueing them does."""
        words = " ".join(options).replace("=", " ").split()
        later = bool({"--after", "--delay", "slurm"} & set(words))
        origin = forks.named_in(options)
        for one in sample.recipes if "--hold" not in words else ():
            taken = forks.taken(forks.plan(self.home, forks.parse(self.home, origin), one)) if origin else ()
            inputs.refuse_lacking(one, later=later, taken=taken)

    def _summary(self, sample: Sample, origin: str) -> str:
        """Steps and cost; of a fork what is taken over and what is trained.

        Raises:
            MmtuiError: there is no such checkpoint, or it does not fit the recipe.
        """
        first = sample.recipes[0]
        plan = ", ".join(f"{name} {steps} steps" for name, steps in first.stages() if name != "evaluate")
        each = "each" if all(one.stages() == first.stages() for one in sample.recipes) else "the first"
        times = [self.costs.seconds(one) for one in sample.recipes] if self.costs is not None else []
        known = [seconds for seconds in times if seconds is not None]
        cost = f"; about {duration(sum(known) * sample.count / len(known))}" if known else ""
        several = f"{sample.count} runs, {each} {plan}"
        told = dict.fromkeys(f"; {forks.describe(self.home, origin, one)}" for one in sample.recipes if origin)
        forked = printable("".join(told))
        return f"ok: {several if sample.count > 1 else f'{plan}; seed {first.seed}'}{forked or cost}"

    def _show_preview(self, form: Form, sample: Sample | None) -> None:
        head = []
        if sample is not None and sample.count > 1:
            swept = [one for one in form.fields if one.values]
            head = [f"{sample.count} runs; the first of them is shown"]
            head += [f"  {one.key} = {one.values_text}" for one in swept]
        self.preview.set_lines(recipe_form.preview(form), head)

    def _tell(self, text: str, kind: str) -> bool:
        verdict = self.query_one("#verdict", Static)
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
            self._end_edit(keep=self.form is not None and not self._problem())

    def action_turn(self, steps: int) -> None:
        """The next pane or field."""
        focused = self.focused.id if self.focused is not None else None
        here = "form" if focused == "edit" else focused if focused in RING else self.pane
        name = RING[(RING.index(str(here)) + steps) % len(RING)]
        if name in PANES:
            self._show_pane(name)
        self.query_one(f"#{name}", Widget).focus()

    # ---- the recipe and its form ------------------------------------------------------------------------------------

    @on(PickList.Moved)
    def _moved(self, event: PickList.Moved) -> None:
        if event.list is self.recipe_list:
            self.check()
        else:
            self.preview.reveal(self.form_list.key or "")

    @on(PickList.Chosen)
    def _chosen(self, event: PickList.Chosen) -> None:
        if event.list is self.recipe_list:
            self._input("overrides").focus()
            return
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
            self._turn_value(event.steps)

    @on(PickList.Cleared)
    def _cleared(self, event: PickList.Cleared) -> None:
        one = self.form_list.field
        if event.list is self.form_list and one is not None:
            self._set_overrides(recipe_form.without(self.overrides, one.key))
            self.check()

    def _turn_value(self, steps: int) -> None:
        """The next of a field's choices."""
        one = self.form_list.field
        if one is not None and one.type.choices:
            self._write(one, self.overrides, following(one.type.choices, one.text, steps))

    def _write(self, one: Field, overrides: tuple[str, ...], text: str) -> None:
        """Give a field a value."""
        if self.form is not None:
            self._set_overrides(recipe_form.with_value(self.form.recipe, overrides, one.key, text, self.home))
            self.check()
            self.preview.reveal(one.key)

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
            self._set_overrides(before)
            self.check()
        if focused:
            self.form_list.focus()

    @on(Input.Changed, "#edit")
    def _edit_changed(self, event: Input.Changed) -> None:
        if self.edited is not None:
            self._write(self.edited[0], self.edited[1], event.value)

    @on(Input.Submitted, "#edit")
    def _edit_submitted(self) -> None:
        if not self._problem():
            self._end_edit(keep=True)

    @on(Input.Changed, "#overrides, #options")
    def _on_change(self, event: Input.Changed) -> None:
        # Behind the keys that wait already: of a line that is pasted, or typed faster than it is checked, the last
        # state counts.
        event.input.call_later(self._check_again)

    def _check_again(self) -> None:
        if self.is_current and self.is_attached and self.entered() != self.checked:
            self.check()

    # ---- the end ----------------------------------------------------------------------------------------------------

    @on(Input.Submitted, "#overrides, #name, #options")
    def action_queue(self) -> None:
        """Queue what was entered, if it is right."""
        if self.check(MOST_CHECKED_AT_LAST):
            self.dismiss(self.entered())

    def action_queue_soon(self) -> None:
        """The same, behind the letters that wait for the field that has the focus."""
        (self.focused or self).call_later(self.action_queue)

    def on_key(self, event: Key) -> None:
        """Enter on the resolved recipe queues it."""
        if event.key == "enter" and self.focused is self.preview:
            event.stop()
            self.action_queue()

    def action_dismiss_dialog(self) -> None:
        """Leave the field that is edited, else close without an answer; changes are thrown away at the second time."""
        if self.edited is not None:
            self._end_edit(keep=False)
        elif self.overrides not in (self.asked_about, self.like.overrides if self.like is not None else ()):
            self.asked_about = self.overrides
            self._tell("esc once more throws the changes away; ctrl+g queues them", "problem")
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


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())
