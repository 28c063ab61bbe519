"""Files that a user named: nothing of another's is written over, and what stands there is whole at every moment.

Everything is written beside its target, under a hidden name, and renamed when it lies on the disk. No torch in here:
the front ends write with the same functions (``mmtui.services.output_files``).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.errors import EngineError
from engine.files import sync_folder

NAME_MAX = 255
"""Bytes that a file name may have on every file system in use."""
_MORE = 16
"""Bytes that a program may add to the name of the new file, as SQLite does for its journal."""
IDLE_SECONDS = 3600.0
"""What a process that is gone has not written to for so long is not being written any more."""
_LEFT_BEHIND = re.compile(r"\.(.+)\.([0-9]{1,10})\.[0-9a-f]{8}\.new", re.DOTALL)
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
"""What ``link`` says where the file system knows no second names."""


class OutputExistsError(EngineError):
    """A file is there that the program may not write over without being told to."""

    exit_code = 5


def obstacle(target: Path, is_ours: Callable[[Path], bool] | None = None, *, force: bool = False) -> str:
    """Why nothing may be written to ``target``, as a sentence without an end; "" if it may.

    Links are followed. Pipes, terminals and the like of ``/dev/null`` may always be written to, block devices only with
    ``force``; a folder never.

    Args:
        is_ours: whether the file that is there was made by this program, so that a newer one may take its place; it is
            called for regular files that are writable.
        force: a file may be written over whoever made it.

    Raises:
        OSError: it cannot be known what is there: a circle of links, a folder that cannot be searched.
    """
    if _descriptor(target) is not None:
        return ""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISDIR(mode):
        return f"{target} is a folder"
    if force or not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return ""
    if is_ours is None:
        return f"{target} exists already"
    if not stat.S_ISREG(mode) or not is_ours(target):
        return f"{target} exists already and was made or changed by someone else"
    writable = mode & 0o222 and os.access(target, os.W_OK)  # root has access to everything
    return "" if writable else f"{target} exists already and is read-only"


def folder_obstacle(target: Path, is_ours: Callable[[Path], bool] | None = None, *, force: bool = False) -> str:
    """The same of a folder that is to be replaced as a whole. An empty folder holds nothing to lose."""
    try:
        with os.scandir(target) as entries:
            empty = next(entries, None) is None
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"{target} is no folder"
    if empty or force:
        return ""
    if is_ours is None:
        return f"the folder {target} exists already"
    return "" if is_ours(target) else f"the folder {target} exists already and was made or changed by someone else"


def is_terminal(target: Path) -> bool:
    """Whether a person sees at once what is written to ``target``: ``/dev/stdout`` of a terminal, ``/dev/tty``."""
    descriptor = _descriptor(target)
    if descriptor is not None:
        return os.isatty(descriptor)
    try:
        if not stat.S_ISCHR(target.stat().st_mode):
            return False
        opened = os.open(target, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.isatty(opened)
    finally:
        os.close(opened)


@contextmanager
def replacing(target: Path, *, overwrite: bool, mode: int | None = None) -> Iterator[Path]:
    """A new file beside ``target`` to write into (it is there, empty); it becomes ``target`` when the body ends well.

    Whatever ends the body otherwise, the new file is removed and ``target`` stays as it was. Missing folders above it
    are made, and removed if it fails. A link is followed. What is no regular file (``/dev/stdout``, a pipe) is written
    to when all is known, from a temporary file, so that a body may always seek. The name of the new file does not end
    as the target's does: tell an encoder its format.

    Args:
        overwrite: a file that is there is replaced; else ``target`` must be new, also at the end.
        mode: permissions of the result; None: those of the file that is replaced, else what the umask leaves.

    Raises:
        OutputExistsError: a file is there, or was made meanwhile, and is not to be overwritten.
        OSError: it cannot be written; it names ``target``, not the new file.
    """
    descriptor = _descriptor(target)
    if descriptor is not None or _is_special(target):
        with _spooled(target, descriptor) as path:
            yield path
        return
    final = _destination(target)
    before = _state(final)
    if before is not None and not overwrite:
        raise _exists(target)
    with _folders_above(final):
        _sweep(final)
        beside = _beside(final)
        try:
            _create(beside, before, mode)
            yield beside
            _finish(beside, before, mode)
            _put_in_place(beside, final, target, overwrite=overwrite)
        except OSError as error:
            _name(error, beside, target)
            raise
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """The same of a folder: the new one is filled, then stands in the place of the old one, which is removed then.

    Between two renames there is a moment without ``target``; if the second one fails, the old folder is put back.

    Raises:
        OutputExistsError: a folder that is not empty is there and is not to be replaced.
        OSError: it cannot be written.
    """
    final = _destination(target)
    if folder_obstacle(final, force=overwrite):
        raise _exists(target)
    with _folders_above(final):
        _sweep(final)
        beside = _beside(final)
        try:
            beside.mkdir()
            yield beside
            _sync_all(beside)
            _swap(beside, final, target, overwrite=overwrite)
        except OSError as error:
            _name(error, beside, target)
            raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def write_all(files: Mapping[Path, bytes], is_ours: Callable[[Path], bool], *, force: bool) -> None:
    """Several files, none of them unless all may be written; a disk that is full meanwhile leaves some of them.

    Raises:
        OutputExistsError: at least one is there, was not made by this program or was changed, and not ``force``.
        OSError: one cannot be written.
    """
    problems = [found for path in files if (found := obstacle(path, is_ours, force=force))]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise OutputExistsError(f"{problems[0]}{more}")
    for path, content in files.items():
        write_bytes(path, content, overwrite=force or path.exists())


def write_bytes(target: Path, content: bytes | memoryview, *, overwrite: bool) -> None:
    """A whole file; raises as ``replacing`` does."""
    with replacing(target, overwrite=overwrite) as path, path.open("wb") as file:
        file.write(content)


def write_text(target: Path, text: str, *, overwrite: bool) -> None:
    """The same for text, as UTF-8."""
    write_bytes(target, text.encode("utf-8"), overwrite=overwrite)


def error_text(error: OSError, target: Path) -> str:
    """The sentence for a file that cannot be written; a full disk is called by its name, with what is left."""
    if error.errno == errno.EDQUOT:
        return f"{target} cannot be written: your quota of that disk is used up; free some space, or name another disk"
    if error.errno != errno.ENOSPC:
        return f"{target} cannot be written: {error.strerror or error}"
    folder = next((parent for parent in target.parents if parent.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free / 2**20
    return (
        f"{target} cannot be written: the disk is full, {free:.1f} MiB are left there;"
        " free some space, or name a file on another disk"
    )


def _name(error: OSError, beside: Path, target: Path) -> None:
    """An error about the new file is one about its target: nobody knows the hidden name."""
    name = error.filename
    if isinstance(name, str | bytes | os.PathLike) and os.fsdecode(name).startswith(str(beside)):
        error.filename, error.filename2 = str(target), None


def _exists(target: Path) -> OutputExistsError:
    return OutputExistsError(f"{target} exists already")


def _descriptor(target: Path) -> int | None:
    """Which open file of this process a name like /dev/stdout or /dev/fd/3 means."""
    text = os.path.normpath(target)
    if (standard := re.fullmatch(r"/dev/(stdin|stdout|stderr)", text)) is not None:
        return _STANDARD[standard[1]]
    found = re.fullmatch(rf"(?:/dev/fd|/proc/(?:self|thread-self|{os.getpid()})/fd)/([0-9]{{1,9}})", text)
    return int(found[1]) if found is not None else None


def _is_special(target: Path) -> bool:
    """Whether something other than a regular file or a folder is there, which no file can take the place of."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def _spooled(target: Path, descriptor: int | None) -> Iterator[Path]:
    """A temporary file whose content goes to a pipe, a device or an open file at the end."""
    with tempfile.TemporaryDirectory(prefix="mmtui-") as folder:
        path = Path(folder) / "output"
        path.touch()
        yield path
        if descriptor == 1 and sys.stdout is not None:
            sys.stdout.flush()  # what was printed before stands before
        opened = os.open(target, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
        with path.open("rb") as source, os.fdopen(opened, "wb") as sink:
            shutil.copyfileobj(source, sink)


def _destination(target: Path) -> Path:
    """Where a link leads to, also where nothing is yet."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def _state(file: Path) -> os.stat_result | None:
    """What is known of the regular file that is there; None if nothing is.

    Raises:
        OSError: it is a folder, or cannot be known.
    """
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    return found


def _beside(final: Path) -> Path:
    """A hidden name in the same folder that nobody else uses, no longer than a name may be."""
    return final.with_name(f".{_stem(final.name)}.{os.getpid()}.{secrets.token_hex(4)}.new")


def _stem(name: str) -> str:
    # Cut between characters where they are such, so that file systems that insist on UTF-8 take it.
    whole, room = os.fsencode(name), NAME_MAX - _MORE - len(f"..{2**22}.{0:08}.new")
    return os.fsdecode(whole if len(whole) <= room else whole[:room].decode("utf-8", "ignore").encode())


def _sweep(final: Path) -> None:
    """Remove what processes that were killed have left of earlier files of this name."""
    for name, path in left_behind(final.parent, _LEFT_BEHIND):
        if name == _stem(final.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder that nobody needs, if that is possible."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@functools.cache
def left_behind(folder: Path, pattern: re.Pattern[str]) -> tuple[tuple[str, Path], ...]:
    """(name, path) of hidden files and folders that nobody writes to any more; looked for once in a process.

    The process that made one may be of another machine that shares the folder, so that its pid says nothing here: what
    was written to within the last hour stays.

    Args:
        pattern: of their names; its groups are the name that it was to get, and the pid.
    """
    found = []
    before = time.time() - IDLE_SECONDS
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and not _lives(int(match[2])) and entry.stat(follow_symlinks=False).st_mtime < before:
                found.append((match[1], folder / entry.name))
    return tuple(found)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _create(beside: Path, before: os.stat_result | None, mode: int | None) -> None:
    """An empty file that nobody may read who may not read the result."""
    wanted = mode if mode is not None else 0o666 if before is None else stat.S_IMODE(before.st_mode)
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, wanted | stat.S_IWUSR))


def _finish(beside: Path, before: os.stat_result | None, mode: int | None) -> None:
    """Owner and permissions of the file that is replaced, and all of it on the disk."""
    descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if before is not None:
            with contextlib.suppress(OSError):  # only root gives files away
                os.fchown(descriptor, before.st_uid, before.st_gid)
        wanted = mode if mode is not None or before is None else stat.S_IMODE(before.st_mode)
        if wanted is not None:
            os.fchmod(descriptor, wanted)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place(beside: Path, final: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite:
        beside.replace(final)
    else:
        try:
            os.link(beside, final)  # unlike a rename it takes no other file's place
        except FileExistsError:
            raise _exists(target) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(final):
                raise _exists(target) from None
            beside.rename(final)
        beside.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it stands there whole, whatever this file system says to it
        sync_folder(final.parent)


def _swap(beside: Path, final: Path, target: Path, *, overwrite: bool) -> None:
    try:
        beside.rename(final)  # where nothing is, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not overwrite:
            raise _exists(target) from None
        aside = _beside(final)
        final.rename(aside)
        try:
            beside.rename(final)
        except BaseException:
            aside.rename(final)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        sync_folder(final.parent)


def _sync_all(folder: Path) -> None:
    for found, _, files in os.walk(folder):
        for name in files:
            path = Path(found) / name
            if path.is_symlink() or not path.is_file():
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        with contextlib.suppress(OSError):
            sync_folder(Path(found))


@contextmanager
def _folders_above(final: Path) -> Iterator[None]:
    """Make the folders that are missing; those that were made go again if the body fails."""
    missing = [folder for folder in final.parents if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise
