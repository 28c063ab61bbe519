"""Frozen code: the engine's source is copied, by content, when a run is queued; what was queued is what runs."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtui.errors import MmtuiError
from mmtui.paths import Home

DIGEST_CHARACTERS = 16


def engine_folder() -> Path:
    """Where the engine package that is installed lies."""
    spec = importlib.util.find_spec("engine")
    if spec is None or not spec.submodule_search_locations:
        raise MmtuiError("the engine package is not installed", "install mmtui again: pip install .")
    return Path(next(iter(spec.submodule_search_locations)))


def digest(folder: Path) -> str:
    """Digest of every Python file below a folder: names and contents."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        total.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:DIGEST_CHARACTERS]


def freeze(home: Home) -> dict[str, Any]:
    """Copy the engine into the data directory, once per content.

    Returns:
        digest, and commit, dirty and diff (a file) where the source lies in a git checkout.
    """
    source = engine_folder()
    code = digest(source)
    target = home.code / code
    if not _intact(target, code):
        home.create()
        temporary = home.code / f".{code}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary / "engine", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        if not _intact(temporary, code):
            shutil.rmtree(temporary, ignore_errors=True)
            raise MmtuiError(f"the engine's source {source} changed while it was copied", "queue the run again")
        if target.exists() and not _intact(target, code):
            # Half lost in a power cut, or edited: put a whole copy in its place.
            target.rename(home.code / f".{code}.{os.getpid()}.damaged")
        try:
            temporary.rename(target)
        except OSError:
            # Another process froze the same content meanwhile.
            shutil.rmtree(temporary, ignore_errors=True)
    return {"digest": code, **_git(source, target)}


def _intact(folder: Path, code: str) -> bool:
    return (folder / "engine").is_dir() and digest(folder / "engine") == code


def frozen_folder(home: Home, code: str) -> Path:
    """The folder to put on a trainer's PYTHONPATH.

    Raises:
        MmtuiError: the copy is gone or was changed.
    """
    folder = home.code / code
    if not (folder / "engine").is_dir():
        raise MmtuiError(f"the frozen code {folder} is gone", "queue the run again")
    if digest(folder / "engine") != code:
        raise MmtuiError(f"the frozen code {folder} was changed", f"remove {folder} and queue the run again")
    return folder


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


def _git(folder: Path, frozen: Path) -> dict[str, Any]:
    """Commit of the source, and where what differs from it is written down."""

    def ask(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = ask("ls-files", "--error-unmatch", "__init__.py")
    commit = ask("rev-parse", "HEAD") if tracked else None
    if not commit:
        return {"commit": None, "dirty": None}
    dirty = bool(ask("status", "--porcelain", "--", "."))
    # Beside the copy, once: equal digests have equal differences to the same commit.
    diff = frozen / f"changes-{commit[:10]}.diff"
    if dirty and not diff.exists():
        diff.write_text(f"{ask('diff', 'HEAD', '--', '.') or ''}\n")
        diff.chmod(0o600)
    return {"commit": commit, "dirty": dirty, **({"diff": str(diff)} if dirty else {})}
