"""What -o means on every verb: a file, "-" for standard output, and what is asked before a file is written over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from engine.paths import expanded
from mmtui.cli import render
from mmtui.cli.diagnostics import ask
from mmtui.domain.options import option
from mmtui.errors import RefusedError, UsageError
from mmtui.services.output_files import IsOurs, check_all

STDOUT = Path("/dev/stdout")
ForceOption = Annotated[bool, option("--force", help="write over a file that is there, whoever made it")]


def output_path(text: str, *, stdout: bool = False, flag: str = "--output") -> Path:
    """The file that an option means; "-" is ``STDOUT``.

    Args:
        stdout: whether what this verb writes can go to standard output: text, in one piece.

    Raises:
        UsageError: it is empty, "-" where nothing can be written to standard output, or in the home directory of
            nobody: folders of an output are made, and one called ``~name`` is what nobody wants.
    """
    if not text:
        raise UsageError(f"{flag}: write the name of a file")
    if text == "-":
        if stdout:
            return STDOUT
        raise UsageError(
            f"{flag} -: this cannot be written to standard output", "name a file; one that is called so is ./-"
        )
    path = expanded(text)
    if text.startswith("~") and str(path).startswith("~"):
        raise UsageError(f"{flag} {text}: there is no such home directory", f"a file that is called so is ./{text}")
    return path.absolute()


def refuse_no_folder(target: Path) -> None:
    """Before anything is computed for a folder: something else must not be in its place.

    Raises:
        RefusedError: a file is there, or a link that leads nowhere.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise RefusedError(f"{target} is no folder", "name a folder, which need not be there yet")


def allowed(*targets: Path, force: bool, is_ours: IsOurs | None = None) -> bool:
    """Whether files may be written over: by ``--force``, or because the person at the terminal says so now.

    To be called before anything is computed, and its answer to be given on as ``force``.

    Raises:
        RefusedError: something is there that may not be written over, and nobody agrees to it.
        UnreachableError: it cannot be known what is there.
    """
    return agreed(lambda force: check_all(targets, is_ours, force=force), force=force)


def agreed(check: Callable[[bool], None], *, force: bool) -> bool:
    """The same of any check that refuses what may not be written over: ``check(force)``."""
    try:
        check(force)
    except RefusedError as refused:
        check(True)  # what no --force helps is not asked
        if not ask(f"{refused.message}: write over it?"):
            raise
        return True
    return force


def announce(target: Path) -> None:
    """The name of what was written on stdout, unless the content itself went there."""
    if target != STDOUT:
        render.line(str(target))
