"""Text with bytes that are no UTF-8 in it, as arguments and names of files may have. Imports nothing of the engine."""

from __future__ import annotations

import os


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
