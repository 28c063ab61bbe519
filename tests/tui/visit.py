"""A walk over every screen of the real program in pseudo-terminals. docs/make_screens.py keeps what it sees.

A new screen is a new line in ``STOPS``; what differs from day to day is taken out in ``masked`` and nowhere else.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mmtui.paths import Home
from tests.tui.seed_store import seed_store, write_recording
from tests.tui.test_terminal import Terminal

UP, ESCAPE, ENTER, TAB, PALETTE = "\x1b[A", "\x1b", "\r", "\t", "\x10"
STOPS: tuple[tuple[str, str, str], ...] = (
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
    ("graph", f"{ENTER}{TAB}", "newest graph"),
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
    Variant("120x40", 120, 40),
    Variant("160x48", 160, 48),
    Variant("80x24-monochrome", 80, 24, {"NO_COLOR": "1"}),
    Variant("80x24-ascii", 80, 24, {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
)


@dataclass(frozen=True)
class Visit:
    """What was seen: the text of each screen by its name, and all bytes that the terminal was sent."""

    texts: dict[str, str]
    received: bytes


def walk(
    folder: Path, variants: Sequence[Variant] = VARIANTS, stops: Sequence[tuple[str, str, str]] = STOPS
) -> dict[str, Visit]:
    """Every stop in every variant, all variants at the same time: most of it is waiting."""
    seed_store(Home(folder / "seeded"), time.time())
    write_recording(folder / "gpus.json")
    terminals = [_terminal(folder, variant) for variant in variants]
    try:
        with ThreadPoolExecutor(len(terminals)) as pool:
            visits = list(pool.map(lambda terminal: _tour(terminal, stops), terminals))
    finally:
        for terminal in terminals:
            terminal.child.close(force=True)
    return {variant.name: visit for variant, visit in zip(variants, visits, strict=True)}


def _terminal(folder: Path, variant: Variant) -> Terminal:
    """The program on a store of its own: what one has seen is no news for it any more."""
    root = folder / variant.name
    shutil.copytree(folder / "seeded", root)
    environment = {"MMTUI_NVML_RECORDING": str(folder / "gpus.json"), "COLORTERM": "truecolor", **variant.environment}
    return Terminal(Home(root), variant.columns, variant.rows, **environment)


def _tour(terminal: Terminal, stops: Sequence[tuple[str, str, str]]) -> Visit:
    texts = {}
    for name, keys, words in stops:
        # Escape alone, a key that opens or closes, and what follows it, must not be read as one.
        for part in re.findall(r"\x1b\[A|\x1b|[\x10/:q]|[^\x1b\x10/:q]+", keys):
            terminal.child.send(part.encode())
            terminal.read(0.25)
        for one in words.split("|"):
            terminal.wait_for(one, 40)
        deadline = time.monotonic() + 40
        while unread(terminal.text()):
            assert time.monotonic() < deadline, f"recipes were never read:\n{terminal.text()}"
            terminal.read(0.2)
        texts[name] = _settled(terminal)
    return Visit(texts, terminal.received)


def unread(text: str) -> list[str]:
    """Recipes in the list of a new run whose data are not told yet: they are read in a thread, some at a time."""
    rows = re.findall(r"^│ [ >] ([a-z0-9]+(?:_[a-z0-9]+)+) +(\S*)", text, re.MULTILINE)
    return [name for name, data in rows if data not in ("shapes", "folder", "voc", "cityscapes")]


def _settled(terminal: Terminal) -> str:
    """The text, when it has stayed the same for a while."""
    settled, deadline = "", time.monotonic() + 4
    while settled != terminal.text() and time.monotonic() < deadline:
        settled = terminal.text()
        terminal.read(0.4)
    return "\n".join(line.rstrip() for line in settled.splitlines()).rstrip() + "\n"


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
