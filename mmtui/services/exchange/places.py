"""Where the tools of others can write: not everywhere that a path leads."""

from __future__ import annotations

from pathlib import Path

from mmtui.domain.text import printable
from mmtui.errors import RefusedError, UsageError

FOLDERS = ("tensorboard", "wandb")
"""Formats that are folders of runs."""
_URLS = ("mlflow",)
"""Formats whose tool names its file by a URL, in which these characters have a meaning."""
_IN_URLS = "?#%"
_UTF8 = ("mlflow", "wandb")
"""Formats whose tool knows no other names."""


def check(to: str, target: Path) -> None:
    """Refuse a place at which a tool would fail, or write somewhere else.

    Raises:
        UsageError: the tool cannot be told this path.
        RefusedError: it leads through a file, or to one where a folder is meant.
    """
    shown = printable(str(target))
    if to in _UTF8 and not _is_utf8(str(target)):
        raise UsageError(f"{shown}: the library of {to} takes UTF-8 names alone", "give another path")
    wrong = [character for character in str(target) if to in _URLS and character in _IN_URLS]
    if wrong:
        why = f"{to} names its file by a URL, in which {wrong[0]} has a meaning"
        raise UsageError(f"{shown}: {why}", "give another path")
    if to in FOLDERS:
        there = next(path for path in (target, *target.parents) if path.exists() or path.is_symlink())
        if not there.is_dir():
            raise RefusedError(f"{there} is no folder", "give another path")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
