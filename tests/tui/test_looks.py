"""Every screen of the real program looks as docs/screens/ shows it (python docs/make_screens.py writes that anew)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtui.paths import Home
from tests.tui import visit

SCREENS = Path(__file__).resolve().parents[2] / "docs" / "screens"


@pytest.mark.parametrize("size", visit.SIZES)
def test_every_screen_looks_as_it_is_documented(home: Home, size: tuple[int, int]) -> None:
    visit.seed(home)
    columns, rows = size
    wrong = {}
    for name, text in visit.walk(home, columns, rows):
        kept = (SCREENS / f"{name}-{columns}x{rows}.txt").read_text(encoding="utf-8")
        if visit.masked(kept) != visit.masked(text):
            wrong[name] = (kept, text)
    assert not wrong, "python docs/make_screens.py, and look at what has changed"


def test_every_screen_is_ascii_where_the_terminal_is(home: Home) -> None:
    visit.seed(home)
    for name, text in visit.walk(home, 80, 24, LC_ALL="C", LANG="C"):
        assert text.isascii(), name


def test_comparison_sees_another_word() -> None:
    assert visit.masked("a 1.5  b\nc ███") == visit.masked("a 20 b\nc ░") != visit.masked("a 1.5 x\nc")
