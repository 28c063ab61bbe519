"""``mmtui daemon start|stop|status``: the supervisor."""

from __future__ import annotations

from typing import Annotated

from mmtui.cli import jsonform, render
from mmtui.cli.diagnostics import say
from mmtui.cli.outputs import ForceOption, agreed
from mmtui.domain.options import DryRunOption, JsonOption, option
from mmtui.errors import ExitCode
from mmtui.paths import Home


def start() -> None:
    """Start the supervisor in the background, if none runs."""
    from mmtui.services import supervisors

    home = Home.from_environment()
    before = supervisors.status(home)
    found = supervisors.ensure(home)
    if found.note:
        say(f"note: {found.note}")
    say(f"the supervisor {'already runs' if before.running else 'runs now'} (pid {found.pid}) for {home.root}")


def stop(
    timeout: Annotated[float, option("--timeout", help="seconds to wait for it to leave", minimum=0)] = 10,
) -> None:
    """Stop the supervisor; runs that train go on and the next supervisor takes them over."""
    from mmtui.services import supervisors

    home = Home.from_environment()
    if not supervisors.stop(home, timeout):
        say("no supervisor runs")
        return
    active = supervisors.status(home).active_runs
    say("the supervisor has stopped" + (f"; {active} run{'' if active == 1 else 's'} train on" if active else ""))


def status(as_json: JsonOption = False) -> int:
    """Whether a supervisor runs; exit 3 if not."""
    from mmtui.services import supervisors

    found = supervisors.status(Home.from_environment())
    if as_json:
        render.document({"supervisor": jsonform.supervisor(found)})
    else:
        for note in (found.note, f"{found.trouble}; see: mmtui doctor" if found.trouble else ""):
            if note:
                say(f"note: {note}")
        word = f"running (pid {found.pid})" if found.running else "not running"
        render.line(f"{word}: {found.active_runs} active, {found.queued_runs} queued")
    return int(ExitCode.OK if found.running else ExitCode.UNREACHABLE)


def install_service(dry_run: DryRunOption = False, force: ForceOption = False) -> None:
    """Write a systemd user unit, so that the supervisor starts with the machine."""
    from mmtui.services import service_unit

    home = Home.from_environment()
    if dry_run:
        render.block(service_unit.unit(home))
        return
    force = agreed(lambda force: service_unit.check_place(home, force=force), force=force)
    render.line(str(service_unit.install(home.create(), force=force)))
    say("start it now and after every reboot with: systemctl --user enable --now mmtui && loginctl enable-linger")
