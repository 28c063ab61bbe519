"""``key.path=value`` overrides, and the list of keys that a recipe knows, both from the schema."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from engine.config.backbones import Written
from engine.config.schema import CityscapesData, FolderData, ProxyConfig, Recipe, ShapesData, VocData
from engine.config.strict_yaml import StrictYamlError, load, load_value
from engine.json_types import Json, JsonObject

TEXT, BOOLEAN, MAPPING = "text", "true | false", "mapping | null"
_DATA_KINDS: dict[str, type[BaseModel]] = {
    "shapes": ShapesData,
    "folder": FolderData,
    "voc": VocData,
    "cityscapes": CityscapesData,
}
_DEFAULT_SECTIONS: Mapping[str, JsonObject] = {"data": {"kind": "shapes"}}


_NAMED_BY_USERS = ("reference.per_class.", "data.label_map.", "segment.class_weights.")
"""Below these stand names of classes and values of masks."""
_NUMBERS_BY_NAME = ("reference.per_class", "segment.class_weights")
PUBLISHED = "reference"
"""The section that computes nothing, so that it can be left out."""


class RecipeFileError(ValueError):
    """A recipe or an override is wrong; the message is one sentence for a person."""


@dataclass(frozen=True)
class Override:
    """One parsed override."""

    key: str
    value: Json
    text: str


@dataclass(frozen=True)
class KeyInfo:
    """One key of a recipe, for forms, completion and help."""

    key: str
    type: str
    description: str
    default: object


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Parse ``key.path=value`` texts. The value is read as a YAML scalar or list; the schema gives it its type."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Override:
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeFileError(f"override '{text}': write key=value, for example seed=1 or segment.steps=200")
    info = _by_key().get(key)
    section = key in _sections()
    if info is None and not section and not key.startswith(_NAMED_BY_USERS):
        raise RecipeFileError(f"override '{text}': no key '{key}'{nearest_key_hint(key)}")
    value = load_value(raw)
    if info is not None and info.type == TEXT and not isinstance(value, str):
        value = raw.strip()
    if info is not None and info.type == MAPPING and isinstance(value, str):
        _refuse_text(text, raw)
    if section and value is not None:
        null = f", or {key}=null" if key in _nullable_sections() else ""
        raise RecipeFileError(f"override '{text}': '{key}' is a section; write {key}.name=value{null}")
    return Override(key, value, text)


def _refuse_text(text: str, raw: str) -> None:
    """Raise RecipeFileError with what keeps a value from being a mapping, if it was meant to be one."""
    try:
        load(raw, "", numbers=True)
    except StrictYamlError as error:
        raise RecipeFileError(f"override '{text}': {str(error).removeprefix('line 1: ')}") from None


def apply_override(data: JsonObject, override: Override) -> None:
    """Set the key in plain recipe data, making sections on the way (a section that is null becomes default).

    Another ``kind`` drops the keys of the section that the new kind does not have.
    """
    *sections, last = _parts(override.key)
    part = data
    for section in sections:
        inner = part.get(section)
        if not isinstance(inner, dict):
            inner = part[section] = dict(_DEFAULT_SECTIONS.get(section, {}))
        part = inner
    if override.key == "data.kind" and isinstance(override.value, str):
        for name in [name for name in part if kind_lacks(override.value, name)]:
            del part[name]
    part[last] = override.value


def _parts(key: str) -> list[str]:
    """Names of the sections and of the key in the last one; what users name may have points in it."""
    above = next((names for names in _NAMED_BY_USERS if key.startswith(names)), "")
    rest = key.removeprefix(above)
    return [*above.split(".")[:-1], rest] if above else rest.split(".")


def kind_lacks(kind: str, name: str) -> bool:
    """Whether data of a kind that there is have no such key."""
    return kind in _DATA_KINDS and name not in _DATA_KINDS[kind].model_fields


def is_mapping(key: str) -> bool:
    """Whether users name what stands below a key, such as classes: one value, which a child of a recipe adds to."""
    return key in _by_key() and _by_key()[key].type == MAPPING


def drop_nulls(data: JsonObject) -> None:
    """Take out of plain recipe data what null takes off the base: mappings, and published numbers."""
    for key in (PUBLISHED, *filter(is_mapping, _by_key())):
        section, _, last = key.rpartition(".")
        part = data.get(section) if section else data
        if isinstance(part, dict) and last in part and part[last] is None:
            del part[last]


ONCE_BOOLEAN = frozenset({"runtime.halve_on_oom"})
"""Keys whose older values true and false the schema still reads."""


def find_boolean(data: Mapping[str, Json]) -> tuple[str, str] | None:
    """(key, problem) of the first true or false that stands where a number belongs: Python would take it as 1 or 0."""
    for info in valid_keys():
        value: Json = data
        for part in info.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        values = value if isinstance(value, list) else [value]
        if info.type != BOOLEAN and info.key not in ONCE_BOOLEAN and any(isinstance(item, bool) for item in values):
            return info.key, f"{str(value).lower()} is not allowed; write {info.type}"
        for name, item in value.items() if isinstance(value, Mapping) and info.key in _NUMBERS_BY_NAME else ():
            if isinstance(item, bool):
                return f"{info.key}.{name}", f"{str(item).lower()} is not allowed; write a number"
    return None


@lru_cache(maxsize=1)
def valid_keys() -> tuple[KeyInfo, ...]:
    """Every key that can be overridden, in schema order, with type, description and default."""
    seen: dict[str, KeyInfo] = {}
    for info in _walk(Recipe, ""):
        first = seen.setdefault(info.key, info)
        if not first.type.startswith(info.type):
            seen[info.key] = replace(first, type=f"{first.type} | {info.type}")
    return tuple(seen.values())


@lru_cache(maxsize=1)
def _by_key() -> dict[str, KeyInfo]:
    return {info.key: info for info in valid_keys()}


@lru_cache(maxsize=1)
def _sections() -> frozenset[str]:
    keys = [info.key for info in valid_keys()]
    return frozenset(key.rpartition(".")[0] for key in keys if "." in key)


@lru_cache(maxsize=1)
def _nullable_sections() -> frozenset[str]:
    optional = (name for name, info in Recipe.model_fields.items() if type(None) in typing.get_args(info.annotation))
    return frozenset((PUBLISHED, *optional)) & _sections()


def _walk(model: type[BaseModel], prefix: str) -> Iterator[KeyInfo]:
    for name, info in model.model_fields.items():
        models = list(_models(info.annotation))
        if not models:
            yield KeyInfo(f"{prefix}{name}", type_text(info), info.description or "", _default(info))
        for inner in models:
            yield from _walk(inner, f"{prefix}{name}.")


def _default(info: FieldInfo) -> object:
    return info.default_factory() if info.default_factory is not None else info.default  # type: ignore[call-arg]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _models(argument)


def type_text(info: FieldInfo) -> str:
    """The type and range of a field in words, for example ``int >= 1`` or ``rgb | gray``."""
    text = _annotation_text(info.annotation)
    bounds = []
    for constraint in info.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if hasattr(constraint, name):
                bounds.append(f"{sign} {getattr(constraint, name)}")
    return " ".join([text, *bounds])


def _annotation_text(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        forms = [item.form for item in arguments[1:] if isinstance(item, Written)]
        return forms[0] if forms else _annotation_text(arguments[0])
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if a is type(None) else _annotation_text(a) for a in arguments)
    if origin is tuple:
        inner = [_annotation_text(a) for a in arguments if a is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if origin is dict:
        return MAPPING
    name = str(getattr(annotation, "__name__", annotation))
    return {"str": TEXT, "bool": BOOLEAN}.get(name, name)


def nearest_key_hint(key: str) -> str:
    """What the user may have meant, as the end of a sentence; "" if nothing comes near, or there is such a key."""
    if key in _by_key():
        return ""
    section, _, last = key.rpartition(".")
    keys = [info.key for info in valid_keys()]
    names = {name: name.rpartition(".") for name in [*keys, *sorted(_sections())]}
    siblings = {own: name for name, (parent, _, own) in names.items() if parent == section}
    near = [siblings[name] for name in difflib.get_close_matches(last, siblings, n=1)]
    near += difflib.get_close_matches(key, names, n=1, cutoff=0.8)
    near += [name for name in keys if names[name][2] == last]
    if near:
        return f"; did you mean {near[0]}?"
    return f"; keys there are {', '.join(siblings)}" if siblings else ""


_SECTION_NAMES = {*_DATA_KINDS, ProxyConfig.model_fields["kind"].default}


def describe_error(error: ErrorDetails) -> tuple[str, str]:
    """(dotted key, problem in words) of one pydantic error."""
    location = [str(part) for part in error["loc"] if str(part) not in _SECTION_NAMES]
    names = [part for part in location if not part.isdigit()]
    key = ".".join(names)
    info = _by_key().get(key)
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return key, _unknown_key(error["loc"])
    if kind == "value_error":
        return key, str(error["ctx"]["error"]) if "ctx" in error else str(error["msg"])
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return f"{key}.kind", f"write kind: {' or kind: '.join(_DATA_KINDS)}"
    for mapping in _NUMBERS_BY_NAME:
        if key.startswith(f"{mapping}."):
            return key, _no_number(key.removeprefix(f"{mapping}."), value)
    if key in _sections():
        first = next(name for name in _by_key() if name.startswith(f"{key}."))
        rest = "or null for none" if key in _nullable_sections() else "or leave it out"
        return key, f"{_shown(value)} is not allowed; write keys of it, such as {first}, {rest}"
    if info is not None:
        what = f'{info.type}, for example "{value}" in quotes' if info.type == TEXT else info.type
        what = "{name: value}, or null for none" if info.type == MAPPING else what
        return key, f"{_shown(value)} is not allowed; write {what}"
    return key, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value!r}"


def _no_number(name: str, value: object) -> str:
    """What is wrong with the value of a name that has to have a number."""
    if value is None and ":" in name:
        first, _, second = name.partition(":")
        return f"{{{name}}} has no blank behind the colon: write {{{first}: {second or 2}}}"
    return f"{_shown(value)} is not allowed; write a number"


def _unknown_key(location: Sequence[str | int]) -> str:
    """What is wrong with a key that the table it stands in has not."""
    others = [kind for kind, model in _DATA_KINDS.items() if location[-1] in model.model_fields]
    if location[0] != "data" or not others:
        return "there is no such key"
    return f"data.kind={location[1]} has no such key; it belongs to data.kind={' or '.join(others)}"


def _shown(value: object) -> str:
    """A value as the user wrote it, shortened."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or (f"'{value}'" if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
