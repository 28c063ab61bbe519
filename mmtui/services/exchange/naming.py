"""Names that another tool takes, made of names that it does not: two stay two, and each can be read back.

A character that a tool refuses becomes the bytes of its UTF-8 as an escape character and two hexadecimal digits each:
``%5F`` for W&B, ``:5F`` for MLflow, which knows no per cent sign. The escape character itself is written so, too, so
no two names become one, and ``urllib.parse.unquote`` gives the original (for MLflow with ``:`` read as ``%``). A name
over the tool's limit is cut, and ends in the escape character, ``-`` and a digest of the whole: the original stands
beside it wherever the format has room for that (``mmtui.services.exchange.mlflow`` and ``.wandb``).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Naming:
    """What a tool takes as a name.

    Args:
        refused: matches every stretch of characters that must not stand as they are; the escape character is one.
        escape: a character that the tool takes.
        longest: characters that a name may have.
    """

    refused: re.Pattern[str]
    escape: str
    longest: int

    def safe(self, name: str, prefix: str = "") -> str:
        """The name as the tool takes it, itself where that is possible.

        Args:
            prefix: stands before it and is taken by the tool; it counts as part of the name's length.
        """
        units = self._units(name)
        room = self.longest - len(prefix)
        if sum(map(len, units)) > room:
            ending = f"{self.escape}-{hashlib.sha256(name.encode()).hexdigest()[:DIGEST_CHARACTERS]}"
            units = [*_fitting(units, room - len(ending)), ending]
        return prefix + "".join(units)

    def _units(self, name: str) -> list[str]:
        """The name in pieces that must not be cut apart: characters, and what stands for a character."""
        refused = {place for found in self.refused.finditer(name) for place in range(*found.span())}
        return [self._escaped(char) if place in refused else char for place, char in enumerate(name)]

    def _escaped(self, char: str) -> str:
        return "".join(f"{self.escape}{byte:02X}" for byte in char.encode())


def _fitting(units: list[str], room: int) -> list[str]:
    """The first pieces that have no more characters than there is room for."""
    for number, unit in enumerate(units):
        room -= len(unit)
        if room < 0:
            return units[:number]
    return units


MLFLOW = Naming(
    # What its client refuses: other characters than letters and digits of any script and _-. :/, and names that are no
    # plain path (a slash at an end or beside another, a part "." or "..", two points at the beginning).
    re.compile(r"[^\w\-. /]|\A\.(?=\.)|\A/|/(?![^/])|(?<![^/])\.{1,2}(?![^/])"),
    ":",
    250,
)
"""Names of metrics, parameters and tags of MLflow."""

WANDB = Naming(re.compile(r"\A_|%"), "%", 512)
"""Names of metrics of W&B: those that begin with ``_`` are its own (``_step``, ``_timestamp``, ``_runtime``)."""
