"""A capsule: one run in one file, with everything that made it and came of it, verified when it is taken in.

A tar file: ``capsule.json`` (what it is, and the SHA-256 of every other member), ``run/`` (recipe, manifest, events,
output, final weights, predictions) and ``code/`` (the frozen engine).
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from engine.config import RecipeFileError
from engine.json_types import Json
from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.errors import MmtuiError, RefusedError, UnreachableError, UsageError
from mmtui.paths import Home, RunPaths
from mmtui.services import code, runs, trust, unfinished, writers
from mmtui.services.output_files import replacing
from mmtui.services.register import register
from mmtui.services.run_folders import highest_folder
from mmtui.services.written import remember, unchanged
from mmtui.store.db import Database
from mmtui.store.queries import known
from mmtui.store.session import reading

FORMAT = 1
LARGEST_HEADER = 16 * 2**20
_LEFT_OUT = re.compile(r"(step_\d+.*|.*\.writing|.*\.lock|attempt|pid|terminated|__pycache__)")
"""Step checkpoints (the final weights are there), locks, and what belongs to processes; hidden files, too. None is
written, and none is taken in."""


def export(home: Home, run_id: str, target: Path, *, force: bool = False) -> int:
    """Write a finished run to a capsule, which may take the place of another one; returns its size in bytes.

    Raises:
        RefusedError: the run has not ended, or something else is there and there is no ``force``.
        UnreachableError: it cannot be written.
    """
    found = runs.get_run(home, run_id)
    if RunState(found.row.state) not in FINAL_STATES:
        raise RefusedError(f"run {run_id} is {found.row.state}: only a run that has ended fits a capsule")
    members = dict(_members(home, run_id, _code_folder(home, run_id, found.code)))
    sums = {name: _digest(file) for name, file in members.items()}
    header = {
        "format": FORMAT,
        "run": run_id,
        "name": found.row.name,
        "state": found.row.state,
        "versions": found.versions,
        "data_fingerprint": found.data_fingerprint,
        "host": found.host,
        "files": sums,
    }
    with (
        replacing(target, force=force, is_ours=unchanged(home, is_capsule)) as path,
        tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive,
    ):
        text = json.dumps(header, indent=1).encode()
        info = tarfile.TarInfo("capsule.json")
        info.size, info.mode = len(text), 0o600
        archive.addfile(info, io.BytesIO(text))
        for name, file in sorted(members.items()):
            archive.add(file, name, recursive=False)
    remember(home, target)
    return target.stat().st_size


def is_capsule(file: Path) -> bool:
    """Whether a file begins as a capsule does."""
    try:
        look(file)
    except UsageError:
        return False
    return True


def _code_folder(home: Home, run_id: str, found: Mapping[str, Json]) -> Path | None:
    """The code that a run brought along, else its frozen copy; None if that is gone."""
    brought = trust.brought(home, run_id, found)
    if brought is not None:
        return brought.folder
    with suppress(MmtuiError):
        return code.own_folder(home, found)
    return None


def _members(home: Home, run_id: str, code_folder: Path | None) -> Iterator[tuple[str, Path]]:
    roots = {"run": home.run(run_id).root} | ({"code": code_folder} if code_folder else {})
    for prefix, root in roots.items():
        for file in sorted(root.rglob("*")):
            parts = file.relative_to(root).parts
            if file.is_file() and not file.is_symlink() and not _is_left_out(parts):
                yield str(PurePosixPath(prefix, *parts)), file


def _is_left_out(parts: Sequence[str]) -> bool:
    return any(_LEFT_OUT.fullmatch(part) or part.startswith(".") for part in parts)


@dataclass(frozen=True)
class Contents:
    """What a capsule says that it holds; texts are a stranger's. ``size``: of its file, in bytes."""

    name: str
    state: str
    files: int
    size: int
    code: str
    """SHA-256 of its code, "" without any."""
    is_own_code: bool
    """Whether that is the engine installed here."""


def look(source: Path) -> Contents:
    """Read what a capsule holds; nothing is unpacked.

    Raises:
        UsageError: the file is no capsule.
    """
    with _told(source), tarfile.open(source, "r:") as archive:
        header = _header(archive)
        digest = _digest_of_code(header["files"])
        return Contents(
            name=str(header.get("name", "")),
            state=str(header.get("state", "")),
            files=len(header["files"]),
            size=source.stat().st_size,
            code=digest,
            is_own_code=bool(digest) and digest == code.installed(),
        )


def _digest_of_code(sums: Mapping[str, str]) -> str:
    """SHA-256 of a capsule's code by the sums of its files, which unpacking checks."""
    files = {name.removeprefix("code/"): total for name, total in sums.items() if name.startswith("code/")}
    loadable = {path: total for path, total in files.items() if not code.CHANGES.fullmatch(path)}
    return code.digest_of(loadable) if loadable else ""


def take_in(home: Home, source: Path) -> tuple[str, bool]:
    """Take in a capsule; returns the run's id here, and whether it was new. Taking the same in again changes nothing.

    Raises:
        UsageError: the file is no capsule, or not what was written.
    """
    home.create()
    unfinished.sweep(home)
    with _told(source, home), tarfile.open(source, "r:") as archive:
        header = _header(archive)
        # What the run is: the same capsule again has the same sums.
        stamp = hashlib.sha256(json.dumps(header["files"], sort_keys=True).encode()).hexdigest()
        with tempfile.TemporaryDirectory(prefix=f".import-{writers.mark()}-", dir=home.root) as folder:
            _unpack(archive, header["files"], Path(folder))
            earlier = _known(home, stamp)
            return (earlier, False) if earlier else (_place(home, Path(folder), header, stamp), True)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_SUCH_NAME = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""A member is called as another one, or as the folder of another one, or as no file of this file system can be."""


@contextmanager
def _told(source: Path, home: Home | None = None) -> Iterator[None]:
    """Whatever is wrong with a capsule is the user's to know, in one sentence; ``home``: where it is written to."""
    try:
        yield
    except tarfile.TarError as error:
        raise UsageError(f"{source} is no capsule: {error}") from None
    except OSError as error:
        why = error.strerror or str(error)
        if home is not None and (error.errno in _NO_ROOM or str(error.filename).startswith(str(home.root))):
            raise UnreachableError(f"{home.root} cannot be written: {why}", "nothing is imported") from None
        raise UsageError(f"{source} cannot be read: {why}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RecipeFileError) as error:
        raise UsageError(f"{source} is no capsule that this version can read: {error}") from None


def _header(archive: tarfile.TarFile) -> dict[str, Any]:
    first = archive.next()
    if first is None or first.name != "capsule.json" or not first.isreg() or first.size > LARGEST_HEADER:
        raise ValueError("it does not begin with capsule.json")
    file = archive.extractfile(first)
    assert file is not None
    header: dict[str, Any] = json.loads(file.read())
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']}")
    for name, total in header["files"].items():
        if not isinstance(total, str) or not code.FULL.fullmatch(total):
            raise ValueError(f"{name!r} has no SHA-256")
    return header


def _unpack(archive: tarfile.TarFile, sums: dict[str, str], folder: Path) -> None:
    """Write every member that the header names, and nothing else; each must be what its sum says."""
    missing = set(sums)
    for number, member in enumerate(archive):
        if number == 0:
            continue  # the header
        if not _has_place(member) or member.name not in missing:
            raise ValueError(f"the member {member.name!r} has no place in a capsule")
        stream, target = archive.extractfile(member), folder / member.name
        assert stream is not None
        try:
            _write(stream, target)
        except OSError as error:
            if error.errno in _NO_SUCH_NAME:
                raise ValueError(f"no file here can be called {member.name!r}: {error.strerror}") from None
            raise
        if _digest(target) != sums[member.name]:
            raise ValueError(f"{member.name} is not what was written")
        missing.remove(member.name)
    if missing:
        raise ValueError(f"{min(missing)} is missing")


def _write(stream: IO[bytes], target: Path) -> None:
    """A file of what the stream has; nothing may be there yet."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with target.open("xb") as file:
        shutil.copyfileobj(stream, file)
    target.chmod(0o600)


def _has_place(member: tarfile.TarInfo) -> bool:
    """A plain file, as large as the archive's share of it, of a name that leads nowhere else."""
    parts = PurePosixPath(member.name).parts
    is_file = member.isreg() and not member.issparse()
    within = len(parts) > 1 and parts[0] in ("run", "code") and member.name == "/".join(parts)
    return is_file and within and not _is_left_out(parts)  # of which ".." is one


def _place(home: Home, folder: Path, header: dict[str, Any], stamp: str) -> str:
    """Move what was unpacked to its place and make its rows. Code that is not one's own is kept apart."""
    digest = _digest_of_code(header["files"])
    if digest:
        _refuse_other_code(folder, digest)
        if digest == code.installed():
            code.freeze(home)
        elif not (home.imported_code / digest).exists():
            home.imported_code.mkdir(mode=0o700, exist_ok=True)
            (folder / "code").rename(home.imported_code / digest)
    # Over whatever the capsule has of that name.
    told = {"stamp": stamp, "from": str(header.get("run", "")), "code": digest}
    RunPaths(folder / "run").imported.write_text(json.dumps(told))
    database = Database(home)
    try:
        run_id = str(max(_last_id(home), highest_folder(home)) + 1)
        target = home.run(run_id).root
        (folder / "run").rename(target)
        try:
            return register(database, home, target, unfinished.IMPORT)
        except BaseException:
            if not _has_row(home, run_id):
                shutil.rmtree(target, ignore_errors=True)
            raise
    finally:
        database.close()


def _has_row(home: Home, run_id: str) -> bool:
    """Whether a run is in the database, hidden or not; if that cannot be told, yes: then nothing is deleted."""
    try:
        with reading(home) as reader:
            return known.is_known(reader, int(run_id))
    except MmtuiError:
        return True


def _refuse_other_code(folder: Path, digest: str) -> None:
    claimed = json.loads((folder / "run" / "run.json").read_text()).get("code") or {}
    if claimed.get("sha256"):
        right = (claimed["sha256"], claimed.get("digest")) == (digest, digest[: code.DIGEST_CHARACTERS])
    else:  # of a version that named code by its sources
        right = claimed.get("digest") == code.digest_of_sources(folder / "code" / "engine")
    if not right:
        raise ValueError("its frozen code is not that of its run")


def _last_id(home: Home) -> int:
    with reading(home) as reader:
        return known.last_id(reader)


def _known(home: Home, stamp: str) -> str:
    """The run that was made of the same capsule, "" if there is none."""
    for file in home.runs.glob("*/imported.json"):
        try:
            if json.loads(file.read_text())["stamp"] == stamp:
                return file.parent.name
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()
