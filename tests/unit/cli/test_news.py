"""What has ended while nobody looked."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import news

Invoke = Callable[..., Any]


@pytest.fixture
def ended(populated: Home) -> Home:
    """Of the three runs one succeeded and one failed, a minute ago."""
    connection = sqlite3.connect(populated.database)
    connection.execute("UPDATE runs SET ended_at = ? WHERE id IN (1, 2)", [time.time() - 60])
    connection.commit()
    connection.close()
    return populated


def test_news_first_look_is_quiet_and_later_ones_tell_each_end_once(ended: Home, mmtui_: Invoke) -> None:
    assert mmtui_("news").out == "", "there was no earlier look"
    news.mark_seen(ended, time.time() - 3600)
    found = mmtui_("news")
    assert "while you were away" in found.out
    assert "1 failed, 1 succeeded" in found.out
    lines = found.out.splitlines()
    assert lines[1].startswith("  2 evil"), "failures first"
    assert "\x1b" not in found.out and "\x07" not in found.out
    assert "mIoU" in lines[2]
    again = mmtui_("news")
    assert (again.out, "nothing has ended" in again.err) == ("", True)


def test_news_since_and_json(ended: Home, mmtui_: Invoke) -> None:
    body = mmtui_("news", "--since", "2h", "--json").json()
    assert {(one["id"], one["state"]) for one in body["ended"]} == {("1", "succeeded"), ("2", "failed")}
    assert mmtui_("news", "--since", "5s", "--json").json()["ended"] == []
    assert mmtui_("news", "--since", "soon").code == 2


def test_news_does_not_tell_of_what_a_person_has_cancelled(ended: Home, mmtui_: Invoke) -> None:
    assert mmtui_("cancel", "3").code == 0
    assert "3" not in {one["id"] for one in mmtui_("news", "--since", "2h", "--json").json()["ended"]}


def test_news_of_a_home_without_a_database(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("news")
    assert (found.code, found.out) == (0, "")
    assert not home.database.exists()
