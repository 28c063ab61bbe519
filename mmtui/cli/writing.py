"""Verbs that change something: run, cancel, pause, resume, retry, hold, release."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import ask, report, say
from mmtui.cli.progress import work_bar
from mmtui.domain.lengths import seconds_of
from mmtui.domain.options import Argument, DryRunOption, QuietOption, RunsArgument, TrustOption, declared_by, option
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import duration, printable
from mmtui.errors import ExitCode, MmtuiError, UsageError
from mmtui.paths import Home
from mmtui.services.run_line import RunLine

if TYPE_CHECKING:
    from mmtui.services.queue import Answer
    from mmtui.services.submit import Plan, Submitted

_FEW = 12
"""A sweep with more members is named by its group."""


@declared_by(RunLine)
def run(line: RunLine) -> int:
    """Queue a run of a recipe, or one for each combination of several values, and print the ids.

    Example: mmtui run shapes_mixmatch segment.optim.lr=0.05,0.01 seed=0..2
    Example: mmtui run --from 12@300 segment.optim.lr=0.001
    """
    from mmtui.services import submit

    home = Home.from_environment()
    planned = submit.plan(home, line.request())
    if line.dry_run:
        _preview(planned)
        return int(ExitCode.OK)
    # One run takes no longer than loading a bar.
    with work_bar("queueing", quiet=line.quiet or len(planned.members) == 1) as tell:
        found = submit.enqueue(planned, tell)
    for run_id in found.ids:
        render.line(run_id)
    for text in found.doubts:
        say(f"warning: doubtful: {text}")
    note = submit.serve(planned)
    if note:
        say(f"note: {note}")
    if line.follow:
        from mmtui.cli.follow import watch_run

        return max(watch_run(home, run_id) for run_id in found.ids)
    if not line.quiet:
        say(_queued(home, found.ids[0], line.hold) if len(found.ids) == 1 else _queued_all(found))
    return int(ExitCode.OK)


def _preview(planned: Plan) -> None:
    """The resolved recipe of one run; of several what differs, and how long each may take. What a fork takes over."""
    from mmtui.services import forks, recipes

    begun = dict.fromkeys(map(forks.told, planned.begun))
    for text in (*(f"it would not start here: {text}" for text in planned.lacking), *begun):
        say(text)
    if len(planned.members) == 1:
        render.block(recipes.as_yaml(planned.resolved[0]))
    else:
        _preview_sweep(planned)


def _preview_sweep(planned: Plan) -> None:
    from mmtui.services import forecast

    shared = set(planned.members[0]).intersection(*map(set, planned.members))
    rows, total = [], 0.0
    known = forecast.Costs(planned.home)
    for index, (texts, recipe) in enumerate(zip(planned.members, planned.resolved, strict=True)):
        left = planned.begun[index].left if planned.begun else None
        seconds = known.seconds(recipe, left)
        total += seconds or 0.0
        rows.append((str(index + 1), shlex.join(text for text in texts if text not in shared), duration(seconds)))
    render.table(("run", "differs in", "about"), rows, right=(0, 2))
    say(f"{len(rows)} runs" + (f", about {duration(total)} one after the other" if total else ""))


def _queued_all(found: Submitted) -> str:
    ids, group = found.ids, found.group
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
