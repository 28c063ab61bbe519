"""What the layout of the code has reached stays reached; ``make house`` prints the figures."""

from __future__ import annotations

from pathlib import Path

from tests.contract.house import lengths, uses_of_any
from tests.contract.test_no_circles import modules

MOST_LINES = 60
MOST_ANY = 100
"""Signatures of libraries that have no types, and values that go into keyword arguments."""


def texts(repository: Path) -> dict[str, str]:
    return {name: file.read_text(encoding="utf-8") for name, file in modules(repository).items()}


def test_functions_are_short(repository: Path) -> None:
    long = {
        name: most for name, text in texts(repository).items() if (most := max(lengths(text), default=0)) > MOST_LINES
    }
    assert long == {}


def test_values_have_types(repository: Path) -> None:
    found = {name: count for name, text in texts(repository).items() if (count := uses_of_any(text))}
    assert 0 < sum(found.values()) <= MOST_ANY, found
