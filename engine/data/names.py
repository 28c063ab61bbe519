"""Names of data files: which are passed over, and which are one name. Needs no torch.

Passed over is what is hidden (``.x``, ``._x.jpg``), ``__MACOSX``, and all below such folders. One name are those that
differ only in the case of the suffix (``.PNG``), or in how Unicode composes the same letters, as file systems of
different makers do.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from engine.errors import DataError

LEFT_BY_ARCHIVES = frozenset({"__MACOSX"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name in LEFT_BY_ARCHIVES


def is_passed_over(path: Path, root: Path) -> bool:
    """Whether a file, or a folder between it and ``root``, is hidden; where ``root`` lies does not count."""
    return any(is_hidden(part) for part in path.relative_to(root).parts)


def same(text: str) -> str:
    """Equal for names that a reader takes for one."""
    return unicodedata.normalize("NFC", text)


def same_file(name: str) -> str:
    """The same for the name of a file, whose suffix may be of any case."""
    path = PurePath(name)
    return same(path.stem) + same(path.suffix.lower())


def files_below(root: Path) -> Iterator[Path]:
    """All files that are not passed over, at any depth, in no order; links to folders are not followed."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (Path(folder, name) for name in names if not is_hidden(name))


def shown_names(paths: Iterable[Path]) -> list[str]:
    """Names that are not hidden, sorted."""
    return sorted(path.name for path in paths if not is_hidden(path.name))


def alike(path: Path) -> list[str]:
    """Names in the file's folder that begin as it does: with another suffix, or with an addition (``x_mask.png``)."""
    stem = same(path.stem)
    found = [
        name for name in listing(path.parent) if same(name).startswith(stem) and same_file(name) != same_file(path.name)
    ]
    return sorted(name for name in found if not same(name)[len(stem) :][:1].isalnum())


class Folders:
    """Looks files up by name; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path:
        """The file or folder that is called so; ``path`` itself if there is none.

        Raises:
            DataError: several are.
        """
        found = self._names(path.parent).get(same_file(path.name), [])
        if len(found) > 1:
            raise DataError(
                f"{path.with_name(found[0])} and {found[1]} are one name but for the case of the suffix or the form of"
                " its letters in Unicode: rename or remove one of them."
            )
        return path.with_name(found[0]) if found else path

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listed:
            listed: dict[str, list[str]] = {}
            for name in sorted(listing(folder)):
                listed.setdefault(same_file(name), []).append(name)
            self._listed[folder] = listed
        return self._listed[folder]


def listing(folder: Path) -> list[str]:
    """Names of files and folders in a folder that are not hidden, in no order; none if it cannot be read."""
    try:
        return [name for name in os.listdir(folder) if not is_hidden(name)]  # noqa: PTH208 - names alone are asked for
    except OSError:
        return []
