"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 point``, ``1,234 points``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
