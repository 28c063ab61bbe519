from __future__ import annotations

import json

import pytest

from mmtui.domain.eventline import accept, finite, whole

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
    ],
    ids=str,
)
def test_accept_frame_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    assert accept(FRAME) is not None
    assert accept({**FRAME, **change}) is None


def test_accept_values_that_cannot_be_stored_become_none_or_replaced() -> None:
    values = {"a": 10**30, "b": float("nan"), "c": [float("inf"), 1], "\ud800": "x\udfff", "d": {"e": True}}
    accepted = accept({**FRAME, "values": values})
    assert accepted is not None
    assert accepted["values"] == {"a": None, "b": None, "c": [None, 1], "?": "x?", "d": {"e": True}}
    json.dumps(accepted, allow_nan=False).encode()


def test_accept_text_in_other_scripts_is_kept() -> None:
    accepted = accept({**FRAME, "values": {"text": "Straße 道路 🚲"}})
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
