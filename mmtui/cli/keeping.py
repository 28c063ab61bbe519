"""Verbs that label runs and look after their files: tag, note, rm, restore, purge, backup."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

from engine.paths import expanded
from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.cli.outputs import ForceOption, agreed, output_path
from mmtui.cli.progress import work_bar
from mmtui.domain.options import Argument, DryRunOption, JsonOption, QuietOption, RunArgument, RunsArgument, option
from mmtui.domain.text import duration, size
from mmtui.errors import ExitCode, UsageError
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
    for run_id, tags in keeping.change_tags_of_all(home, lookup.resolve_all(home, runs), add or (), remove or ()):
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
    from mmtui.services import runs as lookup
    from mmtui.services import trash

    home = Home.from_environment()
    ids = lookup.resolve_all(home, runs)
    for run_id in ids if dry_run else trash.remove_all(home, ids):
        render.line(run_id) if quiet else say(f"run {run_id} {'would go' if dry_run else 'is'} in the trash")


def restore(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Bring runs back from the trash."""
    from mmtui.services import trash

    home = Home.from_environment()
    for run_id in trash.restore_all(home, dict.fromkeys(runs)):
        render.line(run_id) if quiet else say(f"run {run_id} is back")


def purge(
    yes: Annotated[bool, option("--yes", "-y", help="do it; without this only what would be freed is said")] = False,
    shared: Annotated[bool, option("--stages", help="also outputs of stages that runs share (mmtui cache)")] = False,
    unused: Annotated[str, option("--unused", help="of these only what no run has used for 12h, 30d")] = "0",
) -> None:
    """Delete what is in the trash for good, and frozen code that no run needs; says what it frees."""
    from mmtui.domain.lengths import seconds_ago
    from mmtui.services import leftovers, stages, trash

    home, seconds = Home.from_environment(), seconds_ago(unused, "--unused")
    with work_bar("purging", quiet=not yes) as tell:
        found = trash.purge(home, really=yes, tell=tell)
    if shared:
        found += stages.evict(home, seconds, really=yes)
    for name, taken in found:
        render.line(f"{name}  {size(taken)}")
    total = size(sum(taken for _, taken in found))
    going_on = leftovers.may_go_on(leftovers.look(home))
    if going_on:
        say(f"left alone: {going_on}")
    if not found:
        say("there is nothing to delete")
    else:
        say(f"{total} freed" if yes else f"{total} would be freed; do it with --yes")


def backup(
    file: Annotated[str, Argument("where to (default: the backups folder of the data directory)")] = "",
    restore: Annotated[bool, option("--restore", help="take this copy back; the database is kept")] = False,
    force: ForceOption = False,
) -> None:
    """Copy the database while it is in use, and print where the copy lies."""
    from mmtui.services import keeping

    if restore:
        from mmtui.services import mending

        if not file:
            raise UsageError("--restore: name the copy", "mmtui backup --restore FILE")
        for deed in mending.restore_backup(Home.from_environment(), expanded(file).absolute()):
            say(deed)
        return
    home = Home.from_environment()
    target = output_path(file, flag="mmtui backup") if file else None
    if target is not None:
        force = agreed(lambda force: keeping.check_backup(home, target, force=force), force=force)
    render.line(str(keeping.backup(home, target, force=force)))


def cache(
    action: Annotated[str, Argument("list, or verify (read every file again)")] = "list",
    as_json: JsonOption = False,
) -> int:
    """Outputs of proxy and match stages that runs share. Free the space with: mmtui purge --stages"""
    from mmtui.services import stages

    if action not in ("list", "verify"):
        raise UsageError(f"mmtui cache {action}: write list or verify")
    home = Home.from_environment()
    entries = stages.stored(home)
    problems = {entry.key: stages.damage(home, entry.key) for entry in entries} if action == "verify" else {}
    if as_json:
        body = [{**dataclasses.asdict(e), "used_at": jsonform.when(e.used_at)} for e in entries]
        render.document({"entries": [{**e, "damage": problems.get(e["key"], "")} for e in body]})
    elif entries:
        now = time.time()
        rows = [
            (e.key[:12], e.stage, e.recipe, e.run, size(e.bytes), duration(e.seconds), duration(now - e.used_at))
            for e in entries
        ]
        render.table(("key", "stage", "recipe", "run", "size", "took", "used"), rows, right=(4, 5, 6))
        say(f"{len(entries)} output{'' if len(entries) == 1 else 's'}, {size(sum(e.bytes for e in entries))}")
    else:
        say("no stage has been stored yet")
    bad = {key: text for key, text in problems.items() if text}
    for key, text in bad.items():
        say(f"error: {key[:12]}: {text}; runs train that stage again")
    return int(ExitCode.FAILED if bad else ExitCode.OK)
