"""What is sent is the difference: a terminal that gets only differences shows what one shows that gets everything."""

from __future__ import annotations

import re
import unicodedata

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.tui.terminal.diff import BLANK, Difference, Pen, Picture, cells_of
from tests.tui.seed import seed_run
from tests.tui.test_terminal import Terminal

COLUMNS, ROWS = 12, 3
STYLES = [
    Style(),
    Style(dim=True),
    Style(bold=True, color="red"),
    Style(color="cyan"),
    Style(reverse=True),
    Style(bgcolor="#203040"),
    Style(color="#48ff49", underline=True),
]


def lines(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[Segment]]]:
    segments = st.lists(st.tuples(text, st.sampled_from(STYLES)).map(lambda both: Segment(*both)), max_size=4)
    return st.lists(segments, min_size=ROWS, max_size=ROWS)


def fitted(segments: list[Segment]) -> Strip:
    return Strip(segments).adjust_cell_length(COLUMNS)


def screen_after(data: str, screen: pyte.Screen | None = None) -> pyte.Screen:
    screen = screen or pyte.Screen(COLUMNS, ROWS)
    pyte.Stream(screen).feed(data)
    return screen


def seen(screen: pyte.Screen) -> list[list[tuple[object, ...]]]:
    """Characters with what can be seen of their style."""
    rows = []
    for y in range(ROWS):
        row: list[tuple[object, ...]] = []
        for x in range(COLUMNS):
            char = screen.buffer[y][x]
            drawn = char.reverse or char.underscore or char.bg != "default"
            letters = (char.fg, char.bold) if char.data.strip() or drawn else ()
            row.append((char.data, *letters, char.bg, char.reverse, char.underscore))
        rows.append(row)
    return rows


def whole(picture: list[list[Segment]]) -> str:
    """All of it, without any of our code."""
    return "".join(
        f"\x1b[{y};1H\x1b[0m" + "".join((s.style or Style()).render(s.text) for s in fitted(row))
        for y, row in enumerate(picture, 1)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(lines(st.text("ab ░█⠁", max_size=8)), min_size=1, max_size=4))
def test_differences_leave_the_same_screen_as_everything(pictures: list[list[list[Segment]]]) -> None:
    picture, terminal = Picture(), pyte.Screen(COLUMNS, ROWS)
    screen_after("\x1b[1;1Hrubbish\x1b[2;1Hmore rubbish", terminal)
    for wanted in pictures:
        pen = Pen()
        picture.fit(COLUMNS, ROWS)
        for y, row in enumerate(wanted):
            picture.draw(y, 0, cells_of(fitted(row), ColorSystem.TRUECOLOR), pen)
        screen_after(pen.text(), terminal)
        assert seen(terminal) == seen(screen_after(whole(wanted)))


@settings(max_examples=100, deadline=None)
@given(st.lists(lines(st.text("ab ░█⠁", max_size=8)), min_size=1, max_size=3), st.integers(1, 60))
def test_picture_in_parts_leaves_the_same_screen_as_a_whole_one(pictures: list[list[list[Segment]]], room: int) -> None:
    picture, terminal = Picture(), pyte.Screen(COLUMNS, ROWS)
    console = Console(color_system="truecolor", force_terminal=True)
    region = Region(0, 0, COLUMNS, ROWS)
    for wanted in pictures:
        for _ in range(ROWS + 1):
            picture.fit(COLUMNS, ROWS)
            part = Difference(LayoutUpdate([[fitted(row)] for row in wanted], region), picture, room)
            text = part.render_segments(console)
            assert part.size == len(text.encode())
            screen_after(text, terminal)
            if not part.cut:
                break
        assert not part.cut, "each part gets on by a line at least"
        assert seen(terminal) == seen(screen_after(whole(wanted)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text("a中 🚀é́", max_size=8), min_size=2, max_size=4))
def test_wide_and_combining_characters_leave_the_same_text(texts: list[str]) -> None:
    picture, terminal = Picture(), pyte.Screen(COLUMNS, ROWS)
    picture.fit(COLUMNS, ROWS)
    for text in texts:
        strip = fitted([Segment(text.lstrip("́"))])
        pen = Pen()
        picture.draw(0, 0, cells_of(strip, ColorSystem.TRUECOLOR), pen)
        screen_after(pen.text(), terminal)
        assert terminal.display[0] == screen_after("".join(s.text for s in strip)).display[0]


_OURS = re.compile(r"\x1b\[[\d;]*[HKCm]")
"""What a pen writes beside text."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x05\x07\u202e\u2066a中")), max_size=12)))
def test_nothing_that_a_terminal_acts_on_gets_past_the_cells(texts: list[str]) -> None:
    """Also where a panel has forgotten to spell out a text from outside; and the columns behind it stay in place."""
    strip = Strip([Segment(text) for text in texts]).adjust_cell_length(COLUMNS)
    cells = cells_of(strip, ColorSystem.TRUECOLOR)
    assert len(cells) == COLUMNS
    picture, pen = Picture(), Pen()
    picture.fit(COLUMNS, 1)
    picture.draw(0, 0, cells, pen)
    sent = _OURS.sub("", pen.text())
    assert not [
        char for char in sent if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") and char != "\u200d"
    ]


def test_what_is_equal_is_not_sent_and_blanks_are_erased() -> None:
    picture = Picture()
    picture.fit(20, 1)
    for text, sent in (
        ("loss 0.125", "\x1b[1;1Hloss 0.125\x1b[K"),
        ("loss 0.125", ""),
        ("loss 0.121", "\x1b[1;10H1"),
        ("Loss 0.122", "\x1b[1;1HL\x1b[8C2"),
        ("", "\x1b[1;1H\x1b[K"),
    ):
        pen = Pen()
        picture.draw(0, 0, cells_of(Strip([Segment(text)]).adjust_cell_length(20), ColorSystem.STANDARD), pen)
        assert pen.text() == sent
    picture.forget()
    picture.fit(20, 1)
    pen = Pen()
    picture.draw(0, 0, [BLANK] * 20, pen)
    assert pen.text() == "\x1b[1;1H\x1b[K", "after a repaint nothing is taken for known"


def test_screen_after_many_keys_is_what_a_repaint_shows(home: Home) -> None:
    seed_run(home, "中文 🚀 name", until=450, seed=1, end=RunEvent.EXIT_OK, now=1_790_000_000.0)
    seed_run(home, "second", until=330, seed=2, end=RunEvent.EXIT_OK, now=1_790_000_000.0)
    terminal = Terminal(home, 130, 34)
    try:
        terminal.wait_for("second")
        for keys in ("j", "m", "L", "?", "\x1b", "2", "\t", "\t", "q", "n", "\x1b", "]", "5", "q", "t", "k", "T"):
            terminal.child.send(keys.encode())
            terminal.settle(0.35)
        terminal.wait_for("Tags of run")
        terminal.settle(0.4)  # the cursor of its field blinks every half second
        before = [dict(terminal.screen.buffer[y]) for y in range(34)]
        text = terminal.text()
        terminal.screen.erase_in_display(2)
        terminal.child.send(b"\x0c")
        terminal.until(lambda: terminal.text() == text, f"the screen as it was before it was drawn anew:\n{text}")
        terminal.settle(0.4)
        assert terminal.text() == text
        for y in range(34):
            for x in range(130):
                old, new = before[y].get(x), terminal.screen.buffer[y][x]
                if old is not None and new.data.strip():
                    assert (old.data, old.fg, old.reverse) == (new.data, new.fg, new.reverse), (y, x)
    finally:
        terminal.child.close()


def test_without_colours_no_theme_sends_any(home: Home) -> None:
    seed_run(home, "one", until=330, seed=1, end=RunEvent.EXIT_OK, now=1_790_000_000.0)
    (home.root / "config.toml").write_text('theme = "dark"\n')
    sent = []
    for environment in ({"NO_COLOR": "1"}, {"COLORTERM": "truecolor"}):
        terminal = Terminal(home, 100, 30, **environment)
        try:
            terminal.wait_for("✓ succeeded")
            terminal.child.send(b"n")
            terminal.wait_for("New run")
        finally:
            terminal.child.close()
        codes = b";".join(re.findall(rb"\x1b\[([0-9;]*)m", terminal.received)).split(b";")
        sent.append({code for code in codes if re.fullmatch(rb"[34][0-8]|9[0-7]|10[0-7]", code)})
    assert not sent[0] and sent[1]
