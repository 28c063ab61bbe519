"""The three panes of the dialog for new runs: recipes, the form of one, and the resolved recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.events import Key
from textual.widgets import Input

from mmtui.domain.text import duration, printable
from mmtui.domain.views import RecipeView
from mmtui.services.recipe_form import RECIPE, YOU, Field, PreviewLine
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.panels import Line, fit, fit_right
from mmtui.tui.widgets.pick_list import Item, PickList
from mmtui.tui.widgets.plot import Span

MARKS = {YOU: "*", RECIPE: "+"}
"""How a value that is not the default is marked: by whom it was changed."""
LEGEND = "* yours  + the recipe's"
NAME_WIDTH, DATA_WIDTH, COST_WIDTH, MIOU_WIDTH = 38, 10, 6, 5
KEY_WIDTH, VALUE_WIDTH, TYPE_WIDTH = 28, 16, 27
LEAST_DEFAULT = 9
_SCROLLS = {"j": 1, "down": 1, "k": -1, "up": -1, "pagedown": 15, "space": 15, "ctrl+d": 15, "pageup": -15}
_SCROLLS.update({"ctrl+u": -15, "g": -1_000_000, "home": -1_000_000, "G": 1_000_000, "end": 1_000_000})


class RecipeList(PickList):
    """Recipes with data set, cost and published number; what is not read yet is blank."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__("recipe", id="recipes")
        self.views: dict[str, RecipeView] = {}
        self.costs: dict[str, float | None] = {}
        self.items = [Item(name) for name in names]
        self.found = list(range(len(names)))

    def learn(self, found: Sequence[tuple[RecipeView, float | None]]) -> None:
        """Recipes that have been read, each with its cost in seconds, None = unknown."""
        for view, seconds in found:
            self.views[view.name], self.costs[view.name] = view, seconds
        self.set_items([self._item(item.key) for item in self.items])

    def _item(self, name: str) -> Item:
        view = self.views.get(name)
        return Item(name, f"{view.description} {view.data}" if view is not None else "")

    def header(self, width: int) -> str:
        return f"{'name':{self._names(width)}} {'data':{DATA_WIDTH}} {'cost':>{COST_WIDTH}} {'mIoU':>{MIOU_WIDTH}}  for"

    def _names(self, width: int) -> int:
        widest = max((len(item.key) for item in self.items), default=4)
        return min(widest, NAME_WIDTH, max(width - DATA_WIDTH - COST_WIDTH - MIOU_WIDTH - 5, 10))

    def row(self, key: str, width: int) -> Line:
        name = f"{fit(key, self._names(width), self.ascii_only)} "
        view = self.views.get(key)
        if view is None:
            return [(name, "")]
        style = "dim" if view.lacks else ""
        if view.error:
            return [(name, ""), (f"! {printable(view.error)}", "bad")]
        cost = fit_right(duration(self.costs.get(key)), COST_WIDTH)
        facts = f"{fit(view.data, DATA_WIDTH)} {cost} {fit_right(_percent(view.reference_miou), MIOU_WIDTH)}  "
        room = max(width - len(name) - len(facts), 0)
        return [(name, style), (facts, style), (fit(view.description, room, self.ascii_only), "dim")]

    def details(self, key: str, width: int) -> list[Line]:
        view = self.views.get(key)
        if view is None:
            return [[("reading it", "dim")]]
        if view.error:
            return self.wrapped(f"! {printable(view.error)}", width, "bad")
        plan = ", ".join(f"{name} {steps:,} steps" for name, steps in view.stages if name != "evaluate")
        cost = self.costs.get(key)
        about = f"about {duration(cost)}" if cost is not None else "cost unknown: nothing like it has run here"
        lines = self.wrapped(printable(view.description), width, "title")[:2]
        lines += self.wrapped(f"data {view.data}; {plan}; {about}", width)[:2]
        if view.reference_miou is not None:
            source = f" ({printable(view.reference_source)})" if view.reference_source else ""
            lines += self.wrapped(f"published mIoU {view.reference_miou:.1f}{source}", width)
        return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


class FormList(PickList):
    """Every key of the recipe with its value."""

    DETAILS = 5

    def __init__(self) -> None:
        super().__init__(f"form  {LEGEND} ", id="form")
        self.fields: Mapping[str, Field] = {}

    def set_fields(self, fields: Sequence[Field]) -> None:
        """Show the fields of a recipe, at first from the seed on: what stands above it is seldom changed."""
        first = not self.fields
        self.fields = {one.key: one for one in fields}
        self.set_items([Item(one.key, one.help) for one in fields])
        if first and self.fields:
            self.go_to("seed")

    @property
    def field(self) -> Field | None:
        """The field under the cursor."""
        return self.fields.get(self.key or "")

    def value_at(self) -> int:
        """The column in which values begin."""
        return 2 + 2 + KEY_WIDTH + 1

    def header(self, width: int) -> str:
        default = "  default" if width >= self._fixed() + LEAST_DEFAULT else ""
        return f"  {'key':{KEY_WIDTH}} {'value':{VALUE_WIDTH}}  {'takes':{TYPE_WIDTH}}{default}"

    def _fixed(self) -> int:
        return 2 + KEY_WIDTH + 1 + VALUE_WIDTH + 2 + TYPE_WIDTH

    def row(self, key: str, width: int) -> Line:
        one = self.fields[key]
        section, dot, name = key.rpartition(".")
        mark = "!" if one.problem else MARKS.get(one.changed_by, " ")
        style = "bad" if one.problem else "warn" if one.changed_by == YOU else "" if one.changed_by else "dim"
        room = max(width - 2 - KEY_WIDTH - 1 - VALUE_WIDTH - 2, 0)
        line: Line = [
            (f"{mark} ", style),
            (f"{section}{dot}", "dim"),
            (f"{name:{max(KEY_WIDTH - len(section) - len(dot), 0)}} ", "title" if one.stage else ""),
            (fit(one.text, VALUE_WIDTH, self.ascii_only) + "  ", style),
            (fit(one.type.words, min(room, TYPE_WIDTH), self.ascii_only), "dim"),
        ]
        if width >= self._fixed() + LEAST_DEFAULT:
            line.append(("  " + fit(one.default_text, width - self._fixed() - 2, self.ascii_only), "dim"))
        return line

    def details(self, key: str, width: int) -> list[Line]:
        one = self.fields[key]
        by = {YOU: "changed by you; del takes the recipe's own", RECIPE: "set by the recipe"}.get(
            one.changed_by, "the default"
        )
        lines: list[Line] = [[(key, "title"), (f"  {by}", "warn" if one.changed_by == YOU else "dim")]]
        if one.problem:
            said = one.problem.rpartition(f" {key}: ")[2]
            lines += self.wrapped(f"! {printable(said)}", width, "bad")[:2]
        lines += self.wrapped(one.help, width)[:2]
        facts = [f"takes {one.type.words}", f"default {_shown(one.default_text)}"]
        if one.recipe != one.default or one.changed_by == YOU:
            facts.append(f"recipe {_shown(one.recipe_text)}")
        if one.changed_by == YOU:
            facts.append(f"now {one.values_text or _shown(one.text)}")
        return [*lines, *self.wrapped(printable("; ".join(facts)), width, "dim")]


def _shown(text: str) -> str:
    return text or '""'


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


class Preview(LinesPanel, can_focus=True):
    """The resolved recipe, what was changed marked."""

    def __init__(self) -> None:
        super().__init__("resolved recipe", id="preview")
        self.head: list[str] = []
        self.lines: Sequence[PreviewLine] = ()
        self.offset_lines = 0
        self.lit = ""

    @property
    def ascii_only(self) -> bool:
        """Whether the terminal has ASCII alone."""
        return bool(getattr(self.app, "ascii_only", False))

    def set_lines(self, lines: Sequence[PreviewLine], head: Sequence[str] = ()) -> None:
        """Show a resolved recipe; ``head`` stands above it."""
        self.lines, self.head = lines, list(head)
        self.redraw()

    def reveal(self, key: str) -> None:
        """Scroll to the line of a key, and light it."""
        self.lit = key
        number = next((n for n, line in enumerate(self.lines) if line.key == key), None)
        room = self._room()
        if number is not None and not self.offset_lines + 2 <= number < self.offset_lines + room - 2:
            self.offset_lines = number - room // 3
        self.redraw()

    def _room(self) -> int:
        return max(self.body_height - len(self.head), 1)

    def redraw(self) -> None:
        """Draw the part that fits."""
        width, room = self.size.width, self._room()
        if not width or not self.is_attached:
            return
        self.offset_lines = min(max(self.offset_lines, 0), max(len(self.lines) - room, 0))
        shown = self.lines[self.offset_lines : self.offset_lines + room]
        drawn: list[list[Span]] = [[(fit(text, width, self.ascii_only), "title")] for text in self.head]
        drawn += [self._line(line, width) for line in shown]
        part = f" {self.offset_lines + 1}-{self.offset_lines + len(shown)}/{len(self.lines)}" if shown else ""
        self.show(drawn, f"resolved recipe{part}  {LEGEND}"[: max(width - 4, 0)])

    def _line(self, line: PreviewLine, width: int) -> list[Span]:
        mark = MARKS.get(line.changed_by, " ")
        style = "warn" if line.changed_by == YOU else ""
        note = f"  # {line.note}" if line.note else ""
        text = fit(line.text, width - 2, self.ascii_only).rstrip()
        lit = "title" if line.key == self.lit and not style else style
        left = max(width - 2 - len(text), 0)
        return [(f"{mark} ", style), (text, lit), (fit(note, left, self.ascii_only).rstrip(), "dim")]

    def on_key(self, event: Key) -> None:
        """Scroll."""
        steps = _SCROLLS.get(event.character or "") or _SCROLLS.get(event.key)
        if steps:
            event.stop()
            self.offset_lines += steps
            self.redraw()

    def on_mouse_scroll_down(self) -> None:
        """The wheel scrolls."""
        self.offset_lines += 3
        self.redraw()

    def on_mouse_scroll_up(self) -> None:
        """The wheel scrolls."""
        self.offset_lines -= 3
        self.redraw()

    def on_resize(self) -> None:
        self.redraw()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
