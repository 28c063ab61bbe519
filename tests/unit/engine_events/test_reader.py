from __future__ import annotations

import json

import pytest

from engine.events.checks import LONGEST_TEXT
from engine.events.numbers import finite, whole
from engine.events.reader import Event, event_of, parse_line
from engine.events.records import Metrics, Record

FRAME = {"v": 1, "seq": 1, "t": 2.0, "kind": "metrics", "stage": "segment", "step": 3, "global_step": 4, "values": {}}


def accept(**changes: object) -> Event:
    found = event_of({**FRAME, **changes})
    assert isinstance(found, Event), found
    return found


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
def test_frame_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    assert isinstance(accept().record, Metrics)
    assert isinstance(event_of({**FRAME, **change}), str)


def test_values_that_cannot_be_stored_become_none_or_are_spelled_out() -> None:
    values = {"a": 10**30, "b": float("nan"), "c": [float("inf"), 1], "\ud800": "x\udfff", "d": {"e": True}}
    found = accept(kind="note", values=values).record
    assert type(found) is Record
    assert found.values == {"a": None, "b": None, "c": [None, 1], "\\ud800": "x\\udfff", "d": {"e": True}}
    json.dumps(found.values, allow_nan=False).encode()


def test_line_that_is_no_event_says_why() -> None:
    assert event_of({**FRAME, "t": 1764000000000}) == "its t is no Unix time in seconds of the years 1 to 9999"
    assert event_of({**FRAME, "step": -1}) == "its step is no whole number from 0 to 2^53"
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert event_of({**FRAME, "values": {"a": deep}}) == "its values lie too deep in each other"


@pytest.mark.parametrize(
    "line", [b"", b"no json", b"[]", b"{}", b'{"seq":1,"t":1}', b'{"seq":"1","t":1,"kind":"a"}', b"[" * 100_000]
)
def test_line_that_is_no_object_with_a_frame_is_no_event(line: bytes) -> None:
    assert parse_line(line) == "it is no event: no JSON object with seq, kind and a number t"


def test_what_was_left_out_is_named() -> None:
    event = accept(values={"loss": "x", "lr": 0.1, "\x1b[1m": True, "c": [], "d": {}})
    assert event.record.values == {"lr": 0.1}
    assert (
        event.left_out()
        == "left out of its 'metrics': 'loss', '\\x1b[1m', 'c' and 1 more, no values of this kind (docs/events.md)"
    )
    assert accept(values={"loss": 1.0}).left_out() == ""


def test_long_text_is_cut() -> None:
    text = str(accept(kind="warning", values={"text": "ab" * LONGEST_TEXT}).record.values["text"])
    assert len(text) == LONGEST_TEXT
    assert text.endswith("aba…")


def test_text_in_other_scripts_is_kept() -> None:
    assert accept(kind="note", values={"text": "Straße 道路 🚲"}).record.values == {"text": "Straße 道路 🚲"}


def test_absent_steps_are_zero() -> None:
    found = event_of({"seq": 1, "t": 1, "kind": "note"})
    assert found == Event("note", 1, 1.0, "", 0, 0, Record())


def test_whole_and_finite_refuse_truth_values() -> None:
    assert whole(True) is None
    assert finite(False) is None
    assert whole(40.0) == 40
    assert finite(3) == 3.0


def test_of_kinds_that_nobody_asks_for_only_the_frame_is_read() -> None:
    line = json.dumps({**FRAME, "printed": 7, "values": {"loss": 0.5}}).encode()
    whole_event, frame = parse_line(line), parse_line(line, kinds=("graph",))
    assert isinstance(whole_event, Event) and isinstance(frame, Event)
    assert whole_event.record == Metrics({"loss": 0.5}) and frame.record == Metrics()
    assert frame._replace(record=whole_event.record) == whole_event
    assert parse_line(line, kinds=("graph", "metrics")) == whole_event
