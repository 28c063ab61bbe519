"""Names of files that are no UTF-8, in recipes: YAML and JSON hold text, a file is found by its bytes.

In a recipe's file such a byte is spelled out (``\\xe9``); in memory the path is as Python has it, so that it opens.
"""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from engine.text import as_text

_SPELLED = re.compile(rb"\\x([89a-f][0-9a-f])")


def restored(text: str) -> str:
    """The path that ``engine.text.as_text`` made a text of. One that exists under the very text is meant so."""
    if "\\x" not in text or os.path.lexists(text):
        return text
    return os.fsdecode(_SPELLED.sub(lambda found: bytes([int(found[1], 16)]), text.encode()))


def _before(value: object) -> object:
    return as_text(value) if isinstance(value, str) else value


FilePath = Annotated[str, BeforeValidator(_before), AfterValidator(restored), PlainSerializer(as_text)]
"""A path, or the name of a file, in a recipe."""
