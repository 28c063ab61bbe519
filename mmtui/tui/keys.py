"""The one table of keys. Bindings, footer, help, palette and the user's own keys all come from it.

A letter never means two things of different weight (``Action.weight``; a test holds the table to it). ``q`` leaves and
never stops a run.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK, CHANGE, END = 0, 1, 2
"""Weights: only looks (or marks); changes what the queue or the notes say, can be undone; ends or starts training."""
SCREENS = ("runs", "run", "compare", "queue", "devices", "output")
PAGES = "run compare queue devices output"


@dataclass(frozen=True)
class Action:
    """One thing a key does.

    Attributes:
        id: name for the user's own keys.
        keys: comma-separated keys, the first is the one shown.
        method: Textual action.
        label: one or two words for the footer.
        help: one sentence.
        screens: names of the screens that have it, "" for all.
        tabs: tabs of the run's screen where it does something, "" for all.
        footer: whether the footer shows it.
        command: the command line that does the same, "" if there is none; ID stands for the run, IDS for several.
        weight: see ``LOOK``.
        asks: it asks first, and what comes of it notes its own command line.
    """

    id: str
    keys: str
    method: str
    label: str
    help: str
    screens: str = ""
    tabs: str = ""
    footer: bool = False
    command: str = ""
    weight: int = LOOK
    asks: bool = False

    def on(self, screen: str, tab: str = "") -> bool:
        """Whether a screen (and a tab of it) has the action."""
        here = not self.screens or screen in self.screens.split()
        return here and (not tab or not self.tabs or tab in self.tabs.split())


_DEEDS = "runs run queue"
_SLIDER = "charts graph classes predictions log devices history"
_PANES = "charts graph classes predictions"

ACTIONS: tuple[Action, ...] = (
    Action("help", "question_mark", "show_help", "help", "Show every key; type to search.", footer=True),
    Action("quit", "q", "leave", "quit", "Leave the screen; runs go on.", "runs", footer=True),
    Action("back", "q,escape,1", "close", "back", "Back to the runs.", PAGES, footer=True),
    # Screens
    Action(
        "run", "2", "open_page(2)", "run", "The run in tabs: charts, graph, classes, predictions, log.", footer=True
    ),
    Action("compare", "3,c", "open_page(3)", "compare", "Marked runs beside each other.", command="mmtui compare IDS"),
    Action("queue", "4", "open_page(4)", "queue", "Order, priorities, reasons and forecast.", command="mmtui queue"),
    Action("devices", "5", "open_page(5)", "devices", "GPUs, processor, memory, history.", command="mmtui gpu"),
    Action(
        "output", "o", "show_log", "output", "The trainer's output, full screen.", _DEEDS, "", True, "mmtui logs ID"
    ),
    Action("diff", "d", "diff", "diff", "Why two runs are not the same.", "runs compare", command="mmtui diff IDS"),
    # Deeds
    Action(
        "new",
        "n",
        "new_run",
        "new",
        "Launch a run from a recipe.",
        "runs queue",
        "",
        True,
        "mmtui run RECIPE key=value",
        asks=True,
    ),
    Action(
        "fork",
        "F",
        "fork_run",
        "like it",
        "Launch a run like this one, with changes.",
        "runs queue",
        command="mmtui run RECIPE key=value",
        asks=True,
    ),
    Action(
        "fork_here",
        "F",
        "fork_here",
        "fork",
        "Launch a run that begins at the newest checkpoint at or before the slider.",
        "run",
        footer=True,
        command="mmtui run --from ID@STEP key=value",
        asks=True,
    ),
    Action(
        "cancel", "x", "cancel_run", "cancel", "Cancel, after a question.", _DEEDS, "", True, "mmtui cancel IDS", END
    ),
    Action(
        "pause",
        "P",
        "pause_run",
        "pause",
        "Checkpoint, end the process, free the device.",
        _DEEDS,
        command="mmtui pause IDS",
        weight=CHANGE,
    ),
    Action(
        "resume",
        "R",
        "resume_run",
        "resume",
        "Resume a paused run, retry an ended one.",
        _DEEDS,
        command="mmtui resume IDS",
        weight=CHANGE,
    ),
    Action(
        "hold",
        "H",
        "hold",
        "hold",
        "Hold a waiting run, or release it.",
        _DEEDS,
        command="mmtui hold IDS",
        weight=CHANGE,
    ),
    Action(
        "edit",
        "e",
        "edit_run",
        "edit",
        "Change the recipe of a run that has not started.",
        _DEEDS,
        command="mmtui edit ID key=value",
        weight=CHANGE,
    ),
    Action(
        "tag",
        "T",
        "tag",
        "tag",
        "Give runs tags, or take some away.",
        _DEEDS,
        command="mmtui tag IDS --add TAG",
        weight=CHANGE,
    ),
    Action(
        "memo",
        "M",
        "memo",
        "memo",
        "Write a note on the run.",
        _DEEDS,
        command="mmtui note ID TEXT",
        weight=CHANGE,
    ),
    Action(
        "trash",
        "D,delete",
        "trash",
        "trash",
        "Move finished runs to the trash; z brings them back.",
        "runs",
        command="mmtui rm IDS",
        weight=CHANGE,
    ),
    Action("undo", "z", "undo", "undo", "Take the last change back.", weight=CHANGE),
    Action(
        "later",
        "J",
        "shift(1)",
        "move",
        "The run starts one place later.",
        "queue",
        footer=True,
        command="mmtui mv ID --after ID",
        weight=CHANGE,
    ),
    Action(
        "earlier",
        "K",
        "shift(-1)",
        "earlier",
        "The run starts one place earlier.",
        "queue",
        command="mmtui mv ID --before ID",
        weight=CHANGE,
    ),
    Action(
        "urgent",
        "u",
        "priority(1)",
        "priority",
        "More urgent: a higher priority starts earlier.",
        "queue",
        footer=True,
        command="mmtui priority N ID",
        weight=CHANGE,
    ),
    Action(
        "patient",
        "U",
        "priority(-1)",
        "less urgent",
        "Less urgent.",
        "queue",
        command="mmtui priority N ID",
        weight=CHANGE,
    ),
    Action(
        "drain",
        "D",
        "drain",
        "drain",
        "Start nothing more, or open the queue again.",
        "queue",
        footer=True,
        command="mmtui queue drain",
        weight=CHANGE,
    ),
    # The table of runs
    Action("zoom", "enter", "zoom", "zoom", "The focused panel, full screen; again to go back.", "runs", footer=True),
    Action("show_run", "enter", "show_run", "run", "Everything about the chosen run.", "queue"),
    Action(
        "filter",
        "slash",
        "filter",
        "filter",
        "Show runs by a filter.",
        "runs",
        "",
        True,
        "mmtui ls -F FILTER",
        asks=True,
    ),
    Action(
        "sort",
        "s",
        "sort",
        "sort",
        "The order of the runs, by any column.",
        "runs",
        command="mmtui ls --sort KEY",
        asks=True,
    ),
    Action("mark", "space", "mark", "mark", "Mark the run: for comparing, charts, and deeds on several.", "runs"),
    Action("range", "v", "mark_range", "range", "Mark from here on: move, then v again.", "runs"),
    Action(
        "pin", "p", "pin", "pin", "Keep the run on top and over charts.", "runs", command="mmtui tag ID --add pinned"
    ),
    Action(
        "group",
        "b",
        "group",
        "fold",
        "Fold seeds into one line, sweeps, none.",
        "runs",
        command="mmtui ls --group seed",
    ),
    Action("unfold", "l,right", "unfold(1)", "open", "Show the members of a folded line.", "runs"),
    Action("fold", "h,left", "unfold(0)", "close", "Hide them.", "runs"),
    Action("columns", "C", "columns", "columns", "Choose columns.", "runs", command="mmtui ls -c COLUMNS", asks=True),
    Action("views", "V,S", "views", "views", "Take or keep a view.", "runs", command="mmtui ls --view NAME", asks=True),
    # Charts and panels
    Action("metric", "m", "next_metric", "metric", "Next metric.", "runs", "", True, "mmtui metrics ID"),
    Action("raw", "0", "smooth(0)", "raw", "No smoothing.", "runs"),
    Action(
        "pictures",
        "p",
        "next_way",
        "pixels",
        "Pictures as blocks, by kitty's protocol, as sixel.",
        "run",
        "predictions",
        True,
    ),
    Action(
        "pane",
        "m",
        "next_pane(1)",
        "panel",
        "Mark the next panel; the next picture alone.",
        "run compare",
        _PANES,
        True,
    ),
    Action(
        "alone",
        "enter",
        "alone",
        "alone",
        "The marked panel or picture over the whole screen, and back.",
        "run compare",
        _PANES,
        True,
    ),
    Action(
        "before", "left,h", "aside(-1)", "cursor", "The cursor back; the image before.", "run compare", _SLIDER, True
    ),
    Action("after", "right,l", "aside(1)", "later", "The cursor forward; the image after.", "run compare", _SLIDER),
    Action("slide_back", "comma", "slide(-1)", "earlier", "Earlier, on predictions too.", "run compare", _SLIDER),
    Action("slide_on", "full_stop", "slide(1)", "later", "Later.", "run compare", _SLIDER),
    Action("zoom_in", "i", "zoom(0.5)", "zoom", "Half of the axis, around the cursor.", "run compare", "charts", True),
    Action("zoom_out", "I", "zoom(2.0)", "zoom out", "Twice as much of the axis.", "run compare", "charts"),
    Action(
        "pan_left", "less_than_sign", "pan(-1)", "left", "The part before, when zoomed in.", "run compare", "charts"
    ),
    Action("pan_right", "greater_than_sign", "pan(1)", "right", "The part behind.", "run compare", "charts"),
    Action(
        "axis",
        "a,w",
        "next_axis",
        "axis",
        "Steps, epochs, time of day, time since the start.",
        "run compare",
        "charts",
        True,
    ),
    Action("log_axis", "L", "log_axis", "log", "Logarithmic value axis.", "runs run compare", "charts", True),
    Action(
        "smoother", "plus,equals_sign", "smooth(1)", "smooth", "More smoothing.", "runs run compare", "charts", True
    ),
    Action("rougher", "minus", "smooth(-1)", "rougher", "Less smoothing.", "runs run compare", "charts"),
    Action("on_top", "O", "next_on_top", "on top", "Another run's curves over the others.", "run compare", "charts"),
    Action("follow", "f", "follow", "follow", "The newest step, and the window moves along.", "run compare", _SLIDER),
    Action(
        "newest",
        "0",
        "reset_view",
        "newest",
        "The newest step, all of the axis, no smoothing.",
        "run compare",
        _SLIDER,
        True,
    ),
    # One run
    Action("search", "slash", "search", "find", "Find words in the output.", "run", "log", True),
    Action(
        "next_one",
        "n",
        "next_one(1)",
        "next",
        "The next place of the words (log), the next class (graph).",
        "run",
        "graph log",
        True,
    ),
    Action("previous_one", "N", "next_one(-1)", "before", "The one before.", "run", "graph log"),
    Action(
        "baseline",
        "B",
        "baseline",
        "baseline",
        "Choose the run whose classes are compared with.",
        "run",
        "classes",
        True,
        "mmtui classes ID --vs ID",
        asks=True,
    ),
    Action("sort_classes", "s", "sort", "sort", "Next order: worst, loss, gain, as listed.", "run", "classes", True),
    # Movement and the rest
    Action("next_panel", "right_square_bracket,tab", "turn(1)", "panel", "Next panel or tab.", footer=True),
    Action("previous_panel", "left_square_bracket,shift+tab", "turn(-1)", "previous", "Previous panel or tab."),
    Action("down", "j,down", "move(1)", "down", "Down."),
    Action("up", "k,up", "move(-1)", "up", "Up."),
    Action("page_down", "ctrl+d,pagedown", "move(10)", "page down", "Ten lines down."),
    Action("page_up", "ctrl+u,pageup", "move(-10)", "page up", "Ten lines up."),
    Action("page", "space", "move(15)", "page", "A page down.", "run compare devices output"),
    Action("top", "g,home", "move(-1000000)", "top", "To the top."),
    Action("bottom", "G,end", "move(1000000)", "bottom", "To the end."),
    Action("palette", "ctrl+p", "palette", "palette", "Every action of this screen; type to search, enter does it."),
    Action("command", "colon", "command", "command", "Type any mmtui command; tab completes.", footer=True),
    Action("as_command", "at", "show_commands", "as commands", "What was done, as command lines; enter copies one."),
    Action("copy_command", "Y", "copy_command", "copy it", "Copy the command line of the last key."),
    Action("copy", "y", "copy_id", "copy id", "Copy the run's id (over SSH too, by OSC 52)."),
    Action("refresh", "r", "reload", "refresh", "Look again, devices too."),
    Action("theme", "t", "next_theme", "theme", "The next colours; `theme` in config.toml keeps them."),
    Action("repaint", "ctrl+l", "repaint", "repaint", "Paint the whole screen again."),
)
