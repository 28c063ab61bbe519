"""The one table of keys: bindings, footer and help all come from it.

A letter never means two things of different danger. ``q`` leaves and never stops a run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textual.binding import Binding

from mmtui.errors import UsageError


@dataclass(frozen=True)
class Action:
    """One thing a key does.

    Attributes:
        id: name for the user's key file.
        keys: comma-separated keys, the first is the one shown.
        method: Textual action.
        label: one or two words for the footer.
        help: one sentence.
        footer: whether the footer shows it.
        command: the command line that does the same, "" if there is none.
    """

    id: str
    keys: str
    method: str
    label: str
    help: str
    footer: bool = False
    command: str = ""


ACTIONS: tuple[Action, ...] = (
    Action("help", "question_mark", "show_help", "help", "Show every key; type to search.", True),
    Action("new", "n", "new_run", "new", "Launch a run from a recipe.", True, "mmtui run RECIPE key=value"),
    Action("fork", "F", "fork_run", "like it", "Launch a run like this one, with changes."),
    Action("cancel", "x", "cancel_run", "cancel", "Cancel the run, after a question.", True, "mmtui cancel ID"),
    Action("pause", "P", "pause_run", "pause", "Checkpoint the run and free its device.", False, "mmtui pause ID"),
    Action("resume", "R", "resume_run", "resume", "Resume a paused run, retry an ended one.", False, "mmtui resume ID"),
    Action("output", "o", "show_log", "output", "What the run's trainer printed, full screen.", True, "mmtui logs ID"),
    Action("open", "enter", "zoom", "zoom", "The focused panel, full screen; again to go back.", True),
    Action("run", "2,v", "open_page(2)", "run", "The run in tabs: charts, graph, classes, predictions, config.", True),
    Action("compare", "3,c", "open_page(3)", "compare", "Marked runs beside each other.", False, "mmtui compare ID ID"),
    Action("queue", "4", "open_page(4)", "queue", "Order, priorities, reasons and forecast.", True, "mmtui queue"),
    Action("devices", "5", "open_page(5)", "devices", "GPUs, processor, memory and their history.", False, "mmtui gpu"),
    Action("mark", "space", "mark", "mark", "Mark the run, for comparing; marked runs lie over the charts."),
    Action("filter", "slash", "filter", "filter", "Show runs by a filter, as mmtui ls -F.", True, "mmtui ls -F FILTER"),
    Action(
        "sort", "s", "sort", "sort", "Next order of the runs: newest, mIoU, loss, name.", False, "mmtui ls --sort KEY"
    ),
    Action(
        "group",
        "b",
        "group",
        "fold",
        "Fold runs that differ in seeds alone; then sweeps; then none.",
        False,
        "mmtui ls --group seed",
    ),
    Action("unfold", "l,right", "unfold(1)", "open", "Show the members of a folded line."),
    Action("fold", "h,left", "unfold(0)", "close", "Hide them."),
    Action(
        "pin",
        "p",
        "pin",
        "pin",
        "Keep the run on top of the list and over other runs' charts.",
        False,
        "mmtui tag ID --add pinned",
    ),
    Action("columns", "C", "columns", "columns", "Choose the columns behind the name.", False, "mmtui ls -c COLUMNS"),
    Action(
        "views",
        "V",
        "views",
        "views",
        "Take or keep a view: filter, order, columns, folding.",
        False,
        "mmtui ls --view NAME",
    ),
    Action("command", "colon", "command", "command", "Type any mmtui command; tab completes verbs."),
    Action("as_command", "at", "tell_command", "as command", "The command line of the last key; Y copies it."),
    Action("copy_command", "Y", "copy_command", "copy it", "Copy the command line of the last key."),
    Action("next_panel", "right_square_bracket,tab", "next_panel(1)", "panel", "Next panel.", True),
    Action("previous_panel", "left_square_bracket,shift+tab", "next_panel(-1)", "previous", "Previous panel."),
    Action("down", "j,down", "move(1)", "down", "Next run."),
    Action("up", "k,up", "move(-1)", "up", "Previous run."),
    Action("page_down", "ctrl+d,pagedown", "move(10)", "page down", "Ten runs down."),
    Action("page_up", "ctrl+u,pageup", "move(-10)", "page up", "Ten runs up."),
    Action("top", "g,home", "move(-1000000)", "top", "Newest run."),
    Action("bottom", "G,end", "move(1000000)", "bottom", "Oldest run."),
    Action("metric", "m", "next_metric", "metric", "Next metric in the chart.", True, "mmtui metrics ID"),
    Action("log_axis", "L", "log_axis", "log axis", "Logarithmic value axis, on and off."),
    Action("smoother", "plus,equals_sign", "smooth(1)", "smoother", "More smoothing."),
    Action("rougher", "minus", "smooth(-1)", "rougher", "Less smoothing."),
    Action("raw", "0", "smooth(0)", "raw", "No smoothing."),
    Action("copy", "y", "copy_id", "copy id", "Copy the run's id (over SSH too, by OSC 52)."),
    Action("refresh", "r", "reload", "refresh", "Look again, devices too."),
    Action("theme", "T", "next_theme", "theme", "The next colours; `theme` in config.toml chooses them for good."),
    Action("repaint", "ctrl+l", "repaint", "repaint", "Paint the whole screen again."),
    Action("quit", "q", "leave", "quit", "Leave the screen; runs go on.", True),
)


def bindings() -> list[Any]:
    """The table as Textual bindings."""
    found = [Binding(a.keys, a.method, a.label, show=False, id=a.id, priority=a.id.endswith("_panel")) for a in ACTIONS]
    return [*found, Binding("ctrl+c", "interrupt", "quit", show=False, id="interrupt", priority=True)]


_NAMES = {
    "question_mark": "?",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "slash": "/",
    "colon": ":",
    "at": "@",
}
_KEYS = {text: name for name, text in _NAMES.items()}


KEYMAP: dict[str, str] = {}
"""Keys of actions that the user has chosen: {id: comma-separated keys}."""


def choose_keys(chosen: Sequence[str]) -> dict[str, str]:
    """Take over ``NAME=KEY,KEY`` words of the settings; returns what Textual wants to know of them.

    Raises:
        UsageError: there is no such action, or two would have one key.
    """
    known = {action.id for action in ACTIONS}
    for word in chosen:
        name, _, keys = word.partition("=")
        if name not in known:
            raise UsageError(f"keys: there is no action '{name}'", f"actions are {', '.join(sorted(known))}")
        KEYMAP[name] = ",".join(_KEYS.get(key, key) for key in keys.split(","))
    taken: dict[str, str] = {}
    for action in ACTIONS:
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


def footer_text(width: int) -> str:
    """As many hints as fit; how to get help and how to leave come first."""
    shown = sorted((a for a in ACTIONS if a.footer), key=lambda action: action.id not in ("help", "quit"))
    text = ""
    for action in shown:
        hint = f"{key_text(action).split()[0]} {action.label}"
        if len(text) + len(hint) + 2 > width:
            break
        text += f"{hint}  "
    return text.rstrip()


def action_of(key: str) -> Action | None:
    """What a key does on the runs screen."""
    return next((action for action in ACTIONS if key in keys_of(action)), None)


def command_text(action: Action, ids: Sequence[str], filter_text: str) -> str:
    """The command line that does what an action does to these runs."""
    text = action.command.replace("ID ID", "ID")
    text = text.replace(
        "ID", " ".join(ids) if action.id in ("compare", "cancel", "pause", "resume") else (ids or ["@"])[0]
    )
    return text.replace("FILTER", shlex.quote(filter_text) if filter_text else "FILTER")
