"""What pixels of label maps mean, and what decoding reports. Needs no torch, so that a look at the files is quick."""

from __future__ import annotations

from collections.abc import Callable

VOID = 255
MAX_CLASSES = 255

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, items done, items in all)."""
