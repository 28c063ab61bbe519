"""Files that a user named (``-o FILE``): not over another's file, and whole or not there at all.

How they are written is the engine's (``engine.outputs``), which has outputs of its own; here are the errors and exit
codes of mmtui. Whether a person at the terminal agrees to write over a file is asked in ``mmtui.cli.outputs``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from engine import outputs
from mmtui.errors import RefusedError, UnreachableError

IsOurs = Callable[[Path], bool]
"""Whether mmtui has made what is there."""
HINT = "give another name, or write over it with --force"


def check_target(target: Path, *, force: bool, is_ours: IsOurs | None = None, folder: bool = False) -> None:
    """Refuse what must not be written over, before anything has been computed.

    Links are followed; pipes and the like of ``/dev/stdout`` may always be written to.

    Args:
        force: a file may be written over whoever made it (a folder never is, where a file is to be written).
        is_ours: recognises a file that this program made, which a newer one may replace; None: no file may be.
        folder: the target is to be a folder; one that is there may be replaced if it is empty, ours, or by ``force``.

    Raises:
        RefusedError: something is there that may not be written over.
        UnreachableError: it cannot be known what is there.
    """
    try:
        problem = (outputs.folder_obstacle if folder else outputs.obstacle)(target, is_ours, force=force)
    except OSError as error:
        raise unwritable(error, target) from None
    if problem:
        stays = force or problem.endswith(("is a folder", "is no folder"))
        raise RefusedError(problem, "give another name" if stays else HINT)


@contextmanager
def replacing(target: Path, *, force: bool, is_ours: IsOurs | None = None, mode: int | None = None) -> Iterator[Path]:
    """A file beside ``target`` to write into, which becomes ``target`` when the body ends well (``engine.outputs``).

    Args:
        force, is_ours: as of ``check_target``, which is asked first.
        mode: permissions of the result; None: those of the file that is replaced, else what the umask leaves.

    Raises:
        RefusedError: something is there that may not be written over, or came meanwhile.
        UnreachableError: it cannot be written: no such folder, no right to, a full disk. The target is as it was.
    """
    check_target(target, force=force, is_ours=is_ours)
    with _told(target, outputs.replacing(target, overwrite=_may_replace(target, force, is_ours), mode=mode)) as path:
        yield path


@contextmanager
def replacing_folder(target: Path, *, force: bool, is_ours: IsOurs | None = None) -> Iterator[Path]:
    """The same of a folder, which is replaced as a whole: the old one is removed when the new one stands.

    Raises:
        RefusedError, UnreachableError: as of ``replacing``.
    """
    check_target(target, force=force, is_ours=is_ours, folder=True)
    overwrite = _may_replace(target, force, is_ours)
    with _told(target, outputs.replacing_folder(target, overwrite=overwrite)) as path:
        yield path


def check_all(targets: Iterable[Path], is_ours: IsOurs | None = None, *, force: bool) -> None:
    """``check_target`` of several files; one error names the first of those that are in the way, and counts them."""
    refused = []
    for target in targets:
        try:
            check_target(target, force=force, is_ours=is_ours)
        except RefusedError as error:
            refused.append(error)
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise RefusedError(f"{refused[0].message}{more}", refused[0].hint)


def write_all(files: Mapping[Path, bytes], is_ours: IsOurs | None = None, *, force: bool) -> None:
    """Several files, each whole; none of them if one may not be written over.

    Raises:
        RefusedError, UnreachableError: as of ``replacing``.
    """
    check_all(files, is_ours, force=force)
    for target, content in files.items():
        with replacing(target, force=force, is_ours=is_ours) as path:
            path.write_bytes(content)


def write_text(target: Path, text: str, *, force: bool, is_ours: IsOurs | None = None, mode: int | None = None) -> None:
    """A whole text file, as UTF-8; raises as ``replacing`` does."""
    with replacing(target, force=force, is_ours=is_ours, mode=mode) as path:
        path.write_text(text, encoding="utf-8", newline="")


def unwritable(error: OSError, target: Path) -> UnreachableError:
    """The error for a file that cannot be written; a full disk is called by its name."""
    return UnreachableError(outputs.error_text(error, target))


def _may_replace(target: Path, force: bool, is_ours: IsOurs | None) -> bool:
    """Whether what is there now was looked at; what comes later may not be replaced, except by force."""
    return force or (is_ours is not None and os.path.lexists(target))


@contextmanager
def _told(target: Path, writing: AbstractContextManager[Path]) -> Iterator[Path]:
    """Errors of writing in the words of mmtui; those about other files, which a body reads, are left as they are."""
    places = {str(target), *map(str, Path(os.path.realpath(target)).parents), *map(str, target.parents)}
    try:
        with writing as path:
            yield path
    except outputs.OutputExistsError as error:
        raise RefusedError(str(error), HINT) from None
    except OSError as error:
        if error.filename is not None and str(error.filename) not in places:
            raise
        raise unwritable(error, target) from None
