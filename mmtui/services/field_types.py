"""What a key of the recipe schema takes, in words and numbers, from the metadata of its pydantic field. Pure."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_NOUNS: dict[object, str] = {int: "integer", float: "number", str: "text", bool: "true or false"}
_Side: TypeAlias = Literal["low", "high"]
_OpenSide: TypeAlias = Literal["low_open", "high_open"]
_BOUNDS: tuple[tuple[str, _Side, _OpenSide, bool], ...] = (
    ("ge", "low", "low_open", False),
    ("gt", "low", "low_open", True),
    ("le", "high", "high_open", False),
    ("lt", "high", "high_open", True),
)
YES_NO = ("false", "true")


class Limits(TypedDict, total=False):
    """The smallest and the largest number allowed, and whether they are excluded themselves."""

    low: float
    high: float
    low_open: bool
    high_open: bool


@dataclass(frozen=True, slots=True)
class TypeWords:
    """What a key takes.

    Attributes:
        words: the type and range for people, for example ``integer >= 1`` or ``one of rgb, gray``.
        choices: all values there are, as they are written; empty where there are too many.
        low: smallest number allowed (excluded where ``low_open``), None = no limit.
        high: largest number allowed (excluded where ``high_open``), None = no limit.
        nullable: whether null is allowed.
        text: whether it is free text.
    """

    words: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    nullable: bool = False
    text: bool = False


def describe(info: FieldInfo) -> TypeWords:
    """What a field takes."""
    kind, nullable = _without_null(info.annotation)
    limits = Limits()
    for constraint in info.metadata:
        for sign, side, open_side, is_open in _BOUNDS:
            if hasattr(constraint, sign):
                limits[side] = getattr(constraint, sign)
                limits[open_side] = is_open
    least = next((c.min_length for c in info.metadata if hasattr(c, "min_length")), 0)
    noun, choices = _noun(kind, least)
    words = " ".join(part for part in (noun, _range(**limits)) if part) + (", or null" if nullable else "")
    return TypeWords(words, choices, **limits, nullable=nullable, text=kind is str)


def one_of(choices: tuple[str, ...]) -> TypeWords:
    """One of several words."""
    return TypeWords(f"one of {', '.join(choices)}" if len(choices) > 1 else f"always {choices[0]}", choices)


def _without_null(annotation: object) -> tuple[object, bool]:
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    kept = [part for part in typing.get_args(annotation) if part is not type(None)]
    return (kept[0] if len(kept) == 1 else annotation), len(kept) < len(typing.get_args(annotation))


def _noun(kind: object, least: int) -> tuple[str, tuple[str, ...]]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        found = one_of(tuple(str(argument) for argument in arguments))
        return found.words, found.choices
    if origin in (typing.Union, types.UnionType):
        return _word_or_text(arguments)
    if origin is tuple:
        first = arguments[0]
        inner = _NOUNS[typing.get_args(first)[0] if typing.get_origin(first) is typing.Annotated else first]
        several = inner if inner == "text" else f"{inner}s"
        if Ellipsis in arguments:
            return f"list of {several}{f', at least {least}' if least else ''}", ()
        return f"list of {len(arguments)} {several}", ()
    if origin is dict:
        inner = " or ".join(_NOUNS[one] for one in typing.get_args(arguments[1]) or [arguments[1]])
        return f"mapping of text to {inner}", ()
    return _NOUNS[kind], YES_NO if kind is bool else ()


def _word_or_text(arguments: tuple[object, ...]) -> tuple[str, tuple[str, ...]]:
    """One of several words, or a text of some form, which is the last of the arguments."""
    *words, text = arguments
    _, choices = _noun(words[0], 0)
    return f"one of {', '.join(choices)}, or {typing.get_args(text)[1].form}", choices


def _range(low: float | None = None, high: float | None = None, low_open: bool = False, high_open: bool = False) -> str:
    """``>= 1``, ``0-1``, ``> 0, <= 4``; "" without a limit."""
    if low is not None and high is not None and not low_open and not high_open:
        return f"{_number(low)}-{_number(high)}"
    parts = []
    if low is not None:
        parts.append(f"{'>' if low_open else '>='} {_number(low)}")
    if high is not None:
        parts.append(f"{'<' if high_open else '<='} {_number(high)}")
    return ", ".join(parts)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
