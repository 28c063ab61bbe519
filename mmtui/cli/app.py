"""The verbs. Each parses, calls one service and renders; services are imported when a verb runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mmtui import __version__
from mmtui.cli import daemon, follow, reading, writing
from mmtui.errors import UsageError
from mmtui.paths import Home

app = typer.Typer(
    name="mmtui",
    help="Queue, train, watch and compare Mix-and-Match tuned segmentation networks, in the terminal.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Without a verb: the screen, on a terminal; a short status otherwise. Data live in MMTUI_HOME.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from mmtui.cli import render

        render.line(f"mmtui {__version__}")
        raise typer.Exit


@app.callback()
def main_callback(
    context: typer.Context,
    color: Annotated[str, typer.Option(help="auto, always or never (NO_COLOR is honoured)")] = "auto",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and leave")
    ] = False,
) -> None:
    from mmtui.cli import render

    if color not in ("auto", "always", "never"):
        raise UsageError(f"--color {color}: write auto, always or never")
    render.set_color(color)
    if context.invoked_subcommand is None:
        open_screen_or_status()


def open_screen_or_status() -> None:
    """The screen on a terminal; a short status in a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        reading.queue_status(as_json=False)
        return
    open_screen(Home.from_environment())


def open_screen(home: Home, select: str | None = None) -> None:
    """Run the full-screen program.

    Raises:
        UsageError: the terminal cannot show it.
    """
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("TERM=dumb has no full screen", "follow runs as plain lines with: mmtui watch")
    from mmtui.tui.app import run

    raise typer.Exit(run(home, select))


app.command("run")(writing.run)
for _verb in ("cancel", "pause", "resume", "retry", "hold", "release"):
    app.command(_verb)(getattr(writing, _verb))
app.command("ls")(reading.ls)
app.command("show")(reading.show)
app.command("classes")(reading.classes)
app.command("metrics")(reading.metrics)
app.command("recipes")(reading.recipes)
app.command("gpu")(reading.gpu)
app.command("queue")(reading.queue)
app.command("logs")(follow.logs)
app.command("watch")(follow.watch)
app.command("wait")(follow.wait)
app.command("demo")(follow.demo)
app.command("doctor")(reading.doctor)
app.add_typer(daemon.app, name="daemon")
# What fingers type out of habit; not shown in the help.
app.command("list", hidden=True)(reading.ls)
app.command("ps", hidden=True)(reading.ls)
app.command("status", hidden=True)(reading.queue)
app.command("tail", hidden=True)(follow.logs)
app.command("kill", hidden=True)(writing.cancel)
