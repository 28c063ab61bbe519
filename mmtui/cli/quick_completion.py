"""What shells ask for most (verbs, runs, recipes), answered in Typer's protocol without Typer.

Everything else (options, recipe keys, quotes) is left to Typer.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.text import as_text
from mmtui.cli import verbs
from mmtui.paths import Home
from mmtui.services import naming

MOST_RUNS = 50
BEST = "best"
"""As ``engine.config.best`` has it, which takes longer to load."""
_MANY_RUNS = (
    "pause resume retry hold release cancel logs wait compare export tag rm restore report figures".split()  # noqa: SIM905
)
POSITIONAL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("run", "recipes"), ("recipes",)),
    **dict.fromkeys(("show", "watch", "classes", "metrics", "mv", "edit", "note"), ("runs",)),
    "diff": ("runs", "runs"),
    "priority": ("", "runs", "*"),
    **dict.fromkeys(_MANY_RUNS, ("runs", "*")),
}
"""What each argument of a verb is; a star: the one before it goes on. tests/unit/cli compares it with the verbs."""

Choices = list[tuple[str, str]]
"""(what is completed, what it is)."""


def answer() -> str | None:
    """What the shell wants to read; None where Typer has to be asked."""
    shell = os.environ["_MMTUI_COMPLETE"].removeprefix("complete_")
    asked = _words(shell)
    if asked is None or re.search(r"""['"\\$`]""", " ".join(asked)):
        return None
    *before, incomplete = asked
    if any(word.startswith("-") for word in asked):
        return None
    found = _choices(shell, before, incomplete)
    return None if found is None else _FORMATS[shell](found)


def _words(shell: str) -> list[str] | None:
    """The words behind the program's name, the last of which is to be completed."""
    if shell == "bash":
        words, at = os.environ.get("COMP_WORDS", "").split(), os.environ.get("COMP_CWORD", "")
        number = int(at) if re.fullmatch("[0-9]{1,9}", at) else 0
        return [*words[1:number], *(words[number : number + 1] or [""])] if number else None
    if shell in _FORMATS:
        line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
        return [*line.split()[1:], *([""] if line.endswith(" ") else [])] or None
    return None


def _choices(shell: str, before: list[str], incomplete: str) -> Choices | None:
    if not before:
        # The other shells show what a verb does, which the verb's own module knows.
        names = dict.fromkeys(name.split()[0] for name in verbs.VERBS)
        return [(name, "") for name in names if name.startswith(incomplete)] if shell == "bash" else None
    kinds = POSITIONAL.get(verbs.ALIASES.get(before[0], before[0]))
    if kinds is None:
        return None
    place = len(before) - 1
    kind = kinds[-2] if kinds[-1] == "*" and place >= len(kinds) - 1 else kinds[place] if place < len(kinds) else ""
    if kind == "runs":
        return run_choices(incomplete)
    return recipe_choices(incomplete) if kind == "recipes" else None


def run_choices(incomplete: str) -> Choices:
    """The newest runs whose id begins so."""
    found = naming.begin_with(Home.from_environment(), as_text(incomplete), MOST_RUNS)
    return [(run_id, harmless(f"{name} {state}")) for run_id, name, state in found]


def place_choices(incomplete: str) -> Choices:
    """Where a fork may begin: runs, and behind the @ of one its best checkpoint."""
    run, mark, begun = as_text(incomplete).partition("@")
    if not mark:
        return run_choices(incomplete)
    offered = run and BEST.startswith(begun) and naming.keeps_best(Home.from_environment(), run)
    return [(f"{run}@{BEST}", "its best checkpoint")] if offered else []


def recipe_choices(incomplete: str) -> Choices:
    """Recipes whose name begins so, with the first line of their description."""
    from mmtui.services.recipes import recipe_dirs

    folders = reversed(recipe_dirs(Home.from_environment()))  # the user's own win
    files = {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
    offered = (name for name in sorted(files) if name.startswith(incomplete) and _SAFE_WORD.fullmatch(name))
    return [(name, _description(files[name])) for name in offered]


def _description(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as lines:
            found = re.search(r"^description:[ \t]*(.*)$", lines.read(2000), re.MULTILINE)
    except (OSError, ValueError):
        return ""
    return harmless(found.group(1).strip("'\"")) if found else ""


_SAFE_WORD = re.compile(r"[\w.,=@%+-]+")
"""What no shell takes for anything but a word. A recipe's file may be called otherwise; it is not offered then."""


def harmless(text: str) -> str:
    """A text from elsewhere as a shell may be told it: letters, digits and some marks, "?" for everything else.

    zsh evaluates what it is told, Typer's own escapes forget the backslash, and takes brackets for markup.
    """
    return "".join(char if char.isalnum() or char in " _-.,=+/@%#~:;()" else "?" for char in text)


def _bash(found: Choices) -> str:
    return "\n".join(name for name, _ in found)


def _zsh(found: Choices) -> str:
    def escaped(text: str) -> str:
        for char, mark in (('"', '""'), ("'", "''"), ("$", "\\$"), ("`", "\\`"), (":", r"\\:")):
            text = text.replace(char, mark)
        return f'"{text}"'

    items = [f"{escaped(name)}:{escaped(text)}" if text else escaped(name) for name, text in found]
    return "_arguments '*: :((" + "\n".join(items) + "))'" if items else "_files"


def _fish(found: Choices) -> str:
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        sys.exit(0 if found else 1)
    return "\n".join(f"{name}\t{text}" if text else name for name, text in found)


_FORMATS: dict[str, Callable[[Choices], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def kinds_of(declared: Iterable[tuple[str, bool]]) -> tuple[str, ...]:
    """``POSITIONAL`` of a verb from its arguments: (what completes it, whether it takes many)."""
    kinds: list[str] = []
    for complete, many in declared:
        kinds += [complete, "*"] if many and complete else [complete]
    while kinds and kinds[-1] == "":
        kinds.pop()
    return tuple(kinds)
