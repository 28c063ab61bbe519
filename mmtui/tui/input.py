"""What the terminal sends: two faults of Textual 8.2's reading of it, mended."""

from __future__ import annotations

import functools
from codecs import getincrementaldecoder
from collections.abc import Iterable

from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.events import Key


def tolerate_old_mouse_reports() -> None:
    """Keep bytes that are no UTF-8 from ending the program (textual#6668).

    After a tmux re-attach a terminal may send X10 mouse reports, whose coordinates are raw bytes; Textual's input
    thread decodes them strictly and dies.
    """
    linux_driver.getincrementaldecoder = lambda name: functools.partial(  # type: ignore[attr-defined]
        getincrementaldecoder(name), errors="replace"
    )


class KeyParser(XTermParser):
    """Names every key that came in one piece with an Escape ``alt+KEY``; Textual loses the Escape before signs."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        for event in super()._sequence_to_key_events(sequence):
            yield Key(f"alt+{event.key}", event.character) if alt else event


def keep_escape_apart() -> None:
    """Let an Escape be told from what follows it, also before digits, which Textual takes for a Mac keyboard's."""
    for sequence, keys in list(ANSI_SEQUENCES_KEYS.items()):
        if len(sequence) == 2 and sequence[0] == "\x1b" and isinstance(keys, str):
            del ANSI_SEQUENCES_KEYS[sequence]  # type: ignore[attr-defined]
    linux_driver.XTermParser = KeyParser  # type: ignore[attr-defined]
