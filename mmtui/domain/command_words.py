"""The words of a plain command line, read by the declarations of what it takes (``mmtui.domain.options``).

Understood is what scripts and fingers mostly write: arguments, ``--name value``, ``--name=value``, ``-n 5`` and flags.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtui.domain.options import Argument, Option

_NUMBERS = {int: "a whole number", float: "a number"}


class NotPlain(Exception):
    """The words are not understood; says why."""


@dataclass(slots=True)
class Shape:
    """What a command takes: its arguments in order, and its options by each of their names."""

    arguments: list[inspect.Parameter] = field(default_factory=list)
    options: dict[str, tuple[inspect.Parameter, Option]] = field(default_factory=dict)


def shape_of(command: Callable[..., object]) -> Shape:
    """What a function, or a class, with declared parameters takes."""
    shape = Shape()
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        declared = parameter.annotation.__metadata__[0]
        if isinstance(declared, Argument):
            shape.arguments.append(parameter)
        else:
            shape.options.update(dict.fromkeys(declared.flags, (parameter, declared)))
    return shape


def read(shape: Shape, words: Sequence[str]) -> dict[str, Any]:
    """{parameter: value} of everything that is given.

    Raises:
        NotPlain: the words cannot be read.
    """
    values: dict[str, Any] = {}
    positional: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            positional, left = [*positional, *left], []
        elif not word.startswith("-") or word == "-":
            positional.append(word)
        else:
            _option(shape, word, left, values)
    for parameter, declared in shape.options.values():
        if parameter.default is parameter.empty and parameter.name not in values:
            raise NotPlain(f"{declared.flags[0]} is missing")
    return {**values, **_positional(shape.arguments, positional)}


def _option(shape: Shape, word: str, left: list[str], values: dict[str, Any]) -> None:
    """Read an option; its value may be the first of the words that are left, and is then taken from them."""
    name, equals, text = word.partition("=")
    if name not in shape.options or (equals and not name.startswith("--")):
        raise NotPlain(_unknown(name, shape))
    parameter, declared = shape.options[name]
    kind, many = kind_of(parameter)
    if kind is bool:
        if equals:
            raise NotPlain(f"{name} takes no value: write {name} alone")
        values[parameter.name] = True
        return
    if not equals:
        if not left:
            raise NotPlain(f"{name} lacks its value: write it behind {name}")
        text = left.pop(0)
    value = _convert(kind, text, name, declared.minimum)
    values[parameter.name] = [*values.get(parameter.name, []), value] if many else value


def _unknown(name: str, shape: Shape) -> str:
    import difflib  # which takes longer to load than all the rest

    near = difflib.get_close_matches(name, shape.options, n=1)
    return f"there is no option {name}" + (f": did you mean {near[0]}?" if near else "")


def _positional(arguments: Sequence[inspect.Parameter], words: list[str]) -> dict[str, Any]:
    """Arguments in order; the last may take all that is left."""
    values: dict[str, Any] = {}
    for parameter in arguments:
        kind, many = kind_of(parameter)
        if many and words:
            values[parameter.name], words = [_convert(kind, word, parameter.name) for word in words], []
        elif words:
            values[parameter.name], words = _convert(kind, words[0], parameter.name), words[1:]
        elif parameter.default is parameter.empty:
            raise NotPlain(f"{parameter.name} is missing")
    if words:
        raise NotPlain(f"'{words[0]}' is one word too many")
    return values


def kind_of(parameter: inspect.Parameter) -> tuple[type, bool]:
    """(type of one value, whether it takes many)."""
    annotation = parameter.annotation.__origin__
    if isinstance(annotation, types.UnionType):
        (annotation,) = [item for item in annotation.__args__ if item is not type(None)]
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0], True
    return annotation, False


def _convert(kind: type, text: str, name: str, minimum: int | None = None) -> Any:
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise NotPlain(f"{name} {text}: write {_NUMBERS[kind]}") from None
    if minimum is not None and value < minimum:
        raise NotPlain(f"{name} {text}: write at least {minimum}")
    return value
