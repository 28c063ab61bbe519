"""The program ``mmtui``."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        from engine.utf8_mode import begin_in_utf8_mode
        from mmtui.cli.diagnostics import guarded
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("engine"):
            raise
        sys.exit(_another_engine())
    begin_in_utf8_mode()
    return guarded(lambda: dispatch(sys.argv[1:]))


def _another_engine() -> str:
    """Packages of this name are not rare; Python takes the first on its path."""
    import engine

    return f"error: another package called engine hides mmtui's: {engine.__path__[0]}\n  take it out of PYTHONPATH"


def dispatch(argv: list[str]) -> int:
    """Plain command lines go straight to their verb; the others, help and completion through Typer."""
    if "_MMTUI_COMPLETE" not in os.environ:
        if not argv:
            from mmtui.cli.screen import open_screen_or_status

            return open_screen_or_status()
        if argv == ["--version"]:
            from mmtui import __version__
            from mmtui.cli import render

            render.line(f"mmtui {__version__}")
            return 0
        from mmtui.cli.fast import parse

        found = parse(argv)
        if found is not None:
            verb, values = found
            return verb(**values) or 0
    elif os.environ["_MMTUI_COMPLETE"].startswith("complete_"):
        from mmtui.cli.diagnostics import tell_shell
        from mmtui.cli.quick_completion import answer

        told = answer()
        if told is not None:
            tell_shell(told)
            return 0
    from mmtui.cli.app import app

    app(prog_name="mmtui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
