"""A parser for plain command lines that needs neither Typer nor pydantic.

Whatever ``mmtui.domain.command_words`` does not understand (``--help``, an unknown option, a wrong number, a missing
argument) it leaves to Typer, which then says what is wrong: so there is one set of messages, and a command line means
the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmtui.cli import verbs
from mmtui.domain.command_words import NotPlain, read, shape_of
from mmtui.domain.options import taken


def parse(argv: Sequence[str]) -> tuple[verbs.Verb, dict[str, Any]] | None:
    """The verb of a command line (without the program's name) and its values; None if Typer must look at it."""
    name, rest = " ".join(argv[:1]), list(argv[1:])
    if name in verbs.GROUPS:
        name, rest = " ".join(argv[:2]), list(argv[2:])
    if verbs.ALIASES.get(name, name) not in verbs.VERBS:
        return None
    verb = verbs.load(name)
    try:
        return verb, taken(verb, read(shape_of(verb), rest))
    except NotPlain:
        return None
