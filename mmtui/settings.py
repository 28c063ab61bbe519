"""The user's settings: ``config.toml`` in the data directory. Everything has a default; an unknown key is an error."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmtui.access import remedy

COLOR_MODES = ("auto", "always", "never")
THEMES = ("ansi", "ansi-light", "dark", "light", "colorblind")
PICTURES = ("blocks", "kitty", "sixel")
MOST_ROWS = 10**15
NOTIFY = ("auto", "osc9", "osc777", "osc99", "bell", "off")


class SettingsError(ValueError):
    """The file is wrong; the message names it, the key, and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the file can hold."""

    color: str = "auto"  # auto, always or never; the option --color comes first
    ascii: bool = False  # draw with ASCII alone, whatever the terminal says it can do
    mouse: bool = True  # take mouse clicks on the screen; false leaves them to the terminal, for selecting text
    theme: str = "ansi"  # colours of the screen: see THEMES
    notify: str = "auto"  # how the screen tells the terminal that a run has ended: see NOTIFY
    pictures: str = "blocks"  # predictions as half blocks, or by a protocol that the terminal must know: see PICTURES
    on_finish: tuple[str, ...] = ()  # command, word by word, after a run that succeeded, ["/bin/notify", "done"]
    on_failure: tuple[str, ...] = ()  # the same after one that failed or was interrupted for good
    keys: tuple[str, ...] = ()  # keys of the screen, ["cancel=X", "new=N,insert"]: names as in its help (?)
    rows: int = 30  # runs that `mmtui ls` lists when it is not told how many, at least 1


def load(path: Path) -> Settings:
    """Settings of a file; the defaults where there is none.

    Raises:
        SettingsError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except PermissionError as error:
        closed = remedy(path, writing=False)
        raise SettingsError(f"{path} cannot be read: {error.strerror}{closed and f'; {closed}'}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path} cannot be read: {why}") from None
    import tomllib

    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number may have more digits than Python reads
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    try:
        return Settings(**{key: _checked(path, key, value) for key, value in data.items()})
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{path} holds a number that is too large: {error}") from None


def _checked(path: Path, key: str, value: Any) -> Any:
    known = {item.name: getattr(Settings(), item.name) for item in fields(Settings)}
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"keys are {', '.join(known)}"
        raise SettingsError(f"{path}: there is no setting '{key}'; {hint}")
    if isinstance(known[key], tuple):
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise SettingsError(f'{path}: {key} = {value!r}: write a list of words like ["/bin/notify", "done"]')
        if key == "keys" and not all(re.fullmatch(r"[a-z_]+=[^=\s]+", word) for word in value):
            raise SettingsError(f'{path}: keys = {value!r}: write NAME=KEY words like ["cancel=X", "new=N,insert"]')
        return tuple(value)
    if type(value) is not type(known[key]):
        raise SettingsError(f"{path}: {key} = {value!r}: write a value like {known[key]!r}")
    if key == "color" and value not in COLOR_MODES:
        raise SettingsError(f"{path}: color = {value!r}: write one of {', '.join(COLOR_MODES)}")
    if key == "theme" and value not in THEMES:
        raise SettingsError(f"{path}: theme = {value!r}: write one of {', '.join(THEMES)}")
    if key == "pictures" and value not in PICTURES:
        raise SettingsError(f"{path}: pictures = {value!r}: write one of {', '.join(PICTURES)}")
    if key == "notify" and value not in NOTIFY:
        raise SettingsError(f"{path}: notify = {value!r}: write one of {', '.join(NOTIFY)}")
    if key == "rows" and not 1 <= value <= MOST_ROWS:
        raise SettingsError(f"{path}: rows = {value}: write a number of at least 1 and at most {MOST_ROWS:,}")
    return value
