"""What -o means on every verb: a file, "-" for standard output, and what is asked before a file is written over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mmtui.cli import render
from mmtui.cli.diagnostics import ask, say
from mmtui.cli.options import option
from mmtui.errors import RefusedError, UsageError
from mmtui.services.output_files import IsOurs, check_target

STDOUT = Path("/dev/stdout")
ForceOption = Annotated[bool, option("--force", help="write over a file that is there, whoever made it")]


def output_path(text: str, *, stdout: bool = False, flag: str = "--output") -> Path:
    """The file that an option means; "-" is ``STDOUT``.

    Args:
        stdout: whether what this verb writes can go to standard output: text, in one piece.

    Raises:
        UsageError: it is empty, or "-" where nothing can be written to standard output.
    """
    if not text:
        raise UsageError(f"{flag}: write the name of a file")
    if text == "-":
        if stdout:
            return STDOUT
        raise UsageError(
            f"{flag} -: this cannot be written to standard output", "name a file; one that is called so is ./-"
        )
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # no such user: as a shell does
        return Path(text).absolute()


def allowed(target: Path, *, force: bool, is_ours: IsOurs | None = None, folder: bool = False) -> bool:
    """Whether ``target`` may be written over: by ``--force``, or because the person at the terminal says so now.

    To be called before anything is computed, and its answer to be given on as ``force``.

    Raises:
        RefusedError: something is there that may not be written over, and nobody agrees to it.
        UnreachableError: it cannot be known what is there.
    """
    try:
        check_target(target, force=force, is_ours=is_ours, folder=folder)
    except RefusedError as refused:
        check_target(target, force=True, is_ours=is_ours, folder=folder)  # what no --force helps is not asked
        if not ask(f"{refused.message}: write over it?"):
            raise
        return True
    return force


def announce(target: Path) -> None:
    """The name of what was written: on stdout for a script, or among the talk if the content itself went there."""
    say(f"written to {target}") if target == STDOUT else render.line(str(target))
