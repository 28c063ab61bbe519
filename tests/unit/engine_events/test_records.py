"""What the values of events may be: real ones pass as they are, all others are left out and named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events.checks import LONGEST_NAME, MOST_CLASSES
from engine.events.records import MOST_METRICS, RECORDS, Field, Progress, Record, record_of
from tests.hostile import EVENTS, VALUES, mutated


def sound(kind: str, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of the values is kept, as JSON, and the names of what is left out."""
    record = record_of(kind, values)
    return json.loads(json.dumps(record.values, allow_nan=False)), list(record.refused)


@pytest.mark.parametrize("kind", EVENTS)
def test_sound_values_of_a_trainer_pass_as_they_are(kind: str) -> None:
    assert sound(kind, EVENTS[kind]) == (EVENTS[kind], [])


@pytest.mark.parametrize(
    ("kind", "values", "kept", "left"),
    [
        ("stage_finished", {"seconds": 1, "replayed": "x"}, {"seconds": 1}, ["replayed"]),
        ("stage_finished", {"seconds": 1e400, "replayed": 3.0}, {"replayed": 3}, ["seconds"]),
        ("stage_started", {"total_steps": 2**60, "offset": 2}, {"offset": 2}, ["total_steps"]),
        ("run_started", {"stages": [["a", 1], ["b"]], "seed": -3}, {"seed": -3}, ["stages"]),
        ("run_started", {"classes": "abc", "versions": [1]}, {}, ["classes", "versions"]),
        (
            "run_started",
            {"code": {"sha256": "ab" * 32, "held": False, "more": [1]}},
            {"code": {"sha256": "ab" * 32, "held": False}},
            [],
        ),
        ("run_started", {"code": {"sha256": "AB" * 32, "held": True}, "seed": 1}, {"seed": 1}, ["code"]),
        ("run_started", {"code": {"sha256": "ab" * 32 + "\n", "held": True}}, {}, ["code"]),
        ("run_started", {"code": {"sha256": "ab" * 32, "held": 1}}, {}, ["code"]),
        ("run_started", {"code": {"sha256": "ab" * 32}}, {}, ["code"]),
        ("run_started", {"code": "ab" * 32}, {}, ["code"]),
        ("run_started", {"code": ["ab"]}, {}, ["code"]),
        ("metrics", {"loss": True, "a": None, "b": "1", "c": 2}, {"a": None, "c": 2.0}, ["loss", "b"]),
        ("metrics", {"": 1.0, "n" * (LONGEST_NAME + 1): 1.0}, {}, ["", "n" * (LONGEST_NAME + 1)]),
        ("graph", {"starved": {"0": 1, "x": 2}}, {}, ["starved"]),
        ("graph", {"nodes_per_class": {str(MOST_CLASSES): 1}}, {}, ["nodes_per_class"]),
        ("graph", {"nodes_per_class": {"07": 1}}, {}, ["nodes_per_class"]),
        ("graph", {"class_pairs": [[0, 1, 2], [0, 1]]}, {}, ["class_pairs"]),
        ("graph", {"d_pos_hist": [1, None]}, {}, ["d_pos_hist"]),
        ("confusion", {"matrix": [[1, 2], [3]], "classes": []}, {"classes": []}, ["matrix"]),
        ("confusion", {"matrix": [[1]], "classes": ["a", "b"]}, {"matrix": [[1]]}, ["classes"]),
        ("projection", {"label": [0, 1], "positive": [1, 2]}, {"label": [0, 1]}, ["positive"]),
        ("projection", {"label": [0, 1], "negative": [-2, 0]}, {"label": [0, 1]}, ["negative"]),
        ("projection", {"label": [0, 1], "order": [0, 0]}, {"label": [0, 1]}, ["order"]),
        ("projection", {"label": [0, 1], "x": [0.5]}, {"label": [0, 1]}, ["x"]),
        ("projection", {"x": [0.5], "positive": [0]}, {}, ["x", "positive"]),
        ("image", {"index": -1, "name": 3}, {}, ["index", "name"]),
        ("from_the_future", {"index": -1}, {"index": -1}, []),
    ],
    ids=str,
)
def test_sound_values_of_another_kind_are_left_out_and_named(
    kind: str, values: dict[str, Any], kept: dict[str, Any], left: list[str]
) -> None:
    assert sound(kind, values) == (kept, left)


def test_sound_metrics_have_a_greatest_number() -> None:
    kept, left = sound("metrics", {f"m{n}": 1.0 for n in range(MOST_METRICS + 2)})
    assert (len(kept), left) == (MOST_METRICS, [f"m{MOST_METRICS}", f"m{MOST_METRICS + 1}"])


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(EVENTS)), seed=st.integers(0, 2**32))
def test_sound_values_pass_a_second_time_and_are_json(kind: str, seed: int) -> None:
    values = json.loads(json.dumps(mutated(EVENTS[kind], seed)))
    kept, left = sound(kind, values)
    assert sound(kind, kept) == (kept, [])
    assert set(kept) | set(left) == set(values)
    if kind == "metrics":
        assert all(value is None or math.isfinite(value) for value in kept.values())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, [1, [math.nan]], {"a": {"b": [0, math.inf]}}])
def test_value_that_no_kind_knows_is_left_out_where_json_has_no_form_for_it(value: object) -> None:
    assert sound("graph", {"new": value, "other": [1, {"a": 2.5}]}) == ({"other": [1, {"a": 2.5}]}, ["new"])
    assert sound("a kind of tomorrow", {"new": value}) == ({}, ["new"])


def test_hostile_values_reach_every_check() -> None:
    """Each value that a trainer tells is refused for some hostile one: no check lets everything through."""
    for kind, values in EVENTS.items():
        for name in values:
            assert any(name in sound(kind, {**values, name: value})[1] for value in VALUES), (kind, name)


def test_record_gives_its_values_by_name_and_none_for_what_is_not_told() -> None:
    told = Progress({"text": "reading", "done": 3.0, "total": "x", "more": [1]})
    assert (told.text, told.done, told.total, told.eta_seconds) == ("reading", 3, None, None)
    assert (told.values, told.refused) == ({"text": "reading", "done": 3, "more": [1]}, ["total"])
    assert told == Progress(told.values) != Record(told.values)


def test_records_are_those_of_the_documented_schema(repository: Path) -> None:
    document = (repository / "docs" / "events.md").read_text().split("| kind | `values` |")[1]
    rows = {line.split("`")[1]: line for line in document.split("\n\n")[0].splitlines() if line.startswith("| `")}
    assert set(rows) == set(RECORDS)
    rows["graph"] = document  # it has a table of its own
    missing = [(kind, name) for kind, one in RECORDS.items() for name in fields(one) if f"`{name}`" not in rows[kind]]
    assert missing == []


def fields(record: type[Record]) -> list[str]:
    return [name for name, value in vars(record).items() if isinstance(value, Field)]
