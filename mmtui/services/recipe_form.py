"""A recipe as a form: every key with its type, range, help, default, the recipe's value and the value now.

The form and the ``key=value`` words of a command line are two views of the same overrides: ``build`` reads them,
``with_value`` writes them. What is right is decided by the very code that reads command lines.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from engine.json_types import Json
from mmtui.domain import sweeps
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import recipes
from mmtui.services.field_types import YES_NO, TypeWords, describe, one_of

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from engine.config import Recipe

YOU, RECIPE = "you", "recipe"
ON, OFF = "on", "off"
MOST_LISTED = 8
_MISSING: Final = object()
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a recipe.

    Attributes:
        key: dotted key, as in overrides. A stage that can be left out has a field of its own, ``on`` or ``off``.
        type: what the key takes.
        help: what it means.
        default: the schema's default.
        recipe: the value in the recipe as it is kept; the default where the recipe has no such key.
        value: the value now; of a sweep that of its first run.
        text: the value now, as it is written behind ``key=``.
        changed_by: who changed it: ``you``, ``recipe`` (it is not the default) or "".
        values: what a sweep goes through, empty without one.
        problem: why the value is refused, "" if it is not.
    """

    key: str
    type: TypeWords
    help: str
    default: object
    recipe: object
    value: object
    text: str
    changed_by: str
    values: tuple[str, ...] = ()
    problem: str = ""
    stage: bool = False

    @property
    def toggles(self) -> bool:
        """Whether there are two values only: yes and no, on and off."""
        return self.stage or self.type.choices == YES_NO

    @property
    def values_text(self) -> str:
        """What a sweep goes through, as far as it is worth listing."""
        more = len(self.values) - MOST_LISTED
        return ", ".join(self.values[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")

    @property
    def recipe_text(self) -> str:
        """The recipe's value, as it is written."""
        return written(self.recipe, self.key)

    @property
    def default_text(self) -> str:
        """The default, as it is written."""
        return written(self.default, self.key)


@dataclass(frozen=True)
class Form:
    """A recipe with overrides.

    Attributes:
        recipe: its name.
        overrides: as typed.
        fields: in the order of the schema.
        resolved: the recipe with all overrides that are right; of a sweep its first run.
        problems: {override that is refused: why}.
    """

    recipe: str
    overrides: tuple[str, ...]
    fields: tuple[Field, ...]
    resolved: Recipe
    problems: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> Field | None:
        """The field of a key."""
        return next((one for one in self.fields if one.key == key), None)


def build(name: str, overrides: Sequence[str] = (), home: Home | None = None) -> Form:
    """The form of a recipe. Overrides that are wrong are told in their fields, and the others hold.

    Raises:
        UsageError: the recipe itself does not load.
    """
    before = _leaves(recipes.resolve(name, (), home))
    resolved, refused = _settle(name, overrides, home)
    kept = {key: found.value for key, found in before.items()}
    fields = [_with_override(found, kept, overrides, refused) for found in _leaves(resolved).values()]
    return Form(name, tuple(overrides), tuple(fields), resolved, refused)


def with_value(name: str, overrides: Sequence[str], key: str, text: str, home: Home | None = None) -> tuple[str, ...]:
    """The overrides after a key was given a value; none is left where the value is the recipe's own.

    Args:
        text: what stands behind ``key=``: ``a,b`` and ``0..4`` make a sweep. Empty text in a key that is no text
            takes the recipe's own value back. Stages take ``on`` and ``off``.

    Raises:
        UsageError: the recipe itself does not load.
    """
    if key in _stages() and text in (ON, OFF):
        return _with_stage(name, overrides, key, text, home)
    others = [one for one in overrides if sweeps.key_of(one) != key and not _below(one, key)]
    if not text.strip() and not recipes.holds_text(key):
        return tuple(others)
    place = next((number for number, one in enumerate(overrides) if sweeps.key_of(one) == key), len(overrides))
    place -= sum(sweeps.key_of(one) == key or _below(one, key) for one in overrides[:place])
    wanted = f"{key}={text}"
    changed = (*others[:place], wanted, *others[place:])
    if len(_members(wanted)) != 1:
        return changed
    after, refused = _settle(name, changed, home)
    if wanted in refused:
        return changed
    without, _ = _settle(name, others, home)
    return tuple(others) if _value(without, key) == _value(after, key) else changed


def without(overrides: Sequence[str], key: str) -> tuple[str, ...]:
    """The overrides without those of a key, and of a stage without those of its keys."""
    return tuple(one for one in overrides if sweeps.key_of(one) != key and not _below(one, key))


def written(value: object, key: str = "") -> str:
    """A value as it is written behind ``key=``; reading it gives the value again, and no sweep."""
    from engine.config.strict_yaml import load_value

    if key in _stages():
        return ON if value else OFF
    if not isinstance(value, str):
        return _json(value)
    same = load_value(value) == value and (not key or recipes.holds_text(key) or _is_one(f"{key}={value}"))
    return value if same else _json(value)


def _json(value: object, comma: str = ",", colon: str = ":") -> str:
    """JSON that is YAML too: what YAML takes for unprintable or the end of a line is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(comma, colon))
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _is_one(override: str) -> bool:
    try:
        return _members(override) == [override]
    except UsageError:
        return False


def plain(one: Field) -> dict[str, object]:
    """A field as plain data, for JSON."""
    return {
        "key": one.key,
        "type": one.type.words,
        "choices": [ON, OFF] if one.stage else list(one.type.choices),
        "low": one.type.low,
        "high": one.type.high,
        "low_excluded": one.type.low_open,
        "high_excluded": one.type.high_open,
        "nullable": one.type.nullable,
        "help": one.help,
        "default": one.default,
        "recipe": one.recipe,
        "value": one.value,
        "values": list(one.values),
        "changed_by": one.changed_by,
    }


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """One line of the resolved recipe.

    Attributes:
        text: the line; all of them together are YAML.
        key: the key that it is about.
        changed_by: as of the field.
        note: what stood there before, or what a sweep goes through; "" if there is nothing to say.
    """

    text: str
    key: str
    changed_by: str = ""
    note: str = ""


def preview(form: Form) -> tuple[PreviewLine, ...]:
    """The resolved recipe line by line."""
    by_key = {one.key: one for one in form.fields}
    return tuple(_preview(form.resolved.model_dump(mode="json"), by_key, ""))


def _preview(data: Mapping[str, Json], by_key: Mapping[str, Field], above: str) -> Iterator[PreviewLine]:
    indent = "  " * above.count(".")
    for name, value in data.items():
        key = f"{above}{name}"
        one = by_key.get(key)
        section = isinstance(value, dict) and (one is None or one.stage)
        changed_by = one.changed_by if one is not None else ""
        note = ""
        if one is not None and changed_by == YOU:
            note = f"sweep: {one.values_text}" if one.values else f"recipe: {one.recipe_text}"
            note = f"refused: {one.text}" if one.problem else note
        yield PreviewLine(f"{indent}{name}:{'' if section else f' {_yaml(value)}'}", key, changed_by, note)
        if section and isinstance(value, dict):
            yield from _preview(value, by_key, f"{key}.")


def _yaml(value: object) -> str:
    """A value on one line of YAML."""
    from engine.config.strict_yaml import StrictYamlError, load

    if not isinstance(value, str):
        return _json(value, ", ", ": ")
    try:
        same = bool(value) and value == value.strip() and load(f"x: {value}", "")[0] == {"x": value}
    except StrictYamlError:
        same = False
    return value if same else _json(value)


def _leaves(recipe: Recipe) -> dict[str, Field]:
    """Every key of a recipe as a field that nobody has changed."""
    return {one.key: one for one in _walk(recipe, recipe.model_dump(mode="json"), "")}


def _walk(model: BaseModel, data: Mapping[str, Json], above: str, parent: FieldInfo | None = None) -> Iterator[Field]:
    for name, info in type(model).model_fields.items():
        key, value, part = f"{above}{name}", data.get(name, {}), getattr(model, name)
        if key in _stages():
            words = TypeWords("stage: on or off", (OFF, ON))
            text = (_stages()[key].__doc__ or "").strip().partition("\n")[0]
            yield Field(key, words, text, _default(info) is not None, False, part is not None, "", "", stage=True)
        if hasattr(type(part), "model_fields"):
            yield from _walk(part, value if isinstance(value, Mapping) else {}, f"{key}.", info)
        elif parent is not None and parent.discriminator == name:
            default = getattr(parent.default, name)
            yield Field(key, one_of(_variants(parent, name)), info.description or "", default, default, value, "", "")
        elif key not in _stages():
            default = _default(info)
            yield Field(key, describe(info), info.description or "", default, default, value, "", "")


def _variants(section: FieldInfo, name: str) -> tuple[str, ...]:
    """The kinds that a section can be of."""
    models = typing.get_args(section.annotation)
    return tuple(choice for model in models for choice in typing.get_args(model.model_fields[name].annotation))


def _default(info: FieldInfo) -> object:
    value = info.get_default(call_default_factory=True, validated_data={})
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=1)
def _stages() -> dict[str, type[BaseModel]]:
    """Sections of a recipe that may be null."""
    from engine.config import Recipe

    found: dict[str, type[BaseModel]] = {}
    for name, info in Recipe.model_fields.items():
        kinds = [kind for kind in typing.get_args(info.annotation) if hasattr(kind, "model_fields")]
        if kinds and type(None) in typing.get_args(info.annotation):
            found[name] = kinds[0]
    return found


def _with_override(
    found: Field, kept: Mapping[str, object], overrides: Sequence[str], refused: Mapping[str, str]
) -> Field:
    """A field as the recipe and the overrides leave it."""
    own = [one for one in overrides if sweeps.key_of(one) == found.key and not found.stage]
    was = kept.get(found.key, found.default)
    text, problem = written(found.value, found.key), ""
    values: tuple[str, ...] = ()
    if own:
        text = own[-1].partition("=")[2]
        problem = refused.get(own[-1], "")
        members = [] if problem else _members(own[-1])
        values = tuple(one.partition("=")[2] for one in members) if len(members) > 1 else ()
    changed = found.value != was or bool(values) or bool(problem)
    changed_by = YOU if changed else RECIPE if found.value != found.default else ""
    return replace(found, recipe=was, text=text, values=values, problem=problem, changed_by=changed_by)


def _settle(name: str, overrides: Sequence[str], home: Home | None) -> tuple[Recipe, dict[str, str]]:
    """The recipe with as many of the overrides as can be, and {the others: why not}; of sweeps the first run.

    Raises:
        UsageError: the recipe itself does not load.
    """
    firsts: dict[str, str] = {}
    refused: dict[str, str] = {}
    for one in overrides:
        try:
            firsts[one] = _members(one)[0]
        except UsageError as error:
            refused[one] = error.message
    try:
        return recipes.resolve(name, list(firsts.values()), home), refused
    except UsageError:
        found = recipes.resolve(name, (), home)
    held: list[str] = []
    for one, text in firsts.items():
        try:
            found = recipes.resolve(name, [*held, text], home)
            held.append(text)
        except UsageError as error:
            refused[one] = error.message
    return found, refused


def _members(override: str) -> list[str]:
    """The values of a sweep over one key, each as an override.

    Raises:
        UsageError: a range that is none.
    """
    return [texts[0] for texts in sweeps.expand([override], recipes.holds_text)]


def _value(recipe: Recipe, key: str) -> object:
    part: object = recipe.model_dump(mode="json")
    for name in key.split("."):
        part = part.get(name, _MISSING) if isinstance(part, Mapping) else _MISSING
    return part


def _below(override: str, key: str) -> bool:
    return sweeps.key_of(override).startswith(f"{key}.")


def _with_stage(name: str, overrides: Sequence[str], key: str, text: str, home: Home | None) -> tuple[str, ...]:
    """Put a stage in or leave it out; its other overrides go with it."""
    others = without(overrides, key) if text == OFF else tuple(o for o in overrides if sweeps.key_of(o) != key)
    there = _value(_settle(name, others, home)[0], key) is not None
    if there == (text == ON):
        return others
    if text == OFF:
        return (*others, f"{key}=null")
    first, info = next(iter(_stages()[key].model_fields.items()))
    return (*others, f"{key}.{first}={written(_default(info))}")
