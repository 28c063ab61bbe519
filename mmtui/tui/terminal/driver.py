"""What is known of the terminal, and how it is left: without pictures in pixels."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from typing import Any, TextIO, cast

from textual.drivers.linux_driver import LinuxDriver

from mmtui.tui.program import Program

COLORS = {"truecolor": 1 << 24, "256": 256, "standard": 16}
"""Colours of rich's colour systems."""
USUAL_CELL = (10, 20)
"""Pixels of a cell where the terminal does not say."""


AT_ONCE = 8192
"""Bytes that are gathered before they are sent."""


class Output:
    """The terminal as a file that takes everything, also when there is no terminal any more.

    Textual writes in a thread behind a queue of 30 texts. Should a write fail, the thread ends, and the program waits
    for ever for room in the queue, on its way out above all, which takes some 25 texts.

    Bytes are counted here: of a text that a terminal took in part, Python's files forget the rest.

    Args:
        file: what the terminal is written to.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting = bytearray()
        self.gone = False
        """The terminal has been hung up; what is written from now on is thrown away."""

    def write(self, text: str) -> int:
        """Write text; returns how many characters were taken, all of them."""
        self._waiting += text.encode(self._file.encoding, self._file.errors or "replace")
        if len(self._waiting) >= AT_ONCE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what was written."""
        while self._waiting and not self.gone:
            try:
                del self._waiting[: os.write(self.fileno(), self._waiting)]
            except BlockingIOError:
                # Somebody who shares the terminal has left it so that it takes what it has room for: wait for it again.
                os.set_blocking(self.fileno(), True)
            except OSError:
                self.gone = True
        self._waiting.clear()

    def fileno(self) -> int:
        """File number of the terminal."""
        return self._file.fileno()

    def isatty(self) -> bool:
        """Whether it was a terminal."""
        return self._file.isatty()


class Driver(LinuxDriver):
    """Outlives its terminal, and takes pictures away before the terminal is given back.

    The latter at the end, after an error, and while the program is suspended.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._file = cast("Any", Output(cast("TextIO", self._file)))

    def stop_application_mode(self) -> None:
        """Give the terminal back."""
        cast("Program", self._app).take_pictures_away()
        super().stop_application_mode()


def cell_size() -> tuple[int, int]:
    """Width and height of a cell in pixels; the usual ones where the terminal does not say."""
    try:
        answer = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))  # type: ignore[union-attr]
    except (OSError, ValueError, AttributeError):
        return USUAL_CELL
    rows, columns, across, down = struct.unpack("HHHH", answer)
    if not (rows and columns and across and down):
        return USUAL_CELL
    return max(across // columns, 1), max(down // rows, 1)
