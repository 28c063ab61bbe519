"""Text for terminals: nothing in it may steer one."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtui.domain.look import COLORS, GLYPHS, glyph
from mmtui.domain.states import RunState
from mmtui.domain.text import done, duration, fixed, in_ascii, number, printable, shorten, shorten_inside, signed, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Straße 道路 🚲", "Straße 道路 🚲"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\tb\n", "a    b\\x0a"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable_spells_out_what_steers(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters()))
def test_printable_any_text_has_no_control_left_and_stays_so(text: str) -> None:
    safe = printable(text)
    left = {character for character in safe if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert left <= {"\u200d"}  # joins emoji
    assert printable(safe) == safe
    safe.encode()


@given(st.text(max_size=30), st.integers(1, 20))
def test_shorten_fits_and_keeps_what_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert short == text if len(text) <= width else short == text[: width - 1] + "…"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (-3, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (3599.7, "1h00m"),
        (7500, "2h05m"),
        (86400, "1d00h"),
        (3 * 86400 + 4 * 3600 + 3599, "3d04h"),
    ],
)
def test_duration_has_at_most_two_units(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (None, "n/a"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 * 2**20, "150 MiB"),
        (3.4 * 2**30, "3.4 GiB"),
        (2**40, "1.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
    ],
)
def test_size_in_binary_units(count: float | None, expected: str) -> None:
    assert size(count) == expected


def test_look_every_state_has_a_glyph_of_its_own_and_a_colour() -> None:
    states = {state.value for state in RunState}
    assert set(GLYPHS) == set(COLORS) == states
    for ascii_only in (False, True):
        glyphs = [glyph(state, ascii_only) for state in states]
        assert len(set(glyphs)) == len(states)
    assert all(glyph(state, True).isascii() for state in states)
    assert glyph("from the future") == glyph("from the future", True) == "?"


def test_shorten_inside_keeps_both_ends() -> None:
    assert shorten_inside("voc_vgg16_colorization_mixmatch seed=0", 32) == ("voc_vgg16_colori…mixmatch seed=0")
    assert shorten_inside("short", 5) == "short"
    for width in range(1, 12):
        assert len(shorten_inside("abcdefghijklmnop", width)) == width


# ---- numbers of foreign runs ---------------------------------------------------------------------------------------

ANY = st.one_of(st.floats(), st.integers(-(2**63), 2**63), st.floats(-10, 10), st.floats(-1e12, 1e12))


@given(ANY, st.integers(0, 4))
@example(1e308, 3)
@example(7.9e-6, 3)
@example(-5e-324, 0)
@example(999_999_999.9996, 3)
def test_fixed_is_short_and_never_zero_for_what_is_not(value: float, digits: int) -> None:
    text = fixed(value, digits)
    assert len(text) <= 12
    if math.isfinite(value):
        assert (float(text) == 0) == (value == 0)
        error = max(0.5 * 10.0**-digits, abs(value) * 0.5 * 10.0**-digits)
        assert math.isinf(float(text)) or abs(float(text) - value) <= error * (1 + 1e-9)
    if 1 <= abs(value) < 1e6:
        assert text == f"{value:.{digits}f}"


@given(ANY, st.integers(1, 6))
def test_number_is_short_and_never_zero_for_what_is_not(value: float, digits: int) -> None:
    text = number(value, digits)
    assert len(text) <= 13
    assert text == (f"{value:.{digits}g}" if not math.isnan(value) else "-")
    assert math.isnan(value) or (float(text) == 0) == (value == 0)


@given(ANY, st.integers(0, 3))
def test_signed_is_short(value: float, digits: int) -> None:
    text = signed(value, digits)
    assert len(text) <= 12 and text[0] in "+-"
    if abs(value) < 1e6:
        assert text == f"{value:+.{digits}f}"


@given(ANY)
@example(math.nan)
@example(math.inf)
@example(-math.inf)
@example(1.7e308)
def test_duration_of_anything_is_short(seconds: float) -> None:
    text = duration(seconds)
    assert len(text) <= 11
    if math.isnan(seconds):
        assert text == "-"
    elif seconds > 3001 * 365 * 86_400:
        assert text == "over 3000y"
    elif seconds <= 0:
        assert text == "0s"


@given(ANY)
@example(-1e300)
@example(math.inf)
def test_size_of_anything_is_short(count: float) -> None:
    assert len(size(count)) <= 14
    assert (size(count) == "n/a") == math.isnan(count)


@given(ANY)
def test_done_is_a_percentage(share: float) -> None:
    text = done(share)
    assert text == "-" if math.isnan(share) else 0 <= int(text.removesuffix("%")) <= 999
    if 0 <= share <= 1:
        assert text == f"{100 * share:.0f}%"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.2345, 3, "1.234"), (0.0, 3, "0.000"), (None, 3, "-"), (0.0004, 3, "0.0004"), (1e308, 3, "1e+308")],
)
def test_fixed_of_some(value: float | None, digits: int, text: str) -> None:
    assert fixed(value, digits) == text


def test_a_terminal_of_ascii_alone_tells_letters_apart_and_keeps_signs_in_one_cell() -> None:
    assert in_ascii("a…b ─ ●") == "a~b ? ?"
    assert in_ascii("café 日") == "caf\\xe9 \\u65e5"
    assert in_ascii("\U0001f600") == "\\U0001f600"
    assert in_ascii("plain") == "plain"
