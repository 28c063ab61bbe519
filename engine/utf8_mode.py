"""Names of files are UTF-8, whatever the environment says: this program reads recipes and stores that are. No torch."""

from __future__ import annotations

import os
import sys


def begin_in_utf8_mode() -> None:
    """Begin this program again in Python's UTF-8 mode, if its names of files are in another encoding.

    They are where ``PYTHONUTF8=0`` meets the C locale, and in locales like de_DE.ISO-8859-1: a name that a recipe
    writes in UTF-8 then names another file, or none. The process stays the same one. What it reads and prints keeps
    the encoding that a terminal there expects; the programs it starts are in UTF-8 mode too.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:surrogateescape")
    os.environ["PYTHONUTF8"] = "1"
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # The option, too: with python -E no variable is read.
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
