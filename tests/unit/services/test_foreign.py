"""What ``watch`` says of the events of a trainer that is not in the queue."""

from __future__ import annotations

import json

import pytest

from engine.events import Event, parse_line
from mmtui.services.foreign import describe


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("metrics", {"loss": 0.5, "lr": 0.01}, "segment 3  loss 0.5  lr 0.01"),
        ("metrics", {"loss": None}, "segment 3  loss -"),
        ("metrics", {}, "segment 3"),
        ("warning", {"text": "slow"}, "segment 3  warning: slow"),
        ("error", {}, "segment 3  error:"),
        ("stage_started", {"total_steps": 7}, "segment 3  begins, 7 steps"),
        ("stage_started", {"total_steps": "x"}, "segment 3  begins, ? steps"),
        ("progress", {"text": "reading", "done": 0, "total": 5}, "segment 3  reading 0/5"),
        ("weights", {"file": "a.pth", "loaded": 4}, "segment 3  weights of a.pth: 4 keys loaded"),
        (
            "data_cache",
            {"label": "train", "bytes": 8, "folder": "d"},
            "segment 3  train images, 8 bytes, decoded into d",
        ),
        ("graph", {"nodes": 4}, ""),
        ("of tomorrow", {"a": 1}, ""),
    ],
)
def test_describe_says_what_a_person_wants_to_know(kind: str, values: dict[str, object], words: str) -> None:
    frame = {"seq": 1, "t": 1.0, "kind": kind, "stage": "segment", "step": 3, "values": values}
    event = parse_line(json.dumps(frame).encode())
    assert isinstance(event, Event)
    assert describe(event) == words
