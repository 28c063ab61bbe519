"""What is known of the terminal, and how it is left: without pictures in pixels."""

from __future__ import annotations

import fcntl
import struct
import sys
import termios
from typing import TYPE_CHECKING, cast

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from mmtui.tui.app import MmtuiApp

COLORS = {"truecolor": 1 << 24, "256": 256, "standard": 16}
"""Colours of rich's colour systems."""
USUAL_CELL = (10, 20)
"""Pixels of a cell where the terminal does not say."""


class Driver(LinuxDriver):
    """Takes pictures from the screen before it is given back: at the end, after an error, and while suspended."""

    def stop_application_mode(self) -> None:
        """Give the terminal back."""
        cast("MmtuiApp", self._app).take_pictures_away()
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
