"""A walk over every screen of the real program in pseudo-terminals; docs/make_screens.py keeps what it sees.

A new screen is a new line in ``STOPS``; what differs from day to day is taken out in ``masked`` and nowhere else.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mmtui.paths import Home
from tests.tui.seed_store import seed_store, write_recording
from tests.tui.test_terminal import Terminal
from tests.waiting import PATIENCE

UP, ESCAPE, ENTER, TAB, PALETTE = "\x1b[A", "\x1b", "\r", "\t", "\x10"
Stop = tuple[str, str, str]
STOPS: tuple[Stop, ...] = (
    ("news", "", "any key closes"),
    ("runs", f"{ESCAPE}jj", "loss 0."),
    ("help", "?", "type to search"),
    ("palette", f"{ESCAPE}{PALETTE}fork", "What to do"),
    ("filter", f"{ESCAPE}/state = failed", "1 run"),
    ("sort", f"{ESCAPE}s", "Order of the runs"),
    ("columns", f"{ESCAPE}C", "Columns behind the name"),
    ("views", f"{ESCAPE}V", "Views of the runs"),
    ("tags", f"{ESCAPE}T", "Tags of run"),
    ("commands", f"{ESCAPE}@", "as command lines"),
    ("command", f"{ESCAPE}:compare 1 3", "tab completes"),
    ("output", ENTER, "took"),
    ("cancel", "qx", "Cancel run 4"),
    ("new-run", f"{ESCAPE}n", "ok:|shapes          -"),
    ("new-run-form", TAB, "takes integer"),
    ("new-run-preview", TAB, "[preview]"),
    ("charts", f"{ESCAPE}2", "[charts]"),
    ("chart-alone", ENTER, "[charts]"),
    ("graph", f"{TAB}{ENTER}", "newest graph"),
    ("classes", TAB, "over 8/9 classes"),
    ("baseline", "B", "aseline"),
    ("predictions", f"{ESCAPE}{TAB}", "val_0000"),
    ("prediction-alone", ENTER, "val_0000"),
    ("log", f"{ENTER}{TAB}", "of the trainer"),
    ("run-devices", TAB, "[devices]"),
    ("config", TAB, "recipe shapes_mixmatch"),
    ("history", TAB, "attempts"),
    ("marked", f"q j {UP}", "loss 0.1396"),
    ("compare", "3", "what differs"),
    ("queue", "4", " held "),
    ("devices", "5", "host "),
)
"""(screen, keys that lead there from the one before, words that show it stands: some and others, parted by |)."""


@dataclass(frozen=True)
class Variant:
    """A kind of terminal."""

    name: str
    columns: int
    rows: int
    environment: Mapping[str, str] = field(default_factory=dict)


VARIANTS = (
    Variant("80x24", 80, 24),
    Variant("160x48", 160, 48),
    Variant("80x24-monochrome", 80, 24, {"NO_COLOR": "1"}),
    Variant("80x24-ascii", 80, 24, {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
)

SNAPSHOTS = Path(__file__).with_name("snapshots")
PLAIN_TOO = frozenset({"runs", "new-run", "charts", "graph", "classes", "predictions", "compare", "queue"})
"""Screens that are kept without colours and in ASCII as well: those that draw, and those where a run begins."""


def snapshot(name: str, variant: str) -> Path | None:
    """Where the text of a screen in a variant is kept, None if it is not."""
    kept = variant in {"80x24", "160x48"} or name in PLAIN_TOO
    return SNAPSHOTS / f"{name}-{variant}.txt" if kept else None


@dataclass(frozen=True)
class Visit:
    """What was seen: the text of each screen by its name, and all bytes that the terminal was sent."""

    texts: dict[str, str]
    received: bytes


def walk(
    folder: Path, known: Callable[[str, str], str] = lambda name, variant: "", stops: Sequence[Stop] = STOPS
) -> dict[str, Visit]:
    """Every stop in every variant, all variants at the same time: most of it is waiting.

    Args:
        known: what a stop in a variant is to look like, "" where that is not known: it is waited for.
    """
    seed_store(Home(folder / "seeded"), time.time())
    keep_from_stalling(Home(folder / "seeded"))
    write_recording(folder / "gpus.json")
    terminals = {variant.name: _terminal(folder, variant) for variant in VARIANTS}
    try:
        with ThreadPoolExecutor(len(terminals)) as pool:
            tours = [Tour(terminal, partial(known, variant=name)) for name, terminal in terminals.items()]
            visits = list(pool.map(lambda tour: tour.visit(stops), tours))
    finally:
        for terminal in terminals.values():
            terminal.child.close()
    return dict(zip(terminals, visits, strict=True))


def keep_from_stalling(home: Home) -> None:
    """The run that trains has not fallen silent however long the walk takes: its last word is of tomorrow."""
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET last_event_at = last_event_at + 86400 WHERE state = 'running'")
    connection.close()


def _terminal(folder: Path, variant: Variant) -> Terminal:
    """The program on a store of its own: what one has seen is no news for it any more."""
    root = folder / variant.name
    shutil.copytree(folder / "seeded", root)
    environment = {"MMTUI_NVML_RECORDING": str(folder / "gpus.json"), "COLORTERM": "truecolor", **variant.environment}
    return Terminal(Home(root), variant.columns, variant.rows, **environment)


class Tour:
    """The way through all stops in one terminal."""

    def __init__(self, terminal: Terminal, known: Callable[[str], str]) -> None:
        self.terminal, self.known = terminal, known
        self.patience = PATIENCE
        """For screens that look otherwise than they are known to: one takes it all, the others are read as they are."""

    def visit(self, stops: Sequence[Stop]) -> Visit:
        texts = {}
        for name, keys, words in stops:
            self._press(keys)
            for one in words.split("|"):
                self.terminal.wait_for(one)
            self.terminal.until(lambda: not unread(self.terminal.text()), "all recipes read")
            texts[name] = self._known(name) or self._settled()
        return Visit(texts, self.terminal.received)

    def _press(self, keys: str) -> None:
        """Each key when the screen that the one before it opens or closes is there: it is for that one."""
        parts = re.findall(r"\x1b\[A|\x1b|[\x10\r\t/:q]|[^\x1b\x10\r\t/:q]+", keys)
        for part in parts[:-1]:
            before = masked(self.terminal.text())
            self.terminal.child.send(part.encode())
            self.terminal.until(lambda before=before: masked(self.terminal.text()) != before, f"what {part!r} does")
            self.terminal.settle(0.25)
        self.terminal.child.send("".join(parts[-1:]).encode())

    def _known(self, name: str) -> str:
        """The text once it is the one that is known; "" if that is none, or it never is."""
        wanted, end = masked(self.known(name)), time.monotonic() + self.patience
        while wanted and time.monotonic() < end:
            if masked(text := stripped(self.terminal.text())) == wanted:
                return text
            self.terminal.read(0.1)
        self.patience = 0.0 if wanted else self.patience
        return ""

    def _settled(self) -> str:
        """The text, when it has stayed the same for a while."""
        settled, end = "", time.monotonic() + 4  # some screens never rest
        while settled != self.terminal.text() and time.monotonic() < end:
            settled = self.terminal.text()
            self.terminal.read(0.4)
        return stripped(settled)


def unread(text: str) -> list[str]:
    """Recipes in the list of a new run whose data are not told yet: they are read in a thread, some at a time."""
    rows = re.findall(r"^│ [ >] ([a-z0-9]+(?:_[a-z0-9]+)+) +(\S*)", text, re.MULTILINE)
    return [name for name, data in rows if data not in ("shapes", "folder", "voc", "cityscapes")]


def stripped(text: str) -> str:
    """Without blanks at the ends of lines and lines at the end of the text."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


_CLOCK = r"(\d{4}-)?\d\d-\d\d \d\d:\d\d(:\d\d)?|\b\d\d:\d\d(:\d\d)?\b"
_DURATION = r"\b(\d+[dhm])?\d+(\.\d+)? ?(s|m|h|d|min|ms)\b"
_MACHINE = re.compile(r"^.*\b(CPU |mem |disk |load )")
"""Lines on this machine: their numbers and bars are of the moment."""


_HISTORY = re.compile(r"^(use|mem|power|heat) ")
"""Lines of the devices screen: where the last sample falls depends on the moment."""


def masked(text: str) -> list[str]:
    """Lines without what differs from day to day and machine to machine, and without the widths that it gives."""
    found = []
    for line in text.splitlines():
        if _MACHINE.match(line):
            line = re.sub(r"[█░#.]{2,}", "", line)
            line = re.sub(r"\d+(\.\d+)?( ?[KMGT]iB)?%?", "0", line)
        line = re.sub(r"slow link: pictures are .*", "", line)
        line = re.sub(r"[▁▂▃▄▅▆▇█░]{2,}|\b\d{12,}\b", "", line) if _HISTORY.match(line) else line
        line = re.sub(_CLOCK, "0", line)
        line = re.sub(_DURATION, "0", line)
        found.append(re.sub(r"[\s─-]+", " ", line).strip())
    return found
