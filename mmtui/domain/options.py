"""How verbs declare what they take, and the declarations that several share.

A verb is a plain function whose annotated parameters carry an ``Argument`` or an ``Option``. Three readers use the same
declarations: Typer (``mmtui.cli.app``: help, errors, completion), the quick parser of the command line
(``mmtui.cli.fast``), which does without Typer and pydantic and so starts in a third of the time, and the screen, for
the options that are typed into its form (``mmtui.services.run_line``).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from engine.text import as_text
from mmtui.errors import UsageError

Words = TypeVar("Words")
"""A class whose fields are the parameters of a verb."""

FILES = frozenset({"file", "html", "output", "overrides", "recipe", "run", "source"})
"""Parameters of verbs that may name files: those are found by their bytes, whatever these are."""

FORMS = {
    "as_json": "--json",
    "as_jsonl": "--jsonl",
    "as_csv": "--csv",
    "as_markdown": "--md",
    "as_latex": "--latex",
    "html": "--html",
}
"""Parameters that each ask for the whole answer in one form."""

LARGEST = 10**15
"""Of whole numbers; a database holds them, and so does a float."""

FILTER = "filter_"
"""The parameter that holds a filter, in which a backslash has a meaning."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional parameter. ``complete`` names what the shell offers: "runs", "recipes" ... or nothing."""

    help: str
    complete: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter by name; ``flags`` is everything it is called, ``minimum`` the smallest number allowed."""

    flags: tuple[str, ...]
    help: str
    minimum: int | None = None
    complete: str = ""


def taken(verb: Callable[..., object], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a verb is called with, from what stands on a command line.

    Raises:
        UsageError: the answer is asked for in two forms, or a number is none that can be counted with.
    """
    for name, value in values.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UsageError(f"{_called(verb, name)} {value}: write a whole number of at most {LARGEST:,}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{_called(verb, name)} {value}: write a number that is not infinite")
    forms = [flag for name, flag in FORMS.items() if values.get(name)]
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)} are two forms of one answer", "ask for one of them")
    return storable(values)


def _called(verb: Callable[..., object], name: str) -> str:
    """What a parameter is called on a command line."""
    declared = inspect.signature(verb, eval_str=True).parameters[name].annotation.__metadata__[0]
    return declared.flags[0] if isinstance(declared, Option) else name


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a command line with what is no UTF-8 in them spelled out, but for names of files."""
    kept = {name: value if name in FILES else _storable(value) for name, value in values.items() if name != FILTER}
    if values.get(FILTER):
        from mmtui.domain import filters

        kept[FILTER] = filters.storable(values[FILTER])
    return kept


def _storable(value: object) -> object:
    if isinstance(value, str):
        return as_text(value)
    return [_storable(item) for item in value] if isinstance(value, list) else value


def option(*flags: str, help: str, minimum: int | None = None, complete: str = "") -> Option:
    """An option that is called by any of ``flags``."""
    return Option(flags, help, minimum, complete)


def declared_by(words: type[Words]) -> Callable[[Callable[[Words], int]], Callable[..., int]]:
    """Makes a verb of a function that takes the words of a command line as one value, whose class declares them."""

    def made(verb: Callable[[Words], int]) -> Callable[..., int]:
        def taking(**values: Any) -> int:
            return verb(words(**values))

        functools.update_wrapper(taking, verb)
        taking.__signature__ = inspect.signature(words, eval_str=True)  # type: ignore[attr-defined]
        return taking

    return made


RunArgument = Annotated[str, Argument("run: an id, @ (the last), @~1 (before it)", "runs")]
RunsArgument = Annotated[list[str], Argument("runs: ids, @ (the last), @~1 (before it)", complete="runs")]
JsonOption = Annotated[bool, option("--json", help="one JSON document on stdout")]
QuietOption = Annotated[bool, option("--quiet", "-q", help="print only what a script needs")]
DryRunOption = Annotated[bool, option("--dry-run", help="only say what would be done")]
TrustOption = Annotated[
    str, option("--trust-code", help="SHA-256 of code that came with an imported run, which may then run here")
]
