"""Verbs that read: ls, show, classes, metrics, recipes, gpu, queue, doctor."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import JsonOption, RunArgument
from mmtui.domain.states import RunState
from mmtui.domain.text import duration, printable, size
from mmtui.domain.views import GpuView, RunDetail
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home

DEFAULT_ROWS = 30


def ls(
    state: Annotated[list[str] | None, typer.Option("--state", help="only runs in this state (repeatable)")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="newest N runs")] = DEFAULT_ROWS,
    all_: Annotated[bool, typer.Option("--all", "-a", help="all runs")] = False,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from mmtui.services import runs

    known = {item.value for item in RunState}
    for name in state or []:
        if name not in known:
            raise UsageError(f"--state {name}: there is no such state", f"write one of {', '.join(sorted(known))}")
    home = Home.from_environment()
    rows = runs.list_runs(home, limit=None if all_ else limit, states=state or None)
    if as_json:
        render.document({"runs": [jsonform.run(row) for row in rows]})
        return
    if not rows:
        say("no runs" + ("" if state else " yet; start one with: mmtui run shapes_mixmatch, or: mmtui demo"))
        return
    render.runs_table(rows, time.time())
    total = sum(count for name, count in runs.count_runs(home).items() if not state or name in state)
    if len(rows) < total:
        say(f"{len(rows)} of {total} runs; all of them with --all")


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
    row = found.row
    facts = [
        ("run", f"{row.id}  {printable(row.name)}"),
        ("state", f"{row.state}" + (f": {printable(row.reason)}" if row.reason else "")),
        ("recipe", f"{row.recipe}  {' '.join(found.overrides)}".rstrip()),
        ("seed", str(row.seed)),
        ("created", jsonform.when(row.created_at) or "-"),
        ("took", duration((row.ended_at or time.time()) - row.started_at) if row.started_at else "-"),
        ("device", ", ".join(row.gpus) + (f" ({found.host['device']})" if found.host.get("device") else "") or "-"),
        ("code", f"{found.code.get('digest', '-')}{_commit(found)}"),
        ("loss", render.number(row.metrics.get("loss"))),
        ("mIoU", render.number(row.metrics.get("miou"), 4)),
        ("files", found.paths["run"]),
    ]
    for name, text in facts:
        render.line(f"{name:9}{text}")
    for stage in found.stages:
        eta = f"  ends in {duration(stage.eta_seconds)}" if stage.eta_seconds is not None else ""
        render.line(f"  {stage.name:9}{stage.status:9}{stage.step}/{stage.total_steps}{eta}")
    for attempt in found.attempts:
        resumed = f", went on from {attempt.resumed_stage} {attempt.resumed_step}" if attempt.resumed_stage else ""
        render.line(f"  attempt {attempt.number}: {attempt.outcome or 'alive'}{resumed}")
    for warning in found.warnings[:5]:
        render.line(f"  warning: {printable(warning)}")


def _commit(found: RunDetail) -> str:
    commit = found.code.get("commit")
    return f" (commit {commit[:10]}{', with changes' if found.code.get('dirty') else ''})" if commit else ""


def classes(
    run: RunArgument,
    vs: Annotated[str, typer.Option("--vs", help="a second run to compare with")] = "",
    step: Annotated[int | None, typer.Option("--step", help="the evaluation at this step (default: the newest)")] = None,
    as_json: JsonOption = False,
) -> None:
    """Per-class IoU of a run's evaluation, from its confusion matrix."""
    from mmtui.services import runs

    home = Home.from_environment()
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


def metrics(
    run: RunArgument,
    metric: Annotated[str, typer.Option("--metric", "-m", help="metric name; without it the names are listed")] = "",
    last: Annotated[int | None, typer.Option("--last", help="only the last N points")] = None,
    all_attempts: Annotated[bool, typer.Option("--all-attempts", help="with tails that were done again")] = False,
    as_json: JsonOption = False,
) -> None:
    """The points of a metric."""
    from mmtui.services import runs

    home = Home.from_environment()
    run_id = runs.resolve(home, run)
    names = runs.metric_names(home, run_id)
    if not metric:
        if as_json:
            render.document({"run": run_id, "metrics": names})
        else:
            for name in names:
                render.line(name)
        return
    if metric not in names:
        raise NotFoundError(f"run {run_id} has no metric '{metric}'", f"it has: {', '.join(names) or 'none yet'}")
    points = runs.points(home, run_id, metric, all_attempts=all_attempts)
    points = points[-last:] if last else points
    if as_json:
        render.document({"run": run_id, "metric": metric, "points": [jsonform.point(p) for p in points]})
        return
    rows = [(p.stage, str(p.step), str(p.attempt), render.number(p.value, 6)) for p in points]
    render.table(("stage", "step", "attempt", metric), rows, right=(1, 2, 3))


def recipes(as_json: JsonOption = False) -> None:
    """List the recipes that can be launched by name."""
    from mmtui.services import recipes as service

    found = service.list_recipes(Home.from_environment())
    if as_json:
        body = [
            {
                "name": view.name,
                "description": view.description,
                "data": view.data,
                "stages": [{"name": name, "steps": steps} for name, steps in view.stages],
                "reference_miou": view.reference_miou,
                "path": view.path,
                "error": view.error,
            }
            for view in found
        ]
        render.document({"recipes": body})
        return
    rows = [
        (
            view.name,
            view.data or "-",
            " ".join(f"{name}:{steps}" for name, steps in view.stages if name != "evaluate"),
            view.error or view.description,
        )
        for view in found
    ]
    render.table(("recipe", "data", "steps", "description"), rows)


def gpu(as_json: JsonOption = False) -> None:
    """The devices now: GPUs with their processes, CPU, memory, disk."""
    from mmtui.services import devices

    found = devices.snapshot(Home.from_environment())
    if as_json:
        render.document(jsonform.devices(found))
        return
    if found.simulated:
        render.line("SIMULATED: a recording plays the NVIDIA driver")
    for item in found.gpus:
        _gpu_lines(item)
    if found.gpu_note:
        render.line(found.gpu_note)
    render.line(f"CPU     {found.cpu_percent:.0f}% of {found.cpu_count} cores, load {found.load1:.2f}")
    render.line(f"memory  {size(found.memory_used)} of {size(found.memory_total)}")
    render.line(f"disk    {size(found.disk_free)} free of {size(found.disk_total)}")


def _gpu_lines(item: GpuView) -> None:
    if item.lost:
        render.line(f"GPU {item.index}  {item.name}  LOST: the driver does not reach it any more")
        return
    use = "n/a" if item.utilisation is None else f"{item.utilisation:.0f}%"
    heat = "" if item.temperature is None else f"  {item.temperature:.0f} C"
    power = "" if item.power_watts is None else f"  {item.power_watts:.0f} W"
    memory = f"{size(item.memory_used)} of {size(item.memory_total)}"
    render.line(f"GPU {item.index}  {item.name}  use {use}  memory {memory}{power}{heat}")
    for process in item.processes:
        whose = f"run {process.run}" if process.run else printable(process.user)
        render.line(f"         pid {process.pid}  {whose}  {size(process.memory)}")


def queue(as_json: JsonOption = False) -> None:
    """Short status: supervisor, numbers of runs, what is active."""
    queue_status(as_json)


def queue_status(as_json: bool) -> None:
    """The same, for ``mmtui`` in a pipe."""
    from mmtui.services import runs, supervisors

    home = Home.from_environment()
    counts, status = runs.count_runs(home), supervisors.status(home)
    if as_json:
        body = {"running": status.running, "pid": status.pid, "home": status.home}
        render.document({"supervisor": body, "counts": counts})
        return
    word = f"runs (pid {status.pid})" if status.running else "does not run"
    totals = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no runs yet"
    render.line(f"supervisor {word}; {totals}")
    busy = runs.list_runs(home, states=["starting", "running", "pausing", "stopping"], newest_first=False)
    if busy:
        render.runs_table(busy, time.time())


def doctor(as_json: JsonOption = False) -> None:
    """Check everything and say what to do; exit 1 if something is wrong."""
    from mmtui.services import doctor as service

    found = service.checks(Home.from_environment())
    if as_json:
        body = [{"name": c.name, "ok": c.ok, "text": c.text, "fix": c.fix if c.ok is False else ""} for c in found]
        render.document({"checks": body})
    else:
        words = {True: "ok", None: "note", False: "FAULT"}
        for check in found:
            color = {True: "green", None: "yellow", False: "red"}[check.ok]
            render.line(f"{render.paint(f'{words[check.ok]:6}', color)}{check.name:13}{check.text}")
            if check.ok is False and check.fix:
                render.line(f"{'':19}-> {check.fix}")
    if any(check.ok is False for check in found):
        raise typer.Exit(1)
