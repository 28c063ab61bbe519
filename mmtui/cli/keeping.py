"""Verbs that label runs and look after their files: tag, note, rm, restore, purge, backup."""

from __future__ import annotations

from typing import Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import Argument, DryRunOption, QuietOption, RunArgument, RunsArgument, option
from mmtui.domain.text import size
from mmtui.errors import UsageError
from mmtui.paths import Home


def tag(
    runs: RunsArgument,
    add: Annotated[list[str] | None, option("--add", "-a", help="tag to put on (repeatable)")] = None,
    remove: Annotated[list[str] | None, option("--remove", "-r", help="tag to take off (repeatable)")] = None,
    quiet: QuietOption = False,
) -> None:
    """Put tags on runs or take them off: mmtui tag @ --add keep"""
    from mmtui.services import keeping
    from mmtui.services import runs as lookup

    if not add and not remove:
        raise UsageError("say which: --add TAG or --remove TAG")
    home = Home.from_environment()
    for run_id in dict.fromkeys(lookup.resolve(home, selector) for selector in runs):
        tags = keeping.change_tags(home, run_id, add or (), remove or ())
        render.line(run_id) if quiet else say(f"run {run_id}: {' '.join(tags) or 'no tags'}")


def note(run: RunArgument, text: Annotated[str, Argument("what to remember; empty: remove the note")]) -> None:
    """Write a note on a run: mmtui note @ 'margin too small'"""
    from mmtui.services import keeping, runs

    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    keeping.set_note(home, run_id, text)
    say(f"run {run_id}: {text or 'no note'}")


def rm(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> None:
    """Move finished runs to the trash; restore brings them back, purge frees the space."""
    from mmtui.services import keeping
    from mmtui.services import runs as lookup

    home = Home.from_environment()
    ids = list(dict.fromkeys(lookup.resolve(home, selector) for selector in runs))
    for run_id in ids:
        if not dry_run:
            keeping.remove(home, run_id)
        render.line(run_id) if quiet else say(f"run {run_id} {'would go' if dry_run else 'is'} in the trash")


def restore(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Bring runs back from the trash."""
    from mmtui.services import keeping

    home = Home.from_environment()
    for run_id in dict.fromkeys(runs):
        keeping.restore(home, run_id)
        render.line(run_id) if quiet else say(f"run {run_id} is back")


def purge(
    yes: Annotated[bool, option("--yes", "-y", help="do it; without this only what would be freed is said")] = False,
) -> None:
    """Delete what is in the trash for good, and frozen code that no run needs; says what it frees."""
    from mmtui.services import keeping

    home = Home.from_environment()
    found = keeping.purge(home, really=yes)
    for name, taken in found:
        render.line(f"{name}  {size(taken)}")
    total = size(sum(taken for _, taken in found))
    if not found:
        say("there is nothing to delete")
    else:
        say(f"{total} freed" if yes else f"{total} would be freed; do it with: mmtui purge --yes")


def backup(
    file: Annotated[str, Argument("where to (default: the backups folder of the data directory)")] = "",
) -> None:
    """Copy the database while it is in use, and print where the copy lies."""
    from mmtui.services import keeping

    render.line(str(keeping.backup(Home.from_environment(), file)))
