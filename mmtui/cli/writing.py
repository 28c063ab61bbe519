"""Verbs that change something: run, cancel, pause, resume, retry, hold, release."""

from __future__ import annotations

from typing import Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import report, say
from mmtui.cli.options import Argument, DryRunOption, QuietOption, RunsArgument, option
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.errors import ExitCode, MmtuiError
from mmtui.paths import Home


def run(
    recipe: Annotated[str, Argument("recipe name (see: mmtui recipes) or a YAML file", complete="recipes")],
    overrides: Annotated[
        list[str] | None, Argument("key=value, for example segment.steps=200", complete="keys")
    ] = None,
    name: Annotated[str, option("--name", help="name of the run (default: the recipe's)")] = "",
    tag: Annotated[list[str] | None, option("--tag", help="tag (repeatable)")] = None,
    seed: Annotated[int | None, option("--seed", help="seed of the run", minimum=0)] = None,
    hold: Annotated[bool, option("--hold", help="queue it, but do not start it until released")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="print the resolved recipe and queue nothing")] = False,
    follow: Annotated[bool, option("--follow", "-f", help="stay and print progress until it ends")] = False,
    quiet: QuietOption = False,
) -> int:
    """Queue a run of a recipe and print its id.

    Example: mmtui run shapes_mixmatch segment.steps=200 --seed 1
    """
    from mmtui.services import queue, recipes, supervisors

    home = Home.from_environment()
    texts = list(overrides or [])
    if dry_run:
        texts += [f"seed={seed}"] if seed is not None else []
        render.block(recipes.as_yaml(recipes.resolve(recipe, texts, home)))
        return int(ExitCode.OK)
    run_id = queue.enqueue(home, recipe, texts, name=name, tags=tag or (), seed=seed, hold=hold)
    render.line(run_id)
    if not hold:
        supervisors.ensure(home)
    if follow:
        from mmtui.cli.follow import watch_run

        return watch_run(home, run_id)
    if not quiet:
        say(_queued(run_id, recipe, hold))
    return int(ExitCode.OK)


def _queued(run_id: str, recipe: str, hold: bool) -> str:
    if hold:
        return f"run {run_id} ({recipe}) is held; start it with: mmtui release {run_id}"
    return f"queued run {run_id} ({recipe}); follow it with: mmtui watch {run_id}, or open the screen: mmtui"


def _wish(selectors: list[str], verb: str, quiet: bool, *, dry_run: bool = False, now: bool = False) -> int:
    """Ask for the verb for each run; goes on after a refusal and ends with the first one's code."""
    from mmtui.services import queue, runs

    home = Home.from_environment()
    run_ids = list(dict.fromkeys(runs.resolve(home, selector) for selector in selectors))
    if dry_run:
        for run_id in run_ids:
            row = runs.get_run(home, run_id).row
            render.line(f"{row.id}  {row.state}  {row.name}")
        return int(ExitCode.OK)
    code = 0
    for run_id in run_ids:
        try:
            queue.wish(home, run_id, verb, {"now": now} if now else {})
        except MmtuiError as error:
            refused = report(error)
            code = code or refused
            continue
        state = RunState(runs.get_run(home, run_id).row.state)
        text = (
            f"the trainer of run {run_id} is asked to leave" if state in ACTIVE_STATES else f"run {run_id} is {state}"
        )
        render.line(run_id) if quiet else say(text)
    _serve(home)
    return code


def _serve(home: Home) -> None:
    """Somebody must carry out what is now queued or asked for."""
    from mmtui.services import supervisors

    found = supervisors.status(home)
    if not found.running and (found.active_runs or found.queued_runs):
        supervisors.ensure(home)


def cancel(
    runs: RunsArgument,
    now: Annotated[bool, option("--now", help="give it 3 seconds instead of 30 to checkpoint")] = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> int:
    """Stop runs: a training run checkpoints and leaves. It can be retried later."""
    return _wish(runs, "cancel", quiet, dry_run=dry_run, now=now)


def pause(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Checkpoint runs, end their processes and free their devices."""
    return _wish(runs, "pause", quiet, dry_run=dry_run)


def resume(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Put paused runs back into the queue; they go on exactly where they were."""
    return _wish(runs, "resume", quiet, dry_run=dry_run)


def retry(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Put failed, cancelled or interrupted runs back into the queue, from their last checkpoints."""
    return _wish(runs, "retry", quiet, dry_run=dry_run)


def hold(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Keep queued runs from starting."""
    return _wish(runs, "hold", quiet, dry_run=dry_run)


def release(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Let held runs start."""
    return _wish(runs, "release", quiet, dry_run=dry_run)
