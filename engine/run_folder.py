"""The folder that this process trains in. When somebody moves it, nothing is written in its old place: a second folder
there would hide the checkpoints of the first. No torch in here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import EngineError

_claimed: list[tuple[Path, os.stat_result]] = []


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Within it, what is written through here goes into this very folder or nowhere.

    Raises:
        OSError: there is none.
    """
    _claimed.append((run_dir, run_dir.stat()))
    try:
        yield
    finally:
        _claimed.pop()


def require() -> None:
    """Make sure that the folder is where it was.

    Raises:
        EngineError: it was moved, deleted or replaced.
    """
    for run_dir, known in _claimed:
        try:
            if os.path.samestat(run_dir.stat(), known):
                continue
        except OSError:
            pass
        raise EngineError(
            f"the run's folder {run_dir} was moved, deleted or replaced while it trained: put it back and retry the"
            " run, which goes on from its last checkpoint"
        )


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder within the run's, with its parents; one that is there is left alone.

    Raises:
        EngineError: see ``require``.
        OSError: the disk does not take it.
    """
    require()
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
