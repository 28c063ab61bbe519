"""Verbs that ask about one run: show, classes, metrics."""

from __future__ import annotations

import shlex
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.domain import dates
from mmtui.domain.numbers import mean
from mmtui.domain.options import JsonOption, RunArgument, option
from mmtui.domain.text import duration
from mmtui.domain.views import ClassTable, Point, RunDetail
from mmtui.errors import ExitCode, NotFoundError, UnreachableError, UsageError
from mmtui.paths import Home

_MOST_CHILDREN = 8
"""Of a run that a whole sweep was forked from, so many are named."""
_PROOFS = {
    "proven": "proven: the trainer has loaded these very files",
    "unproven": "unproven: the copy was checked on disk, its trainer does not say what it has loaded",
    "differs": "differs: the trainer has loaded other code",
}
_PROOFS_IN_SHORT = {"unproven": ", code unproven", "differs": ", code differs"}


def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Everything about one run."""
    from mmtui.services import runs

    home = Home.from_environment()
    found = runs.get_run(home, runs.resolve(home, run))
    if as_json:
        render.document(jsonform.detail(found))
        return
    _show_text(found)


def _show_text(found: RunDetail) -> None:
    from mmtui.services.overrides import as_typed

    row = found.row
    device = " ".join([*row.gpus, *([f"({found.host['device']})"] if found.host.get("device") else [])])
    facts = [
        ("run", f"{row.id}  {row.name}"),
        ("state", f"{row.state}" + (f": {row.reason}" if row.reason else "")),
        ("recipe", f"{shlex.quote(row.recipe)}  {as_typed(found.overrides)}".rstrip()),
        ("seed", str(row.seed)),
        ("parent", _parent(found)),
        ("children", _children(found)),
        ("tags", " ".join(row.tags) or "-"),
        ("note", found.note),
        ("created", jsonform.when(row.created_at) or "-"),
        ("took", duration((row.ended_at or time.time()) - row.started_at) if row.started_at else "-"),
        ("device", device or "-"),
        ("code", f"{found.code.get('digest', '-')}{_commit(found)}{_proof(found)}"),
        ("versions", "  ".join(f"{name} {text}" for name, text in found.versions.items()) or "-"),
        ("host", str(found.host.get("name") or "-")),
        ("data", found.data_fingerprint[:16] or "-"),
        ("terms", _terms(found)),
        ("resumed", found.replay),
        ("loss", render.number(row.metrics.get("loss"))),
        ("mIoU", render.score(row, 4) + _evaluated(found)),
        ("best", _best(found)),
        ("weights", _weights(found)),
        *(("doubtful", doubt) for doubt in row.doubts),
        ("files", found.paths["run"]),
    ]
    for name, text in facts:
        if text:
            render.line(f"{name:9}{text}")
    for stage in found.stages:
        eta = f"  ends in {duration(stage.eta_seconds)}" if stage.eta_seconds is not None else ""
        reused = f"  taken over from run {stage.reused_from}" if stage.reused_from else ""
        early = f"  stopped early: {stage.stopped_early}" if stage.stopped_early else ""
        render.line(f"  {stage.name:8} {stage.status:8} {stage.step}/{stage.total_steps}{eta}{reused}{early}")
    for attempt in found.attempts:
        known = _PROOFS_IN_SHORT.get(attempt.code, "")
        resumed = f", went on from {attempt.resumed_stage} {attempt.resumed_step}" if attempt.resumed_stage else ""
        render.line(f"  attempt {attempt.number}: {attempt.outcome or 'alive'}{resumed}{known}")
    for warning in [text for text in found.warnings if text not in row.doubts][:5]:
        render.line(f"  warning: {warning}")


def _best(found: RunDetail) -> str:
    """Its best evaluation, and what the checkpoint of that is called."""
    if found.best is None:
        return ""
    average = ", of the moving average" if found.best.weights == "ema" else ""
    return f"{found.best.words()}{average}; its checkpoint is {found.row.id}@best"


def _evaluated(found: RunDetail) -> str:
    """Which network the score is of, where it is not that of the last step."""
    chosen = found.section("evaluate").get("checkpoint") == "best"
    done = any(stage.name == "evaluate" and stage.status == "finished" for stage in found.stages)
    return "  (of the best checkpoint: evaluate.checkpoint best)" if chosen and done else ""


def _weights(found: RunDetail) -> str:
    """Which weights were evaluated and handed on, where they are not those of the last step."""
    segment = found.config.get("segment")
    decay = segment.get("ema") if isinstance(segment, dict) else None
    if not decay or not isinstance(decay, float):
        return ""
    done = any(stage.name == "segment" and stage.status == "finished" for stage in found.stages)
    when = "evaluated and handed on" if done or found.row.metrics.get("miou") is not None else "to be evaluated"
    return f"{when}: the moving average (segment.ema {decay:g}), not those of the last step"


def _parent(found: RunDetail) -> str:
    """The run that it was forked from, and where."""
    tie = found.parent
    if tie is None:
        return ""
    return f"run {tie.run} at {tie.words()}" + ("" if tie.here else "  (not here any more)")


def _children(found: RunDetail) -> str:
    """The runs that were forked from it, and where."""
    more = len(found.children) - _MOST_CHILDREN
    told = "  ".join(f"{child.run} at {child.words()}" for child in found.children[:_MOST_CHILDREN])
    return f"{told}  and {more} more" if more > 0 else told


def _terms(found: RunDetail) -> str:
    """What is out of the ordinary: places, time limit, what it begins after."""
    gpus, limit = found.terms.gpus, found.terms.time_limit_seconds
    after, begin = found.terms.after, found.terms.not_before
    parts = [f"{gpus:g} GPUs or CPU slots"] if gpus != 1 else []
    parts += [f"time limit {duration(limit)}"] if limit else []
    parts += [f"after run {', '.join(after)}"] if after else []
    return ", ".join([*parts, *([f"not before {dates.text(begin, '%Y-%m-%d %H:%M')}"] if begin else [])])


def _commit(found: RunDetail) -> str:
    commit = found.code.get("commit")
    return f" (commit {str(commit)[:10]}{_changes(found)})" if commit else ""


def _proof(found: RunDetail) -> str:
    """What is known of the code of the newest attempt that has begun."""
    return next((f", {_PROOFS[one.code]}" for one in reversed(found.attempts) if one.code), "")


def _changes(found: RunDetail) -> str:
    if not found.code.get("dirty"):
        return ""
    return f", with changes: {found.code['diff']}" if found.code.get("diff") else ", with changes"


def classes(
    run: RunArgument,
    vs: Annotated[str, option("--vs", help="a second run to compare with", complete="runs")] = "",
    step: Annotated[int | None, option("--step", help="the evaluation at this step (default: the newest)")] = None,
    fail_below: Annotated[
        float | None, option("--fail-below", help="with --vs: exit 1 if a class or the mean is worse by more, points")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Per-class IoU of a run's evaluation, from its confusion matrix."""
    from mmtui.services import runs

    home = Home.from_environment()
    if fail_below is not None and not vs:
        raise UsageError("--fail-below compares with another run: add --vs RUN")
    ids = [runs.resolve(home, selector) for selector in ([run, vs] if vs else [run])]
    tables = []
    for run_id in ids:
        found = runs.class_table(home, run_id, step)
        if found is None:
            raise NotFoundError(
                f"run {run_id} has no evaluation" + (f" at step {step}" if step is not None else " yet"),
                f"see where it is with: mmtui show {run_id}",
            )
        tables.append(found)
    if as_json:
        body = jsonform.classes(tables[0])
        render.document({**body, "vs": jsonform.classes(tables[1])} if vs else body)
    elif vs:
        # The difference is that of the run asked about to the one it is compared with.
        render.class_comparison([f"run {ids[1]}", f"run {ids[0]}"], tables[::-1])
    else:
        render.class_table(tables[0])
    return _regression(tables, fail_below) if fail_below is not None else int(ExitCode.OK)


def _regression(tables: Sequence[ClassTable], allowed: float) -> int:
    """1 if the mean or a class of the first run is worse than the second's by more than so many points."""
    now, before = tables
    pairs = [("mIoU", now.miou, before.miou)]
    earlier = {row.name: row.iou for row in before.classes}
    pairs += [(row.name, row.iou, earlier.get(row.name)) for row in now.classes]
    worse = [
        (name, 100 * (one - other))
        for name, one, other in pairs
        if one is not None and other is not None and 100 * (one - other) < -abs(allowed)
    ]
    for name, points in worse:
        say(f"error: {name} is worse by {-points:.2f} points; {abs(allowed):g} are allowed")
    return int(ExitCode.FAILED if worse else ExitCode.OK)


def metrics(
    run: RunArgument,
    metric: Annotated[str, option("--metric", "-m", help="metric name; without it the names are listed")] = "",
    last: Annotated[int | None, option("--last", "-n", help="only the last N points", minimum=1)] = None,
    around: Annotated[int | None, option("--around", help="only near this step of its stage")] = None,
    window: Annotated[int, option("--window", help="with --around: so many steps to either side", minimum=0)] = 20,
    smooth: Annotated[int, option("--smooth", help="mean of the last N points; none is invented", minimum=1)] = 1,
    all_attempts: Annotated[bool, option("--all-attempts", help="with tails that were done again")] = False,
    as_json: JsonOption = False,
) -> None:
    """The points of a metric, or the names of all metrics of a run."""
    from mmtui.services import runs

    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    names = runs.metric_names(home, run_id)
    if not metric:
        _metric_names(run_id, names, as_json)
        return
    if metric not in names:
        raise NotFoundError(f"run {run_id} has no metric '{metric}'", f"it has: {', '.join(names) or 'none yet'}")
    points = runs.points(home, run_id, metric, all_attempts=all_attempts)
    points = smoothed(points, smooth)
    if around is not None:
        points = [point for point in points if abs(point.step - around) <= window]
    points = points[-last:] if last else points
    if as_json:
        render.document({"run": run_id, "metric": metric, "points": [jsonform.point(p) for p in points]})
        return
    rows = [(p.stage, str(p.step), str(p.attempt), render.number(p.value, 6)) for p in points]
    render.table(("stage", "step", "attempt", metric), rows, right=(1, 2, 3))


def smoothed(points: Sequence[Point], count: int) -> list[Point]:
    """Each value replaced by the mean of itself and the ``count`` - 1 before it in the same stage and attempt."""
    found: list[Point] = []
    recent: deque[float] = deque(maxlen=count)
    before: tuple[str, int] | None = None
    for point in points:
        if (point.stage, point.attempt) != before:
            recent.clear()
            before = (point.stage, point.attempt)
        recent.append(point.value)
        found.append(replace(point, value=mean(recent)))
    return found


def _metric_names(run_id: str, names: list[str], as_json: bool) -> None:
    if as_json:
        render.document({"run": run_id, "metrics": names})
    elif names:
        render.block("\n".join(names))
    else:
        say(f"run {run_id} has logged nothing yet")


def news(
    since: Annotated[str, option("--since", help="in the last 90m, 12h, 2d (default: since the last look)")] = "",
    as_json: JsonOption = False,
) -> None:
    """What has ended while you were away; from now on that counts as seen."""
    from mmtui.domain.lengths import seconds_ago
    from mmtui.services import news as service

    home, now = Home.from_environment(), time.time()
    found = service.since(home, now - seconds_ago(since, "--since") if since else None)
    if as_json:
        ended = [one._asdict() for one in found.ended]
        body = {"since": jsonform.when(found.since), "ended": ended, "put_back": found.lost_and_found}
        render.document(body)
    else:
        lines = found.lines(now)
        render.block("\n".join(lines)) if lines else say("nothing has ended since you last looked")
    if not since:
        try:
            service.mark_seen(home, now)
        except UnreachableError as error:
            say(f"that you have seen this is not remembered: {error.message}")  # on a home that is read-only
