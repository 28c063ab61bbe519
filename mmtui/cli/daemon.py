"""``mmtui daemon start|stop|status``: the supervisor."""

from __future__ import annotations

from typing import Annotated

import typer

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.cli.options import JsonOption
from mmtui.errors import ExitCode
from mmtui.paths import Home

app = typer.Typer(help="The supervisor that starts and watches runs.", no_args_is_help=True)


@app.command()
def start() -> None:
    """Start the supervisor in the background, if none runs."""
    from mmtui.services import supervisors

    home = Home.from_environment()
    before = supervisors.status(home)
    found = supervisors.ensure(home)
    say(f"the supervisor {'already runs' if before.running else 'runs now'} (pid {found.pid}) for {home.root}")


@app.command()
def stop(
    timeout: Annotated[float, typer.Option("--timeout", help="seconds to wait for it to leave")] = 10,
) -> None:
    """Stop the supervisor; runs that train go on and the next supervisor takes them over."""
    from mmtui.services import supervisors

    stopped = supervisors.stop(Home.from_environment(), timeout)
    say("the supervisor has stopped; runs go on" if stopped else "no supervisor runs")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Whether a supervisor runs; exit 3 if not."""
    from mmtui.services import supervisors

    found = supervisors.status(Home.from_environment())
    if as_json:
        body = {
            "running": found.running,
            "pid": found.pid,
            "started_at": jsonform.when(found.started_at),
            "active_runs": found.active_runs,
            "queued_runs": found.queued_runs,
            "home": found.home,
        }
        render.document({"supervisor": body})
    elif found.running:
        render.line(f"running (pid {found.pid}): {found.active_runs} active, {found.queued_runs} queued")
    else:
        render.line(f"not running: {found.active_runs} active, {found.queued_runs} queued")
    if not found.running:
        raise typer.Exit(int(ExitCode.UNREACHABLE))
