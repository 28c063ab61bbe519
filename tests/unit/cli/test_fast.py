"""The quick parser means the same as Typer, for every verb and alias; what it does not understand it leaves alone."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mmtui.cli import fast, verbs
from mmtui.cli.app import command
from mmtui.domain.command_words import kind_of
from mmtui.domain.options import FORMS, Option
from mmtui.paths import Home

Invoke = Callable[..., Any]

COMMAND_LINES = [
    "ls",
    "ls --json",
    "ls -a",
    "ls -n 2",
    "ls --limit=2 --json",
    "ls --state held -s failed",
    "ps",
    "list --all --json",
    "show 1 --json",
    "show --json 1",
    "show 99",
    "classes 1 --vs 1 --json",
    "classes 1 --step 2",
    "metrics 1",
    "metrics 1 -m loss --last 2 --json",
    "metrics 1 --metric=nothing",
    "logs 1 -n 1",
    "tail 1",
    "wait 1 2",
    "wait 3 --timeout 0",
    "watch 1",
    "queue --json",
    "status",
    "daemon status",
    "daemon status --json",
    "recipes",
    "recipes shapes_mixmatch segment.steps=5 --json",
    "recipes shapes_mixmatch --changed",
    "recipes nothing",
    "run shapes_baseline segment.steps=7 --dry-run --seed 3",
    "run nothing --dry-run",
    "run shapes_baseline --dry-run --priority -3 --name --hold",
    "run shapes_baseline --dry-run -- segment.steps=9 --hold",
    "run --dry-run shapes_baseline --seed",
    "run shapes_baseline --seed -1",
    "run shapes_baseline --hold=yes",
    "run shapes_baseline segment.stepz=7 --dry-run",
    "cancel 3 --dry-run",
    "kill 1",
    "--version",
    # What only Typer understands must come out of the quick way unchanged too.
    "ls --help",
    "ls -h",
    "ls --nonsense",
    "ls -n",
    "ls -n x",
    "ls -n -3",
    "ls -n2",
    "ls extra",
    "show",
    "show 1 2",
    "show -- 1",
    "ls --json=1",
    "nonsense",
    "daemon",
    "daemon nonsense",
    "--color always ls",
    "-h",
]


@pytest.mark.parametrize("text", COMMAND_LINES)
def test_dispatch_same_output_and_code_as_typer(
    populated: Home, mmtui_: Invoke, typer_: Invoke, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # ages are printed: both sides answer at the same moment
    assert mmtui_(*text.split()) == typer_(*text.split())


@pytest.mark.parametrize("name", [*verbs.VERBS, *verbs.ALIASES])
def test_parse_every_verb_with_an_unknown_option_is_left_to_typer(name: str) -> None:
    assert fast.parse([*name.split(), "--nonsense"]) is None


@pytest.mark.parametrize("name", verbs.VERBS)
def test_parse_all_that_a_verb_takes_gives_what_typer_gives(name: str) -> None:
    verb = verbs.load(name)
    words: list[str] = []
    asked = 0
    for parameter in inspect.signature(verb, eval_str=True).parameters.values():
        if parameter.name in FORMS and (asked := asked + 1) > 1:
            continue  # the answer has one form
        declared = parameter.annotation.__metadata__[0]
        kind, many = kind_of(parameter)
        value = {bool: [], int: ["3"], float: ["2.5"], str: ["text"]}[kind]
        flags = declared.flags[: 2 if many else 1] if isinstance(declared, Option) else ()
        words += [word for flag in flags for word in (flag, *value)] if flags else value * (2 if many else 1)
    parsed = fast.parse([*name.split(), *words])
    assert parsed is not None
    defaults = {p.name: p.default for p in inspect.signature(verb).parameters.values()}
    assert {**defaults, **parsed[1]} == _through_typer(verb, words)


def _through_typer(verb: verbs.Verb, words: list[str]) -> dict[str, Any]:
    """The values with which Typer calls a verb."""
    seen: dict[str, Any] = {}

    @functools.wraps(verb)
    def record(**values: Any) -> None:
        seen.update(values)

    app = typer.Typer()
    app.command()(command(record))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return seen


def test_load_unknown_verb_raises() -> None:
    with pytest.raises(KeyError):
        verbs.load("nonsense")


def test_aliases_are_hidden_from_the_help(mmtui_: Invoke) -> None:
    listed = {line.split()[0] for line in mmtui_("--help").out.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed >= {name.split()[0] for name in verbs.VERBS}
    assert not listed & set(verbs.ALIASES)
