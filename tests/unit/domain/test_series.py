"""Down-sampling against a naive grouping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtui.domain.series import bucketise
from mmtui.domain.views import Bucket, Point


def points(steps: list[int], attempt: int = 1) -> list[Point]:
    return [Point(s, ((s * 37) % 101) / 7, float(s), attempt, "segment", s) for s in steps]


def test_bucketise_few_points_are_kept_one_by_one() -> None:
    made = bucketise(points([1, 2, 4]), {}, 400)
    assert [(b.x, b.low, b.high, b.count) for b in made] == [
        (float(p.global_step), p.value, p.value, 1) for p in points([1, 2, 4])
    ]
    assert bucketise([], {}, 10) == ()


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=300), st.integers(1, 64))
def test_bucketise_any_series_keeps_counts_and_extremes_within_the_limit(steps: set[int], most: int) -> None:
    line = points(sorted(steps))
    made = bucketise(line, {}, most)
    assert len(made) <= most + 1  # a border may cut the first bucket
    assert sum(b.count for b in made) == len(line)
    rest = list(line)
    for b in made:
        mine, rest = rest[: b.count], rest[b.count :]
        values = [p.value for p in mine]
        expected = Bucket(
            float(mine[-1].global_step), min(values), max(values), values[0], values[-1], len(mine), 1, False
        )
        assert b == expected


@given(st.integers(50, 400), st.integers(4, 32))
def test_bucketise_growing_series_keeps_its_borders(length: int, most: int) -> None:
    """One more point changes the last bucket only, or merges old ones; it moves no border between them."""
    before = bucketise(points(list(range(length))), {}, most)
    after = bucketise(points(list(range(length + 1))), {}, most)
    ends = {b.x for b in before[:-1]}
    assert {b.x for b in after[:-1]} <= ends | {before[-1].x}


@pytest.mark.parametrize(("resumed", "superseded"), [({2: 5}, [6, 7, 8]), ({2: 8}, []), ({2: 0}, list(range(1, 9)))])
def test_bucketise_marks_what_a_later_attempt_did_again(resumed: dict[int, int], superseded: list[int]) -> None:
    made = bucketise(points(list(range(1, 9))) + points([9], attempt=2), resumed, 100)
    assert [int(b.x) for b in made if b.superseded] == superseded
    assert [b.x for b in made] == sorted(b.x for b in made)
