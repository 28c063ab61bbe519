"""Every number is a time that has a date, or none; no number is an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.events.numbers import EARLIEST, LATEST, is_moment
from mmtui.cli import jsonform, ordering
from mmtui.domain import dates

ANY = st.one_of(st.floats(), st.integers(), st.integers(-(2**63), 2**63), st.floats(-1e12, 3e11))
ZONES = ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "Europe/Berlin", "XXX-23:59:59", "XXX23:59:59"]


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@given(ANY)
@example(1.7e12)
@example(float("nan"))
@example(float("inf"))
@example(-(10**400))
@example(EARLIEST)
@example(LATEST)
def test_any_number_is_a_date_or_none(t: Any) -> None:
    found, told = dates.local(t), dates.text(t, "%Y-%m-%d %H:%M:%S")
    assert (found is not None) == (dates.iso(t) is not None) == (told != "-") == is_moment(t)
    assert jsonform.when(t) == dates.iso(t)
    assert ordering._clock(t) == "?" or is_moment(t)
    assert abs(dates.offset(t)) < 86_400


@pytest.mark.parametrize("t", [EARLIEST, LATEST, -1.0, 0.0, 1.7e9])
def test_ends_are_dates_in_every_zone(zone: str, t: float) -> None:
    assert dates.local(t) == datetime.fromtimestamp(t)
    assert dates.offset(t) == time.localtime(t).tm_gmtoff
    assert dates.iso(t) == jsonform.when(t)


@given(st.floats(0, 4e9))
def test_ordinary_times_are_what_the_library_says(t: float) -> None:
    wanted = datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert dates.iso(t) == wanted
    assert dates.text(t, "%m-%d %H:%M:%S") == datetime.fromtimestamp(t).strftime("%m-%d %H:%M:%S")
    assert dates.text(t, "%Y-%m-%d %H:%M") == time.strftime("%Y-%m-%d %H:%M", time.localtime(t))


@pytest.mark.parametrize("t", [None, "1700000000", b"1", [], 1.7e12, -1e12, float("nan")])
def test_what_is_no_time_is_shown_as_missing(t: Any) -> None:
    assert not is_moment(t)
    assert (dates.local(t), dates.iso(t), dates.text(t, "%Y"), dates.text(t, "%Y", "?")) == (None, None, "-", "?")


def test_today_is_told_by_the_clock_and_other_days_by_their_date() -> None:
    now = time.time()
    assert ordering._clock(now) == time.strftime("%H:%M:%S", time.localtime(now))
    assert ordering._clock(now - 1e7) == time.strftime("%Y-%m-%d %H:%M", time.localtime(now - 1e7))
