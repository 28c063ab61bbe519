"""A parser for plain command lines that needs neither Typer nor pydantic.

It understands what scripts and fingers mostly write: a verb, its arguments, ``--name value``, ``--name=value``,
``-n 5`` and flags. Whatever else it meets (``--help``, an unknown option, a wrong number, a missing argument) it leaves
to Typer, which then says what is wrong: so there is one set of messages, and a command line means the same in both.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmtui.cli import verbs
from mmtui.cli.options import Argument, Option, taken


class _NotPlain(Exception):
    """The command line is one for Typer."""


@dataclass(slots=True)
class _Shape:
    """What a verb takes."""

    arguments: list[inspect.Parameter] = field(default_factory=list)
    options: dict[str, tuple[inspect.Parameter, Option]] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> tuple[verbs.Verb, dict[str, Any]] | None:
    """The verb of a command line (without the program's name) and its values; None if Typer must look at it."""
    name, rest = " ".join(argv[:1]), list(argv[1:])
    if name in verbs.GROUPS:
        name, rest = " ".join(argv[:2]), list(argv[2:])
    if verbs.ALIASES.get(name, name) not in verbs.VERBS:
        return None
    verb = verbs.load(name)
    try:
        return verb, taken(verb, _values(_shape(verb), rest))
    except _NotPlain:
        return None


def _shape(verb: verbs.Verb) -> _Shape:
    shape = _Shape()
    for parameter in inspect.signature(verb, eval_str=True).parameters.values():
        declared = parameter.annotation.__metadata__[0]
        if isinstance(declared, Argument):
            shape.arguments.append(parameter)
        else:
            shape.options.update(dict.fromkeys(declared.flags, (parameter, declared)))
    return shape


def _values(shape: _Shape, words: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    positional: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, equals, text = word.partition("=")
        if name not in shape.options or (equals and not name.startswith("--")):
            raise _NotPlain
        parameter, declared = shape.options[name]
        kind, many = _kind(parameter)
        if kind is bool:
            if equals:
                raise _NotPlain
            values[parameter.name] = True
            continue
        if not equals:
            if not words or words[0].startswith("-"):
                raise _NotPlain
            text = words.pop(0)
        value = _convert(kind, text, declared.minimum)
        values[parameter.name] = [*values.get(parameter.name, []), value] if many else value
    if any(p.default is p.empty and p.name not in values for p, _ in shape.options.values()):
        raise _NotPlain
    values.update(_positional(shape.arguments, positional))
    return values


def _positional(arguments: Sequence[inspect.Parameter], words: list[str]) -> dict[str, Any]:
    """Arguments in order; the last may take all that is left."""
    values: dict[str, Any] = {}
    for parameter in arguments:
        kind, many = _kind(parameter)
        if many and words:
            values[parameter.name], words = [_convert(kind, word) for word in words], []
        elif words:
            values[parameter.name], words = _convert(kind, words[0]), words[1:]
        elif parameter.default is parameter.empty:
            raise _NotPlain
    if words:
        raise _NotPlain
    return values


def _kind(parameter: inspect.Parameter) -> tuple[type, bool]:
    """(type of one value, whether it takes many)."""
    annotation = parameter.annotation.__origin__
    if isinstance(annotation, types.UnionType):
        (annotation,) = [item for item in annotation.__args__ if item is not type(None)]
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)[0], True
    return annotation, False


def _convert(kind: type, text: str, minimum: int | None = None) -> Any:
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise _NotPlain from None
    if minimum is not None and value < minimum:
        raise _NotPlain
    return value
