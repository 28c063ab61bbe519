"""Texts that users give to runs have a greatest length: every list carries them along."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from engine.text import as_text
from mmtui.domain.text import shorten
from mmtui.errors import UsageError

LONGEST: Final = {"name": 512, "group": 256, "tag": 256, "note": 16_384}
"""Characters of each."""


def check_lengths(what: str, texts: Iterable[str]) -> None:
    """Refuse texts that are too long.

    Raises:
        UsageError: one is; the sentence says how long it may be.
    """
    for text in texts:
        if len(text) > LONGEST[what]:
            raise UsageError(
                f"the {what} has {len(text):,} characters", f"write a {what} of at most {LONGEST[what]:,} characters"
            )


def fitting(what: str, text: object) -> str:
    """The text of a run from elsewhere, cut to what a text of this kind may have."""
    return shorten(as_text(str(text)), LONGEST[what])
