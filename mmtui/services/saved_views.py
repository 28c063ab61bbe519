"""Views of the runs that are kept under a name: filter, order, columns and grouping, for the screen and for ``ls``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtui.domain.filters import suggestion
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services.output_files import write_text

GROUPS = ("", "seed", "sweep")


@dataclass(frozen=True)
class SavedView:
    """How the runs are looked at; the fields mean what the options of ``mmtui ls`` mean."""

    filter: str = ""
    sort: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    group: str = ""

    def command(self) -> str:
        """The ``mmtui ls`` that shows it."""
        import shlex

        words = ["mmtui", "ls"]
        words += ["-F", self.filter] if self.filter else []
        words += [f"--sort={key}" for key in self.sort]
        words += ["-c", ",".join(self.columns)] if self.columns else []
        words += ["--group", self.group] if self.group else []
        return shlex.join(words)


def file_of(home: Home) -> Path:
    """Where they are kept."""
    return home.root / "views.json"


def load(home: Home) -> dict[str, SavedView]:
    """All views by name.

    Raises:
        UsageError: the file is damaged; it is named.
    """
    path = file_of(home)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _view(value) for name, value in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", "mend it, or remove it: it holds nothing but views"
        ) from None


def get(home: Home, name: str) -> SavedView:
    """One view.

    Raises:
        NotFoundError: there is none of that name.
    """
    views = load(home)
    if name not in views:
        near = suggestion(name, list(views))
        raise NotFoundError(f"no view '{name}'{near}", f"views are: {', '.join(views) or 'none yet'}")
    return views[name]


def save(home: Home, name: str, view: SavedView) -> None:
    """Keep a view under a name, in the place of an older one.

    Raises:
        UsageError: the name is empty or no single word, or the view is wrong.
    """
    if not re.fullmatch(r"[^\s\x00-\x1f,]{1,40}", name) or name.startswith("-"):
        raise UsageError(
            f"'{name}' is no name for a view", "write one word of at most 40 characters, like failed-today"
        )
    _check(home, view)
    _write(home, {**load(home), name: view})


def remove(home: Home, name: str) -> None:
    """Forget a view.

    Raises:
        NotFoundError: there is none of that name.
    """
    get(home, name)
    _write(home, {key: view for key, view in load(home).items() if key != name})


def _check(home: Home, view: SavedView) -> None:
    from mmtui.services import runs

    if view.group not in GROUPS:
        raise UsageError(f"group {view.group}: write seed or sweep")
    runs.find(home, view.filter, sort=view.sort, columns=view.columns, limit=1)


def _view(value: Mapping[str, Any]) -> SavedView:
    group = str(value.get("group", ""))
    several = {key: tuple(str(word) for word in value.get(key, ())) for key in ("sort", "columns")}
    return SavedView(str(value.get("filter", "")), **several, group=group if group in GROUPS else "")


def _write(home: Home, views: Mapping[str, SavedView]) -> None:
    text = json.dumps({name: asdict(view) for name, view in sorted(views.items())}, indent=1)
    write_text(file_of(home), text, force=True)
