"""How far a verb is that takes longer than a moment: a line on the terminal, which is gone at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _untold(_done: int, _total: int) -> None:
    """Nobody looks on."""


@contextmanager
def work_bar(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A function to be called with (done, total): on a terminal it draws share and remaining time on stderr."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _untold
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from mmtui.domain.text import printable

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(printable(what), total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
