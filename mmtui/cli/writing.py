"""Verbs that change something: run, cancel, pause, resume, retry, hold, release."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from mmtui.cli import render
from mmtui.cli.diagnostics import ask, report, say
from mmtui.cli.progress import work_bar
from mmtui.domain.lengths import device_hours, seconds_of
from mmtui.domain.options import Argument, DryRunOption, QuietOption, RunsArgument, TrustOption, option
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import duration, printable
from mmtui.errors import ExitCode, MmtuiError, UsageError
from mmtui.paths import Home

if TYPE_CHECKING:
    from mmtui.services.forks import Fork
    from mmtui.services.queue import Answer, Terms

_FEW = 12
"""A sweep with more members is named by its group."""


def run(
    recipe: Annotated[
        str, Argument("recipe name (see: mmtui recipes) or a YAML file; with --from not needed", complete="recipes")
    ] = "",
    overrides: Annotated[
        list[str] | None,
        Argument("key=value, for example segment.steps=200; key=a,b or seed=0..4 queues one run for each", "keys"),
    ] = None,
    from_run: Annotated[
        str,
        option(
            "--from",
            help="RUN or RUN@STEP: begin at its newest checkpoint (at or before that step), with its recipe;"
            " RUN@best: at its best one",
            complete="places",
        ),
    ] = "",
    name: Annotated[str, option("--name", help="name of the run (default: the recipe's); sweeps add to it")] = "",
    tag: Annotated[list[str] | None, option("--tag", help="tag (repeatable)")] = None,
    seed: Annotated[int | None, option("--seed", help="seed of the run", minimum=0)] = None,
    smoke: Annotated[bool, option("--smoke", help="two steps of each stage with a thin network")] = False,
    zipped: Annotated[bool, option("--zip", help="sweep: the n-th values together, not every combination")] = False,
    group: Annotated[str, option("--group", help="group of the runs (default: a sweep's own)")] = "",
    priority: Annotated[int, option("--priority", help="higher starts earlier (default 0)")] = 0,
    after: Annotated[list[str] | None, option("--after", help="run that must succeed first (repeatable)")] = None,
    if_failed: Annotated[str, option("--if-failed", help="what to do if it does not: hold, cancel or run")] = "hold",
    wait: Annotated[str, option("--delay", help="start no earlier than in 30m, 2h, 1d")] = "",
    gpus: Annotated[float, option("--gpus", help="GPUs (CPU slots) for each run; 0.5: half of one suffices")] = 1.0,
    time_limit: Annotated[str, option("--time-limit", help="stop it, with a checkpoint, after 90m, 12h, 2d")] = "",
    budget: Annotated[str, option("--budget", help="sweep or group: start none after so many GPU-hours: 20h")] = "",
    fail_fast: Annotated[bool, option("--fail-fast", help="hold the rest of the sweep when one run fails")] = False,
    launcher: Annotated[str, option("--launcher", help="local, or slurm: submit it to the cluster")] = "local",
    slurm: Annotated[
        list[str] | None, option("--slurm", help="KEY=VALUE for it: partition=gpu, nodes=2, time=600 (repeatable)")
    ] = None,
    hold: Annotated[bool, option("--hold", help="queue it, but do not start it until released")] = False,
    dry_run: Annotated[bool, option("--dry-run", help="print what would be queued and queue nothing")] = False,
    follow: Annotated[bool, option("--follow", "-f", help="stay and print progress until it ends")] = False,
    quiet: QuietOption = False,
) -> int:
    """Queue a run of a recipe, or one for each combination of several values, and print the ids.

    Example: mmtui run shapes_mixmatch segment.optim.lr=0.05,0.01 seed=0..2
    Example: mmtui run --from 12@300 segment.optim.lr=0.001
    """
    from mmtui.services import labels, queue, recipes, runs, supervisors

    home = Home.from_environment()
    recipe, overrides, fork = _base(home, recipe, overrides or [], from_run)
    texts = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    found = recipes.members(recipe, texts, home, zipped=zipped, smoke=smoke)
    members, resolved = [texts for texts, _ in found], [one for _, one in found]
    if if_failed not in queue.IF_FAILED:
        raise UsageError(f"--if-failed {if_failed}: write one of {', '.join(queue.IF_FAILED)}")
    terms = queue.Terms(
        name=name,
        tags=tag or (),
        hold=hold,
        group=group,
        priority=priority,
        not_before=time.time() + seconds_of(wait, "--delay") if wait else 0.0,
        after=[runs.resolve(home, selector) for selector in after or ()],
        if_failed=if_failed,
        wanted=gpus,
        time_limit=seconds_of(time_limit, "--time-limit") if time_limit else 0.0,
        budget=device_hours(budget, "--budget") if budget else 0.0,
        fail_fast=fail_fast,
        launcher=_launcher(launcher, slurm or (), gpus, home, recipe, members),
    )
    if budget and not terms.budget:
        raise UsageError(f"--budget {budget} would start nothing", "leave it out for no limit")
    queue.check_terms(terms, len(members))
    if dry_run:
        _preview(home, recipe, members, fork, terms)
        return int(ExitCode.OK)
    with work_bar("queueing", quiet=quiet or len(members) == 1) as tell:  # one takes no longer than loading a bar
        ids = queue.enqueue_all(home, recipe, members, terms, fork, resolved=resolved, tell=tell)
    for run_id in ids:
        render.line(run_id)
    for text in labels.doubts():
        say(f"warning: doubtful: {text}")
    note = "" if hold else supervisors.ensure(home).note
    if note:
        say(f"note: {note}")
    if follow:
        from mmtui.cli.follow import watch_run

        return max(watch_run(home, run_id) for run_id in ids)
    if not quiet:
        say(_queued(home, ids[0], hold) if len(ids) == 1 else _queued_all(home, ids))
    return int(ExitCode.OK)


def _launcher(
    kind: str, options: Sequence[str], gpus: float, home: Home, recipe: str, members: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """What starts the runs: {} for this machine."""
    from mmtui.domain import slurm
    from mmtui.services import recipes

    if kind == "slurm":
        on_gpus = recipes.resolve(recipe, list(members[0]), home).runtime.device != "cpu"
        return slurm.launcher(options, gpus, on_gpus)
    if kind != "local":
        raise UsageError(f"--launcher {kind}: write local or slurm")
    if options:
        raise UsageError("--slurm is for runs with --launcher slurm")
    return {}


def _base(home: Home, recipe: str, overrides: list[str], from_run: str) -> tuple[str, list[str], Fork | None]:
    """The recipe that the overrides are of, the overrides, and the run to fork."""
    from mmtui.services import forks

    if not recipe and not from_run:
        raise UsageError("say what to run: a RECIPE", "list them with: mmtui recipes; or fork a run: --from RUN@STEP")
    if not from_run:
        return recipe, overrides, None
    fork = forks.parse(home, from_run)
    if recipe and "=" not in recipe:
        return recipe, overrides, replace(fork, overrides=())
    # No recipe was given: what stands in its place is the first override.
    return fork.recipe(home), [*([recipe] if recipe else []), *overrides], fork


def _preview(home: Home, recipe: str, members: Sequence[Sequence[str]], fork: Fork | None, terms: Terms) -> None:
    """The resolved recipe of one run; of several what differs, and how long each may take. What a fork takes over."""
    from mmtui.services import forecast, forks, inputs, queue, recipes

    resolved = [recipes.resolve(recipe, list(texts), home) for texts in members]
    plans = [forks.plan(home, fork, one) for one in resolved if fork]
    taken = [forks.taken(plan) for plan in plans] or [()] * len(resolved)
    pairs = () if terms.hold else zip(resolved, taken, strict=True)
    missing = (
        text
        for one, kept in pairs
        for text in (*queue.untrainable(one, terms, kept), *inputs.lacking(one, later=terms.comes_later, taken=kept))
    )
    for text in dict.fromkeys(f"it would not start here: {text}" for text in missing):
        say(text)
    for text in dict.fromkeys(map(forks.told, plans)):
        say(text)
    if len(members) == 1:
        render.block(recipes.as_yaml(resolved[0]))
        return
    shared = set(members[0]).intersection(*map(set, members))
    rows, total = [], 0.0
    known = forecast.Costs(home)
    for number, texts in enumerate(members, 1):
        left = plans[number - 1].left if plans else None
        seconds = known.seconds(resolved[number - 1], left)
        total += seconds or 0.0
        rows.append((str(number), shlex.join(text for text in texts if text not in shared), duration(seconds)))
    render.table(("run", "differs in", "about"), rows, right=(0, 2))
    say(f"{len(members)} runs" + (f", about {duration(total)} one after the other" if total else ""))


def _queued_all(home: Home, ids: Sequence[str]) -> str:
    from mmtui.services import runs

    group = runs.get_run(home, ids[0]).row.group
    next_step = f"wait for them with: mmtui wait {' '.join(ids)}"
    if len(ids) > _FEW:
        next_step = f"see them with: mmtui ls --filter 'group = {group}'"
    return f"queued {len(ids)} runs, {ids[0]} to {ids[-1]}, as group {group}; {next_step}"


def _queued(home: Home, run_id: str, hold: bool) -> str:
    from mmtui.services import runs

    found = runs.get_run(home, run_id)
    words = printable(found.row.recipe)
    if found.parent is not None:
        words += f", forked from run {found.parent.run} at {found.parent.words()}"
    if hold:
        return f"run {run_id} ({words}) is held; start it with: mmtui release {run_id}"
    return f"queued run {run_id} ({words}); follow it with: mmtui watch {run_id}, or open the screen: mmtui"


def _wish(
    selectors: list[str],
    verb: str,
    quiet: bool,
    *,
    dry_run: bool = False,
    arguments: dict[str, bool] | None = None,
    trust_code: str = "",
) -> int:
    """Ask for the verb for each run; goes on after a refusal and ends with the first one's code."""
    from mmtui.services import queue, runs

    home = Home.from_environment()
    run_ids = runs.resolve_all(home, selectors)
    if dry_run:
        for run_id in run_ids:
            row = runs.get_run(home, run_id).row
            render.line(f"{row.id}  {row.state}  {row.name}")
        return int(ExitCode.OK)
    code = 0
    for answer in queue.wish_all(home, run_ids, verb, arguments, trust_code=trust_code):
        found = _asked_again(home, answer, verb, arguments) if not trust_code else answer.found
        if isinstance(found, MmtuiError):
            refused = report(found)
            code = code or refused
        elif quiet:
            render.line(answer.run_id)
        else:
            asked = f"the trainer of run {answer.run_id} is asked to leave"
            say(asked if found in ACTIVE_STATES else f"run {answer.run_id} is {found.value}")
    _serve(home)
    return code


def _asked_again(home: Home, answer: Answer, verb: str, arguments: dict[str, bool] | None) -> RunState | MmtuiError:
    """The answer; where code from elsewhere would run, one question on a terminal decides whether it may."""
    from mmtui.services import queue
    from mmtui.services.trust import UntrustedCodeError

    error = answer.found
    if not isinstance(error, UntrustedCodeError) or not ask(f"{error.message}. Run it?"):
        return error
    try:
        return queue.wish(home, answer.run_id, verb, arguments, trust_code=error.digest)
    except MmtuiError as refused:
        return refused


def _serve(home: Home) -> None:
    """Somebody must carry out what is now queued or asked for."""
    from mmtui.services import supervisors

    found = supervisors.status(home)
    if not found.running and (found.active_runs or found.queued_runs):
        supervisors.ensure(home)
    if found.note:
        say(f"note: {found.note}")


def cancel(
    runs: RunsArgument,
    now: Annotated[bool, option("--now", help="give it 3 seconds instead of 30 to checkpoint")] = False,
    save: Annotated[bool, option("--save", help="give it ten minutes to checkpoint")] = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> int:
    """Stop runs: a training run checkpoints and leaves. It can be retried later."""
    if now and save:
        raise UsageError("--now and --save contradict each other: give one")
    return _wish(runs, "cancel", quiet, dry_run=dry_run, arguments={"now": now, "save": save})


def pause(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Checkpoint runs, end their processes and free their devices."""
    return _wish(runs, "pause", quiet, dry_run=dry_run)


def resume(
    runs: RunsArgument, trust_code: TrustOption = "", dry_run: DryRunOption = False, quiet: QuietOption = False
) -> int:
    """Put paused runs back into the queue; they go on exactly where they were."""
    return _wish(runs, "resume", quiet, dry_run=dry_run, trust_code=trust_code)


def retry(
    runs: Annotated[list[str] | None, Argument("ids, @ (the last), @~2", "runs")] = None,
    failed: Annotated[bool, option("--failed", help="all runs that failed or were interrupted")] = False,
    time_limit: Annotated[str, option("--time-limit", help="let them train so much longer: 2h; 0 = no limit")] = "",
    trust_code: TrustOption = "",
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> int:
    """Put failed, cancelled or interrupted runs back into the queue, from their last checkpoints."""
    from mmtui.services import queue, trust
    from mmtui.services import runs as lookup

    home, selectors = Home.from_environment(), list(runs or [])
    if failed == bool(selectors):
        raise UsageError("say which runs: ids, or --failed")
    if failed:
        states = (RunState.FAILED.value, RunState.INTERRUPTED.value)
        found = [row.id for row in lookup.list_runs(home, states=states, newest_first=False)]
        selectors = [run_id for run_id in found if not trust.is_imported(home, run_id)]
        if len(selectors) < len(found):
            say(f"left alone, since they came from elsewhere: {', '.join(i for i in found if i not in selectors)}")
        elif not selectors:
            say("no run has failed or was interrupted")
    more = seconds_of(time_limit, "--time-limit") if time_limit else 0.0
    if time_limit and not dry_run:
        list(queue.extend_all(home, lookup.resolve_all(home, selectors), more))
    return _wish(selectors, "retry", quiet, dry_run=dry_run, trust_code=trust_code)


def hold(runs: RunsArgument, dry_run: DryRunOption = False, quiet: QuietOption = False) -> int:
    """Keep queued runs from starting."""
    return _wish(runs, "hold", quiet, dry_run=dry_run)


def release(
    runs: RunsArgument, trust_code: TrustOption = "", dry_run: DryRunOption = False, quiet: QuietOption = False
) -> int:
    """Let held runs start."""
    return _wish(runs, "release", quiet, dry_run=dry_run, trust_code=trust_code)
