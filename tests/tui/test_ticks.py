"""Labels of axes against what they claim."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmtui.tui.widgets.ticks import axis_ticks, moment_text, since

KINDS = st.sampled_from(["step", "epoch", "clock", "relative"])


@settings(max_examples=300, deadline=None)
@given(KINDS, st.floats(0, 2e9), st.floats(1e-2, 1e8), st.integers(1, 12))
def test_ticks_lie_inside_ascend_and_are_few(kind: str, low: float, span: float, count: int) -> None:
    high = low + span
    found = axis_ticks(kind, low, high, count)
    places = [at for at, _ in found]
    assert all(low - 1e-6 * span <= at <= high + 1e-6 * span for at in places)
    assert places == sorted(set(places))
    assert len(found) <= 2 * count + 2
    longest = 9 if kind != "relative" or span > 20 else 16  # parts of a second, years after the start
    assert all(0 < len(text) <= longest and text.isascii() for _, text in found)
    if kind in ("step", "epoch"):
        assert len({text for _, text in found}) == len(found), "no two ticks say the same"


@settings(max_examples=200, deadline=None)
@example(10_000.0, 0.01, 2)  # no room for the digits that ticks so close together need
@given(st.floats(0, 1e4), st.floats(1e-2, 1e4), st.integers(1, 10))
def test_numbers_say_where_they_stand_and_differ(low: float, span: float, count: int) -> None:
    found = axis_ticks("epoch", low, low + span, count)
    texts = [text for _, text in found]
    assert len(set(texts)) == len(texts)
    gap = found[1][0] - found[0][0] if len(found) > 1 else span
    assert all(abs(float(text) - at) <= 0.01 * gap for at, text in found)


def test_steps_are_whole_and_epochs_need_not_be() -> None:
    assert [text for _, text in axis_ticks("step", 0, 3, 10)] == ["0", "1", "2", "3"]
    assert [text for _, text in axis_ticks("epoch", 0, 1, 5)] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]


@pytest.mark.parametrize(("span", "form"), [(40, "%H:%M:%S"), (7200, "%H:%M"), (40 * 86400, "%m-%d")])
def test_clock_shows_local_time_as_fine_as_it_needs(span: float, form: str) -> None:
    low = datetime(2026, 3, 5, 9, 17, 23).timestamp()
    found = axis_ticks("clock", low, low + span, 5)
    assert len(found) >= 3
    for at, text in found:
        assert text == datetime.fromtimestamp(at).strftime(form)


def test_clock_names_the_day_where_one_begins() -> None:
    low = datetime(2026, 3, 5, 22, 0).timestamp()
    found = dict(axis_ticks("clock", low, low + 4 * 3600, 4))
    assert found[datetime(2026, 3, 6).timestamp()] == "03-06"
    assert found[datetime(2026, 3, 5, 23, 0).timestamp()] == "23:00"


@pytest.mark.parametrize(
    ("seconds", "step", "text"),
    [
        (0, 1, "0s"),
        (45, 5, "45s"),
        (200, 10, "3:20"),
        (7500, 300, "2h05"),
        (7500, 30, "2:05:00"),
        (97200, 3600, "1d03h"),
    ],
)
def test_time_since_the_start(seconds: float, step: float, text: str) -> None:
    assert since(seconds, step) == text


def test_moments_in_words() -> None:
    assert moment_text("step", 215.0) == "step 215"
    assert moment_text("epoch", 2.25) == "epoch 2.25"
    at = datetime(2026, 3, 5, 9, 17, 23).timestamp()
    assert moment_text("clock", at) == "03-05 09:17:23"
