"""A walk over every screen of the real program in a pseudo-terminal. docs/make_screens.py keeps what it sees."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from tests.tui.seed import seed_run
from tests.tui.test_terminal import Terminal

NOW = 1_790_000_000.0
SIZES = ((80, 24), (160, 48))
STOPS: tuple[tuple[str, str, str], ...] = (
    ("runs", "", "training one"),
    ("help", "?", "type to search"),
    ("filter", "\x1b/", "Show runs where"),
    ("new-run", "\x1bn", "New run"),
    ("charts", "\x1b j \x1b[A2", "[charts]"),
    ("graph", "\t", "newest graph"),
    ("classes", "\t", "over 8/9 classes"),
    ("predictions", "\t", "no predictions yet"),
    ("log", "\t", "line 29 of the trainer"),
    ("run-devices", "\t", "nothing was recorded"),
    ("config", "\t", "recipe shapes_mixmatch"),
    ("history", "\t", "attempts"),
    ("compare", "3", "what differs"),
    ("queue", "4", "training one"),
    ("devices", "5", "history: last"),
)
"""(screen, keys that lead there from the one before, words that show it stands)."""


def seed(home: Home) -> None:
    """What every walk sees."""
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "failed one", until=60, seed=3, end=RunEvent.EXIT_ERROR, now=NOW)
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)


def walk(home: Home, columns: int, rows: int, **environment: str) -> Iterator[tuple[str, str]]:
    """(screen, its text) of every stop."""
    terminal = Terminal(home, columns, rows, **environment)
    try:
        for name, keys, words in STOPS:
            # Escape alone, and what follows it, must not be read as one key.
            for part in re.findall(r"\x1b\[A|\x1b|[^\x1b]", keys):
                terminal.child.send(part.encode())
                terminal.read(0.3)
            terminal.wait_for(words)
            settled = ""
            deadline = time.monotonic() + 5
            while settled != terminal.text() and time.monotonic() < deadline:
                settled = terminal.text()
                terminal.read(0.6)
            yield name, "\n".join(line.rstrip() for line in settled.splitlines()).rstrip() + "\n"
    finally:
        terminal.child.close(force=True)


def masked(text: str) -> list[str]:
    """Lines without what differs from day to day and machine to machine: numbers, bars, widths."""
    found = [re.sub(r"[█░▁▂▃▄▅▆▇#]+", "", line) for line in text.splitlines()]
    found = [re.sub(r"\d+([.:-]\d+)*( ?[KMG]iB)?[smh%]?", "0", line) for line in found]
    return [re.sub(r"[\s─]+", " ", line).strip() for line in found]
