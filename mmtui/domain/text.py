"""Text from outside, made safe for a terminal; numbers from outside as short text."""

from __future__ import annotations

import math

from engine.text import as_text, is_acted_on, printable

__all__ = [
    "LONGEST_SECONDS",
    "REPLAY_TOLERANCE",
    "done",
    "duration",
    "fixed",
    "in_ascii",
    "is_acted_on",
    "number",
    "printable",
    "replay_words",
    "shorten",
    "shorten_inside",
    "signed",
    "size",
    "stored_text",
]


def stored_text(stored: bytes) -> str:
    """Text from a database that may hold anything as text: what is no UTF-8 is spelled out."""
    try:
        return as_text(stored.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")


_ELLIPSIS = "…"
_SYMBOLS = range(0x2000, 0x2C00)
"""General punctuation to arrows and boxes: what a table draws, one cell each."""


def in_ascii(text: str) -> str:
    """The text for a terminal that shows ASCII alone: letters spelled out (``\\u65e5``), so that names stay apart.

    Signs and boxes keep their one cell: an ellipsis becomes ``~``, others ``?``.
    """
    if text.isascii():
        return text
    return "".join(character if character.isascii() else _in_ascii(character) for character in text)


def _in_ascii(character: str) -> str:
    if ord(character) in _SYMBOLS:
        return "~" if character == _ELLIPSIS else "?"
    return character.encode("ascii", "backslashreplace").decode()


def shorten(text: str, width: int) -> str:
    """The text in at most ``width`` characters, an ellipsis at its end where it was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def shorten_inside(text: str, width: int) -> str:
    """The text in at most ``width`` characters, cut in its middle: the end of a name tells runs of a sweep apart."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}" if width > 2 else shorten(text, width)


LONGEST_SECONDS = 3000 * 365 * 86_400
"""Nothing that is longer was measured by a clock."""
_LONGEST_NUMBER = 12
_MOST_TIB = 1e6


def duration(seconds: float | None) -> str:
    """Seconds in at most two units: ``45s``, ``3m20s``, ``2h05m``, ``3d04h``; ``-`` if unknown."""
    if seconds is None or math.isnan(seconds):
        return "-"
    if seconds > LONGEST_SECONDS:
        return "over 3000y"
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def number(value: float | None, digits: int = 4) -> str:
    """A number in so many digits that tell something, ``-`` where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals, ``-`` where there is none.

    One that would need much room, or look like 0 and is not, is written with an exponent or more decimals.
    """
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    plain = len(text) <= _LONGEST_NUMBER and (value == 0 or float(text) != 0)
    return text if plain else f"{value:.{digits + 1}g}"


def signed(value: float, digits: int) -> str:
    """A difference with its sign and so many decimals; with an exponent where it would need much room."""
    text = f"{value:+.{digits}f}"
    return "-" if math.isnan(value) else text if len(text) <= _LONGEST_NUMBER else f"{value:+.{digits + 1}g}"


def done(share: float) -> str:
    """How much is done, in percent: of a trainer that goes on behind its last step at most 999%."""
    return "-" if math.isnan(share) else f"{100 * min(max(share, 0.0), 9.99):.0f}%"


def size(count: float | None) -> str:
    """Bytes in binary units: ``512 B``, ``3.4 GiB``; ``n/a`` if unknown."""
    if count is None or math.isnan(count):
        return "n/a"
    if count < 0:
        return f"-{size(-count)}"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB" if count < _MOST_TIB else f"{count:.3g} TiB"


REPLAY_TOLERANCE = 1e-3
"""Largest relative difference of a repeated loss that rounding explains: other thread counts, other kernels."""


def replay_words(compared: int, equal: int, worst: float) -> str:
    """Whether a resumed run repeated its losses: exact, within tolerance or different; "" if none was repeated."""
    if not compared:
        return ""
    if equal == compared:
        return f"exact: all {compared} losses that were computed again are the same to the last bit"
    verdict = "within tolerance" if worst <= REPLAY_TOLERANCE else "different"
    return f"{verdict}: {equal} of {compared} losses are the same, the largest relative difference is {worst:.1e}"
