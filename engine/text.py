"""Text from outside: bytes that are no UTF-8, what a terminal would act on, what is too long to be repeated.

Imports nothing of the engine.
"""

from __future__ import annotations

import os
import re
import unicodedata

_KEPT = frozenset("\t")
_BYTES = range(0xDC80, 0xDD00)
"""What Python makes of a byte that it cannot decode."""
ZERO_WIDTH_JOINER = "\u200d"
"""Makes one picture of two: of its kind, but only shown."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_TOO_LONG = (re.compile(r"\d{100,}"), re.compile(r"\S{1000,}(?<![:;,'])"))
"""Numbers and words longer than any that somebody means, without the signs that end them in a sentence."""
_BEGINNING = 40


def as_text(text: str) -> str:
    """The text as it can be stored and sent anywhere: bytes that are no UTF-8 are spelled out (``\\xe9``).

    Arguments, names of files and variables come as Python decodes bytes it cannot read: as lone surrogates, which no
    UTF-8 file and no database takes. Names, tags and notes are kept in this form. A path is not: it would no longer
    name its file; it is spelled out where it is shown.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    try:
        # In a locale without UTF-8 good UTF-8 comes in this form, too.
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """The text with control and formatting characters spelled out (``\\x1b``), so that none reaches a terminal."""
    if text.isprintable():
        return text
    return "".join(_spell(character) for character in text)


def is_acted_on(character: str) -> bool:
    """Whether a terminal does something else with a character than to show it: control, direction, end of a line."""
    return unicodedata.category(character) in _HIDDEN and character != ZERO_WIDTH_JOINER


def _spell(character: str) -> str:
    if character in _KEPT:
        return "    "
    if not is_acted_on(character):
        return character
    code = ord(character)
    if _BYTES[0] <= code <= _BYTES[-1]:
        code -= _BYTES[0] - 0x80
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def curtailed(text: str) -> str:
    """A message in which of numbers and words that nobody could read stand only the beginnings, and three dots."""
    for pattern in _TOO_LONG:
        text = pattern.sub(lambda found: f"{found[0][:_BEGINNING]}...", text)
    return text
