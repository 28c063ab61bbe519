"""``key.path=value`` overrides, and the list of keys that a recipe knows, both from the schema."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config.schema import FolderData, ProxyConfig, Recipe, ShapesData


class RecipeFileError(ValueError):
    """A recipe or an override is wrong; the message is one sentence for a person."""


@dataclass(frozen=True)
class Override:
    """One parsed override."""

    key: str
    value: Any
    text: str


@dataclass(frozen=True)
class KeyInfo:
    """One key of a recipe, for forms, completion and help."""

    key: str
    type: str
    description: str
    default: Any


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Parse ``key.path=value`` texts. The value is read as a YAML scalar or list; the schema gives it its type."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Override:
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeFileError(f"override '{text}': write key=value, for example seed=1 or segment.steps=200")
    known = {info.key for info in valid_keys()} | set(_sections())
    # Names of classes in reference.per_class are the user's own.
    if key not in known and not key.startswith("reference.per_class."):
        raise RecipeFileError(f"override '{text}': no key '{key}'{nearest_key_hint(key)}")
    try:
        value = yaml.safe_load(raw) if raw.strip() else ""
    except yaml.YAMLError:
        value = raw
    if key in _sections() and value is not None:
        raise RecipeFileError(f"override '{text}': '{key}' is a section; write {key}.name=value, or {key}=null")
    return Override(key, value, text)


def apply_override(data: dict[str, Any], override: Override) -> None:
    """Set the key in plain recipe data, making sections on the way (a section that is null becomes default)."""
    *sections, last = override.key.split(".")
    part = data
    for section in sections:
        if not isinstance(part.get(section), dict):
            part[section] = {}
        part = part[section]
    part[last] = override.value


@lru_cache(maxsize=1)
def valid_keys() -> tuple[KeyInfo, ...]:
    """Every key that can be overridden, in schema order, with type, description and default."""
    seen: dict[str, KeyInfo] = {}
    for info in _walk(Recipe, ""):
        seen.setdefault(info.key, info)
    return tuple(seen.values())


@lru_cache(maxsize=1)
def _sections() -> frozenset[str]:
    keys = [info.key for info in valid_keys()]
    return frozenset(key.rpartition(".")[0] for key in keys if "." in key)


def _walk(model: type[BaseModel], prefix: str) -> Iterator[KeyInfo]:
    for name, info in model.model_fields.items():
        models = list(_models(info.annotation))
        if not models:
            yield KeyInfo(f"{prefix}{name}", type_text(info), info.description or "", info.get_default())
        for inner in models:
            yield from _walk(inner, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
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


def _annotation_text(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("null" if a is type(None) else _annotation_text(a) for a in arguments)
    if origin is tuple:
        inner = [_annotation_text(a) for a in arguments if a is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    if origin is dict:
        return "mapping"
    return {"str": "text", "bool": "true | false"}.get(getattr(annotation, "__name__", ""), str(annotation.__name__))


def nearest_key_hint(key: str) -> str:
    """What the user may have meant, as the end of a sentence; "" if nothing comes near."""
    keys = [info.key for info in valid_keys()]
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not close:
        last = key.rpartition(".")[2]
        close = [k for k in keys if k.rpartition(".")[2] == last][:1]
    if not close:
        section = key.partition(".")[0]
        names = sorted(k for k in keys if k.startswith(f"{section}."))[:6]
        return f"; keys there are {', '.join(names)}" if names else ""
    return f"; did you mean {close[0]}?"


_SECTION_NAMES = {cls.model_fields["kind"].default for cls in (ShapesData, FolderData, ProxyConfig)}


def describe_error(error: Mapping[str, Any]) -> tuple[str, str]:
    """(dotted key, problem in words) of one pydantic error."""
    location = [str(part) for part in error["loc"] if str(part) not in _SECTION_NAMES]
    names = [part for part in location if not part.isdigit()]
    key = ".".join(names)
    info = next((info for info in valid_keys() if info.key == key), None)
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return key, "there is no such key"
    if kind == "value_error":
        return key, str(error["ctx"]["error"]) if "ctx" in error else str(error["msg"])
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return f"{key}.kind", "write kind: shapes or kind: folder"
    if info is not None:
        return key, f"{value!r} is not allowed; write {info.type}"
    return key, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value!r}"


