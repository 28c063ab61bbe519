"""The one table of keys: bindings, footer and help all come from it.

A letter never means two things of different danger. ``q`` leaves and never stops a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual.binding import Binding


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
    Action("cancel", "x", "cancel_run", "cancel", "Cancel the run, after a question.", True, "mmtui cancel ID"),
    Action("pause", "P", "pause_run", "pause", "Checkpoint the run and free its device.", False, "mmtui pause ID"),
    Action("resume", "R", "resume_run", "resume", "Resume a paused run, retry an ended one.", False, "mmtui resume ID"),
    Action("output", "o", "show_log", "output", "What the run's trainer printed, full screen.", True, "mmtui logs ID"),
    Action("open", "enter", "zoom", "zoom", "The focused panel, full screen; again to go back.", True),
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
}


def key_text(action: Action) -> str:
    """Keys for people."""
    return " ".join(_NAMES.get(key, key) for key in action.keys.split(","))


def footer_text(width: int) -> str:
    """As many hints as fit."""
    text = ""
    for action in ACTIONS:
        if action.footer:
            hint = f"{key_text(action).split()[0]} {action.label}"
            if len(text) + len(hint) + 2 > width:
                break
            text += f"{hint}  "
    return text.rstrip()
