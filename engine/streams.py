"""Standard output and error: as whoever started this program has left them, and safe to show. No torch in here."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, cast

from engine.text import curtailed, printable

AS_THEY_WERE = "as-they-were"
"""What Python does with a character that the encoding of a stream lacks: see ``_as_they_were``."""


def wait_for_room() -> None:
    """Make writing wait while the other end is full.

    A terminal or a pipe may be shared with a program that has set it not to wait (``O_NONBLOCK``). What then does not
    fit is lost: Python's text streams forget it and report no error.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, no file of the system, or none at all
            os.set_blocking(stream.fileno(), True)


def spell_out() -> None:
    """Let nothing that is printed steer a terminal: names of files, recipes and errors may hold anything.

    In a pipe and in a file all stays as it is, bytes that are no UTF-8 too; what their encoding lacks is spelled out.
    """
    codecs.register_error(AS_THEY_WERE, _as_they_were)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, TextIOWrapper):
            continue  # none, or a program's own
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, cast("TextIOWrapper", _Terminal(stream)))
        elif stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=AS_THEY_WERE)


def _as_they_were(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes that Python could not decode as those bytes (``surrogateescape``), other characters as ``\\u65e5``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff" and "a".encode(error.encoding) == b"a":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace").decode(), error.start + 1


class _Terminal:
    """A text stream to a terminal: control and formatting characters are spelled out, but for the ends of lines."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def redraw(line: str, width: int) -> None:
    """Write over the last line of stderr, without a new line."""
    stream = sys.stderr.stream if isinstance(sys.stderr, _Terminal) else sys.stderr
    shown = printable(line)[:width]
    stream.write(f"\r{shown:<{width}}\r{shown}")
    stream.flush()


def complain(text: str) -> None:
    """A sentence on stderr; of a word that nobody could read only the beginning."""
    sys.stderr.write(f"error: {curtailed(text)}\n")
    sys.stderr.flush()
