"""Verbs that change something: run, cancel, pause, resume, retry, hold, release."""

from __future__ import annotations

from typing import Annotated

import typer

from mmtui.cli import render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import QuietOption, RunsArgument
from mmtui.errors import MmtuiError
from mmtui.paths import Home


def run(
    recipe: Annotated[str, typer.Argument(help="recipe name (see: mmtui recipes) or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example segment.steps=200")] = None,
    name: Annotated[str, typer.Option("--name", help="name of the run (default: the recipe's)")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="tag, can be given several times")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="seed of the run")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="queue it, but do not start it until released")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the resolved recipe and queue nothing")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="stay and print progress until it ends")] = False,
    quiet: QuietOption = False,
) -> None:
    """Queue a run of a recipe and print its id.

    Example: mmtui run shapes_mixmatch segment.steps=200 --seed 1
    """
    from mmtui.services import queue, recipes, supervisors

    home = Home.from_environment()
    texts = list(overrides or [])
    if dry_run:
        from engine.config import dump_recipe

        texts += [f"seed={seed}"] if seed is not None else []
        render.line(dump_recipe(recipes.resolve(recipe, texts, home)).rstrip())
        return
    run_id = queue.enqueue(home, recipe, texts, name=name, tags=tag or (), seed=seed, hold=hold)
    render.line(run_id)
    supervisors.ensure(home)
    if follow:
        from mmtui.cli.follow import watch_run

        raise typer.Exit(watch_run(home, run_id))
    if not quiet:
        say(f"queued run {run_id} ({recipe}); follow it with: mmtui watch {run_id}, or open the screen: mmtui")


def _wish(selectors: list[str], verb: str, participle: str, quiet: bool, **arguments: bool) -> None:
    """Leave a wish for each run; goes on after a refusal and fails at the end with the first one's code."""
    from mmtui.services import queue, runs, supervisors

    home = Home.from_environment()
    first: MmtuiError | None = None
    for run_id in [runs.resolve(home, selector) for selector in selectors]:
        try:
            queue.wish(home, run_id, verb, arguments)
        except MmtuiError as error:
            first = first or error
            say(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
            continue
        render.line(run_id) if quiet else say(f"run {run_id} {participle}")
    supervisors.ensure(home)
    if first is not None:
        raise typer.Exit(int(first.exit_code))


def cancel(
    runs: RunsArgument,
    now: Annotated[bool, typer.Option("--now", help="give it 3 seconds instead of 30 to checkpoint")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be cancelled")] = False,
    quiet: QuietOption = False,
) -> None:
    """Stop runs: a training run checkpoints and leaves. It can be retried later."""
    if dry_run:
        from mmtui.services import runs as service

        home = Home.from_environment()
        for selector in runs:
            row = service.get_run(home, service.resolve(home, selector)).row
            render.line(f"{row.id}  {row.state}  {row.name}")
        return
    _wish(runs, "cancel", "is being cancelled", quiet, now=now)


def pause(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Checkpoint runs, end their processes and free their devices."""
    _wish(runs, "pause", "is being paused", quiet)


def resume(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Put paused runs back into the queue; they go on exactly where they were."""
    _wish(runs, "resume", "goes back into the queue", quiet)


def retry(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Put failed, cancelled or interrupted runs back into the queue, from their last checkpoints."""
    _wish(runs, "retry", "goes back into the queue", quiet)


def hold(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Keep queued runs from starting."""
    _wish(runs, "hold", "is held", quiet)


def release(runs: RunsArgument, quiet: QuietOption = False) -> None:
    """Let held runs start."""
    _wish(runs, "release", "is released", quiet)
