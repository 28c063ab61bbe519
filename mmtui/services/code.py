"""Frozen code: the engine's source is copied, by content, when a run is queued; what was queued is what runs."""

from __future__ import annotations

import difflib
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine import own_code
from engine.json_types import Json, JsonObject
from engine.outputs import replacing
from mmtui.errors import MmtuiError, RefusedError
from mmtui.paths import Home
from mmtui.services import writers

DIGEST_CHARACTERS = 16
SHORT, FULL = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}")
"""Names of folders of frozen code, and what guards their contents."""
CHANGES, digest_of = own_code.CHANGES, own_code.digest_of
COMMIT = re.compile("[0-9a-f]{7,64}")


@dataclass(frozen=True)
class FrozenCode:
    """Code that a trainer may load: the folder that holds it, and the SHA-256 of all its files."""

    folder: Path
    sha256: str


def engine_folder() -> Path:
    """Where the engine package that is installed lies."""
    spec = importlib.util.find_spec("engine")
    if spec is None or not spec.submodule_search_locations:
        raise MmtuiError("the engine package is not installed", "install mmtui again: pip install .")
    return Path(next(iter(spec.submodule_search_locations)))


def files_of(root: Path) -> dict[str, str]:
    """SHA-256 of every file that Python could load from a folder, by its path (see ``engine.own_code``)."""
    return own_code.sums(own_code.read(root))


def installed() -> str:
    """SHA-256 of the engine that is installed, as its frozen copy has it."""
    return digest_of({f"engine/{path}": total for path, total in files_of(engine_folder()).items()})


def refuse_loaded_before(opened_at: float) -> None:
    """For a process that stays: recipes would be read with the former code and trained with that of now.

    Args:
        opened_at: Unix time from which on it has loaded its modules.

    Raises:
        RefusedError: a file of the engine that this process has loaded was changed or removed later.
    """
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) if name.partition(".")[0] == "engine" else None
        if file is not None and not _is_as_loaded(Path(file), opened_at):
            raise RefusedError(f"{file} was changed after this screen was opened", "leave it and open it again")


def _is_as_loaded(file: Path, opened_at: float) -> bool:
    try:
        return file.stat().st_mtime <= opened_at
    except OSError:
        return False


def freeze(home: Home) -> JsonObject:
    """Copy the engine into the data directory, once per content.

    Returns:
        sha256 of the copy, digest (its first characters, the folder's name), and commit, dirty and diff (a file)
        where the source lies in a git checkout.
    """
    source, full = engine_folder(), installed()
    target = home.code / full[:DIGEST_CHARACTERS]
    if not _intact(target, full):
        home.create()
        temporary = home.code / f".{target.name}.{writers.mark()}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            shutil.copytree(source, temporary / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if not _intact(temporary, full):
            shutil.rmtree(temporary, ignore_errors=True)
            raise MmtuiError(f"the engine's source {source} changed while it was copied", "queue the run again")
        if target.exists() and not _intact(target, full):
            # Half lost in a power cut, or edited: put a whole copy in its place.
            target.rename(home.code / f".{target.name}.{os.getpid()}.damaged")
        try:
            temporary.rename(target)
        except OSError:
            # Another process froze the same content meanwhile.
            shutil.rmtree(temporary, ignore_errors=True)
    return {"digest": target.name, "sha256": full, **_git(source, target)}


def _intact(folder: Path, full: str) -> bool:
    return (folder / "engine").is_dir() and digest_of(files_of(folder)) == full


def is_own(home: Home, code: Mapping[str, Json]) -> bool:
    """Whether the code of a run was frozen here: only ``freeze`` makes folders of that name and content."""
    full = str(code.get("sha256", ""))
    return bool(FULL.fullmatch(full)) and _intact(home.code / full[:DIGEST_CHARACTERS], full)


def refuse_purged(home: Home, code: Mapping[str, Json]) -> None:
    """With the write lock held, as ``purge`` takes the code that no run needs with that lock held.

    Raises:
        RefusedError: frozen code was deleted before the run that needs it was queued.
    """
    if not (home.code / str(code["digest"]) / "engine").is_dir():
        raise RefusedError("the code was purged while the run was being queued; nothing is queued", "queue it again")


def own_folder(home: Home, code: Mapping[str, Json]) -> Path:
    """The frozen copy of a run's code.

    Raises:
        MmtuiError: the copy is gone or was changed.
    """
    short, full = str(code.get("digest", "")), str(code.get("sha256", ""))
    if not SHORT.fullmatch(short) or (full and not FULL.fullmatch(full)):
        raise MmtuiError("the run names no frozen code", "queue the run again")
    folder = home.code / (full[:DIGEST_CHARACTERS] or short)
    if not (folder / "engine").is_dir():
        raise MmtuiError(f"the frozen code {folder} is gone", "queue the run again")
    if not (_intact(folder, full) if full else _intact_before(folder, short)):
        raise MmtuiError(f"the frozen code {folder} was changed", f"remove {folder} and queue the run again")
    return folder


def digest_of_sources(engine: Path) -> str:
    """What earlier versions named code by: its ``.py`` files alone, 16 characters."""
    total = hashlib.sha256()
    for file in sorted(engine.rglob("*.py")):
        content = file.read_bytes()
        total.update(f"{file.relative_to(engine).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:DIGEST_CHARACTERS]


def _intact_before(folder: Path, short: str) -> bool:
    """Whether code of an earlier version is what its name says, and there is nothing else that Python could load.

    What Python has compiled is thrown away: nobody can tell whether it was Python.
    """
    without_bytecode(folder)
    loadable = tuple(importlib.machinery.all_suffixes())
    stray = [path for path in files_of(folder) if path.endswith(loadable) and not re.fullmatch(r"engine/.*\.py", path)]
    return not stray and digest_of_sources(folder / "engine") == short


def without_bytecode(folder: Path) -> None:
    """Delete what Python, or somebody in its name, has compiled."""
    for compiled in list(folder.rglob("__pycache__")):
        shutil.rmtree(compiled, ignore_errors=True)


@dataclass(frozen=True)
class FileChange:
    """How a file differs between two frozen copies: lines of a unified diff, without its head."""

    path: str
    added: int
    removed: int
    lines: tuple[str, ...]


def changes(home: Home, first: str, second: str) -> list[FileChange] | None:
    """Files that differ between two frozen copies, by name; None where one of them is gone.

    Args:
        first: digest of the older copy.
        second: digest of the newer one.
    """
    texts = []
    for code in (first, second):
        folder = home.code / code / "engine"
        if not re.fullmatch("[0-9a-f]+", code) or not folder.is_dir():
            return None
        texts.append({file.relative_to(folder).as_posix(): _lines(file) for file in sorted(folder.rglob("*.py"))})
    before, after = texts
    found = []
    for path in sorted({*before, *after}):
        one, other = before.get(path, []), after.get(path, [])
        if one != other:
            lines = tuple(difflib.unified_diff(one, other, lineterm="", n=2))[2:]
            added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
            found.append(FileChange(path, added, removed, lines))
    return found


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def _git(folder: Path, frozen: Path) -> JsonObject:
    """Commit of the source, and where what differs from it is written down."""

    def ask(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None

    tracked = ask("ls-files", "--error-unmatch", "__init__.py")
    commit = ask("rev-parse", "HEAD") if tracked else None
    if not commit:
        return {"commit": None, "dirty": None}
    dirty = bool(ask("status", "--porcelain", "--", "."))
    # Beside the copy, once: equal digests have equal differences to the same commit.
    diff = frozen / f"changes-{commit[:10]}.diff"
    if dirty and not diff.exists():
        text = os.fsencode(f"{ask('diff', 'HEAD', '--', '.') or ''}\n")
        with replacing(diff, overwrite=True, mode=0o600) as path:  # half a file would be taken for all of it
            path.write_bytes(text)
    return {"commit": commit, "dirty": dirty, **({"diff": str(diff)} if dirty else {})}
