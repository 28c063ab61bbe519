"""What the terminal sends, cut into keys: an Escape stays one, whatever comes with it and in whichever pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.drivers import linux_driver
from textual.events import CursorPosition, Key, Paste
from textual.message import Message

from mmtui.tui.terminal.input import KeyParser, keep_escape_apart

ANSWER = "\x1b[5;1R"
"""What a terminal says when it is asked where its cursor is; it comes between keys whenever it likes."""
LETTERS = " qxX7/:~é中^"
NAMES = dict(
    zip(LETTERS, ["space", "q", "x", "X", "7", "slash", "colon", "tilde", "é", "中", "circumflex_accent"], strict=True),
)
SEQUENCES = {"\x1b[A": "up", "\x1b[3~": "delete", "\x1bOP": "f1", "\r": "enter", "\t": "tab", ANSWER: "(answer)"}


@pytest.fixture(autouse=True, scope="module")
def _mended() -> Iterator[None]:
    """As at the start of the screen; Textual is as it was for the tests that come later."""
    parser, keys = linux_driver.XTermParser, dict(ANSI_SEQUENCES_KEYS)
    keep_escape_apart()
    yield
    linux_driver.XTermParser = parser  # type: ignore[attr-defined]
    ANSI_SEQUENCES_KEYS.update(keys)  # type: ignore[attr-defined]


def keys_of(*pieces: str) -> list[str]:
    """What is read of pieces that come one after the other, the last one followed by silence."""
    parser = KeyParser()
    found = [name for piece in pieces for event in parser.feed(piece) for name in _names(event)]
    return found + [name for event in parser.feed("") for name in _names(event)]


def _names(event: Message) -> list[str]:
    """Names of keys as ``MmtuiApp.on_event`` takes them: nothing is bound to Alt, so it is an Escape before a key."""
    if isinstance(event, Key):
        return ["escape", event.key.removeprefix("alt+")] if event.key.startswith("alt+") else [event.key]
    if isinstance(event, Paste):
        return [f"(paste {event.text})"]
    assert isinstance(event, CursorPosition), event
    return ["(answer)"]


@pytest.mark.parametrize("follows", ["", ANSWER, "\x1b[A", "\x1bx", "\x1b", "q" * 40])
@pytest.mark.parametrize("letter", LETTERS)
def test_escape_and_a_letter_are_two_keys_whatever_follows(letter: str, follows: str) -> None:
    assert keys_of(f"\x1b{letter}{follows}") == ["escape", NAMES[letter], *(keys_of(follows) if follows else [])]


@pytest.mark.parametrize("follows", [ANSWER, "\x1b[A", "\x1bx", "\x1b"])
@pytest.mark.parametrize(("letter", "name"), [("[", "left_square_bracket"), ("O", "O")])
def test_letters_that_begin_sequences_are_keys_where_they_began_none(letter: str, name: str, follows: str) -> None:
    assert keys_of(f"\x1b{letter}{follows}") == ["escape", name, *keys_of(follows)]


def test_letters_behind_an_escape_are_known_without_waiting_for_more() -> None:
    parser = KeyParser()
    assert [name for event in parser.feed("\x1bx") for name in _names(event)] == ["escape", "x"]
    assert [name for event in parser.feed("y") for name in _names(event)] == ["y"]


def test_pasted_text_is_one_piece_behind_an_escape() -> None:
    assert keys_of("\x1b\x1b[200~one two\x1b[201~q") == ["escape", "(paste one two)", "q"]


@given(
    st.lists(st.sampled_from(["\x1b", *LETTERS, *SEQUENCES]), max_size=12),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_every_row_of_keys_is_read_as_what_it_is_in_any_pieces(row: list[str], cuts: list[int]) -> None:
    text, ends = "".join(row), sorted(cuts)
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    expected = ["escape" if one == "\x1b" else NAMES.get(one) or SEQUENCES[one] for one in row]
    assert keys_of(*(piece for piece in pieces if piece)) == expected
