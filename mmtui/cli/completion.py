"""``mmtui completion SHELL`` prints the shell's completion script; and what the shell offers behind a verb."""

from __future__ import annotations

import os
from typing import Annotated

from mmtui.cli.options import Argument
from mmtui.errors import MmtuiError, UsageError
from mmtui.paths import Home

SHELLS = ("bash", "zsh", "fish")
MOST_RUNS = 50

Choices = list[tuple[str, str]]
"""(what is completed, what it is)."""


def completion(shell: Annotated[str, Argument("bash, zsh or fish")]) -> None:
    """Print a completion script. For bash: mmtui completion bash >> ~/.bash_completion"""
    if shell not in SHELLS:
        raise UsageError(f"no completion for '{shell}'", f"write one of {', '.join(SHELLS)}")
    from mmtui.cli.app import app

    # The protocol of Typer's own completion: asked so, the program prints its script and leaves.
    os.environ["_MMTUI_COMPLETE"] = f"source_{shell}"
    app(prog_name="mmtui")


def run_choices(incomplete: str) -> Choices:
    """The newest runs whose id begins so."""
    from mmtui.services import runs

    try:
        rows = runs.list_runs(Home.from_environment(), limit=MOST_RUNS)
    except MmtuiError:
        return []  # a shell that completes is no place for error messages
    return [(row.id, f"{row.name} {row.state}") for row in rows if row.id.startswith(incomplete)]


def recipe_choices(incomplete: str) -> Choices:
    """Recipes whose name begins so."""
    from mmtui.services import recipes

    found = recipes.list_recipes(Home.from_environment())
    return [(view.name, view.description) for view in found if view.name.startswith(incomplete)]


def key_choices(incomplete: str) -> Choices:
    """Keys of a recipe that begin so, each with its equals sign."""
    from mmtui.services.recipes import keys

    return [(f"{key.key}=", key.description) for key in keys() if key.key.startswith(incomplete)]
