"""What the terminal sends: three faults of Textual 8.2's reading of it, mended."""

from __future__ import annotations

import functools
from codecs import getincrementaldecoder
from collections.abc import Callable, Generator, Iterable

from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._parser import Peek1, Read1
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.events import Key
from textual.message import Message

ESCAPE = "\x1b"
INTRODUCERS = "[O"
"""What begins a sequence behind an Escape: CSI, and SS3 of the keypad and F1 to F4."""
LONE_ESCAPE = "lone_escape"
"""Kept apart from ``escape``, which Textual renames to ``circumflex_accent`` on this way."""


def tolerate_old_mouse_reports() -> None:
    """Keep bytes that are no UTF-8 from ending the program (textual#6668).

    After a tmux re-attach a terminal may send X10 mouse reports, whose coordinates are raw bytes; Textual's input
    thread decodes them strictly and dies.
    """
    linux_driver.getincrementaldecoder = lambda name: functools.partial(  # type: ignore[attr-defined]
        getincrementaldecoder(name), errors="replace"
    )


class KeyParser(XTermParser):
    """Cuts what the terminal sends into keys: an Escape stays one, whatever comes with it.

    Textual 8.2 takes a letter behind an Escape for the begin of an unknown sequence, waits for more, and calls the
    Escape ``^`` when a known sequence follows: an arrow, or the terminal's answer to a question, which comes whenever
    it likes. Here a letter that begins no sequence is known at once, as ``alt+KEY``.
    """

    def parse(self, token_callback: Callable[[Message], None]) -> Generator[Read1 | Peek1, str, None]:
        """As Textual's, with the right name for an Escape in front of what turned out to be no sequence."""
        return super().parse(lambda token: token_callback(Key("escape", ESCAPE) if _is_lone(token) else token))

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        if sequence == ESCAPE:
            yield Key(LONE_ESCAPE, ESCAPE)
        elif len(sequence) == 2 and sequence[0] == ESCAPE and sequence[1] not in INTRODUCERS:
            yield from self._sequence_to_key_events(sequence[1], alt=True)
        else:
            for event in super()._sequence_to_key_events(sequence):
                yield Key(f"alt+{event.key}", event.character) if alt else event


def _is_lone(token: Message) -> bool:
    return isinstance(token, Key) and token.key == LONE_ESCAPE


def keep_escape_apart() -> None:
    """Let an Escape be told from what follows it, also before digits, which Textual takes for a Mac keyboard's."""
    for sequence, keys in list(ANSI_SEQUENCES_KEYS.items()):
        if len(sequence) == 2 and sequence[0] == "\x1b" and isinstance(keys, str):
            del ANSI_SEQUENCES_KEYS[sequence]  # type: ignore[attr-defined]
    linux_driver.XTermParser = KeyParser  # type: ignore[attr-defined]
