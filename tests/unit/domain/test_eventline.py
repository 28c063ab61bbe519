from __future__ import annotations

import json

import pytest

from mmtui.domain.eventline import accept, checked
from mmtui.domain.eventvalues import LONGEST_TEXT, finite, whole

FRAME = {"v": 1, "seq": 1, "t": 2.0, "kind": "metrics", "stage": "segment", "step": 3, "global_step": 4, "values": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 10**30},
        {"seq": -1},
        {"seq": True},
        {"seq": 1.5},
        {"t": float("nan")},
        {"t": float("inf")},
        {"t": 10**400},
        {"step": 2**63},
        {"global_step": float("inf")},
        {"global_step": float("nan")},
        {"step": "3"},
        {"step": 2**53 + 1},
        {"seq": 2**53 + 1},
        {"t": 1764000000000},
        {"t": -1e300},
        {"kind": "k" * 129},
        {"stage": "s" * 129},
    ],
    ids=str,
)
def test_accept_frame_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    assert accept(FRAME) is not None
    assert accept({**FRAME, **change}) is None


def test_accept_values_that_cannot_be_stored_become_none_or_are_spelled_out() -> None:
    values = {"a": 10**30, "b": float("nan"), "c": [float("inf"), 1], "\ud800": "x\udfff", "d": {"e": True}}
    accepted = accept({**FRAME, "kind": "note", "values": values})
    assert accepted is not None
    assert accepted["values"] == {"a": None, "b": None, "c": [None, 1], "\\ud800": "x\\udfff", "d": {"e": True}}
    json.dumps(accepted, allow_nan=False).encode()


def test_checked_says_why_a_line_is_no_event() -> None:
    assert checked({**FRAME, "t": 1764000000000}) == (None, "its t is no Unix time in seconds of the years 1 to 9999")
    assert checked({**FRAME, "step": -1}) == (None, "its step is no whole number from 0 to 2^53")
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert checked({**FRAME, "values": {"a": deep}}) == (None, "its values lie too deep in each other")


def test_checked_names_what_was_left_out() -> None:
    event, words = checked({**FRAME, "values": {"loss": "x", "lr": 0.1, "\x1b[1m": True, "c": [], "d": {}}})
    assert event is not None
    assert event["values"] == {"lr": 0.1}
    assert (
        words
        == "left out of its 'metrics': 'loss', '\\x1b[1m', 'c' and 1 more, no values of this kind (docs/events.md)"
    )
    assert checked({**FRAME, "values": {"loss": 1.0}})[1] == ""


def test_accept_long_text_is_cut() -> None:
    accepted = accept({**FRAME, "kind": "warning", "values": {"text": "ab" * LONGEST_TEXT}})
    assert accepted is not None
    assert len(accepted["values"]["text"]) == LONGEST_TEXT
    assert accepted["values"]["text"].endswith("aba…")


def test_accept_text_in_other_scripts_is_kept() -> None:
    accepted = accept({**FRAME, "kind": "note", "values": {"text": "Straße 道路 🚲"}})
    assert accepted is not None
    assert accepted["values"] == {"text": "Straße 道路 🚲"}


def test_accept_absent_steps_are_zero() -> None:
    accepted = accept({"seq": 1, "t": 1, "kind": "note"})
    assert accepted is not None
    assert (accepted["step"], accepted["global_step"], accepted["stage"], accepted["values"]) == (0, 0, "", {})


def test_whole_and_finite_refuse_truth_values() -> None:
    assert whole(True) is None
    assert finite(False) is None
    assert whole(40.0) == 40
    assert finite(3) == 3.0
