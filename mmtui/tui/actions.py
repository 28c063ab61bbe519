"""What is made of the table of keys (``mmtui.tui.keys``): bindings, footer, command lines, the user's own keys."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding, BindingType

from mmtui.errors import UsageError
from mmtui.tui.keys import ACTIONS, SCREENS, Action

_NAMES = {
    "question_mark": "?",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "greater_than_sign": ">",
    "less_than_sign": "<",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "slash": "/",
    "colon": ":",
    "comma": ",",
    "full_stop": ".",
    "at": "@",
}
_KEYS = {text: name for name, text in _NAMES.items()}

KEYMAP: dict[str, str] = {}
"""Keys of actions that the user has chosen: {id: comma-separated keys}."""


def actions_of(screen: str, tab: str = "") -> list[Action]:
    """The actions of a screen, and of one of its tabs."""
    return [action for action in ACTIONS if action.on(screen, tab)]


def bindings(screen: str) -> list[BindingType]:
    """The table as Textual bindings."""
    found = [
        Binding(a.keys, a.method, a.label, show=False, id=a.id, priority=a.id.endswith("_panel"))
        for a in actions_of(screen)
    ]
    return [*found, Binding("ctrl+c", "interrupt", "quit", show=False, id="interrupt", priority=True)]


def choose_keys(chosen: Sequence[str]) -> dict[str, str]:
    """Take over ``NAME=KEY,KEY`` words of the settings; returns what Textual wants to know of them.

    Raises:
        UsageError: there is no such action, or two of one screen would have one key.
    """
    known = {action.id for action in ACTIONS}
    for word in chosen:
        name, _, keys = word.partition("=")
        if name not in known:
            raise UsageError(f"keys: there is no action '{name}'", f"actions are {', '.join(sorted(known))}")
        KEYMAP[name] = ",".join(_KEYS.get(key, key) for key in keys.split(","))
    for screen in SCREENS:
        taken: dict[str, str] = {}
        for action in actions_of(screen):
            for key in keys_of(action):
                if key in taken:
                    raise UsageError(f"keys: '{_NAMES.get(key, key)}' would be both {taken[key]} and {action.id}")
                taken[key] = action.id
    return dict(KEYMAP)


def keys_of(action: Action) -> list[str]:
    """The keys of an action, as chosen by the user or as they are by default."""
    return KEYMAP.get(action.id, action.keys).split(",")


def key_text(action: Action) -> str:
    """Keys for people."""
    return " ".join(_NAMES.get(key, key) for key in keys_of(action))


def footer_text(screen: str, width: int, tab: str = "") -> str:
    """As many hints as fit: how to get help and how to leave come first, then what only this screen has."""

    def order(action: Action) -> int:
        return 0 if action.id in ("help", "quit", "back") else 2 if not action.screens else 1

    text = ""
    for action in sorted((a for a in actions_of(screen, tab) if a.footer), key=order):
        hint = f"{key_text(action).split()[0]} {action.label}"
        if len(text) + len(hint) + 2 > width:
            break
        text += f"{hint}  "
    return text.rstrip()


def action_of(screen: str, key: str) -> Action | None:
    """What a key does on a screen."""
    return next((action for action in actions_of(screen) if key in keys_of(action)), None)


def command_text(action: Action, ids: Sequence[str]) -> str:
    """The command line that does what an action does to these runs."""
    words = {"IDS": " ".join(ids) or "@", "ID": (ids or ["@"])[0]}
    return " ".join(words.get(word, word) for word in action.command.split())
