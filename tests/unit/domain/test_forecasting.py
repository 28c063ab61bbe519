"""The queue played forward."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtui.domain.forecasting import FOREVER, Span, Work, play
from mmtui.domain.placing import Slots
from mmtui.domain.scheduling import Rules, Waiting


def run(number: int, **more: object) -> Waiting:
    return Waiting(number, 0, float(number), 0, **more)  # type: ignore[arg-type]


def plain(seconds: float) -> Work:
    return Work((("", seconds),))


def slots(*free: str, total: int = 0) -> Slots:
    return Slots(free, total or len(free), "GPU")


def test_play_one_place_one_after_the_other_behind_what_runs() -> None:
    active = {1: (("a",), 1.0, "", plain(10))}
    waiting = [run(2), run(3)]
    found = play(active, waiting, {2: plain(5), 3: plain(7)}, slots(total=1), 100)
    assert found == {1: Span(None, 110), 2: Span(110, 115), 3: Span(115, 122)}


def test_play_priorities_delays_and_dependencies() -> None:
    waiting = [run(1), Waiting(2, 5, 9.0, 0), Waiting(3, 0, 3.0, 150.0), run(4, after=(3,))]
    found = play({}, waiting, {n: plain(10) for n in range(1, 5)}, slots("a"), 100)
    assert [found[n].start for n in (2, 1, 3, 4)] == [100, 110, 150, 160]


def test_play_run_for_two_places_waits_for_both_and_keeps_them() -> None:
    active = {1: (("a",), 1.0, "", plain(10)), 2: (("b",), 1.0, "", plain(30))}
    waiting = [run(3, wanted=2), run(4)]
    found = play(active, waiting, {3: plain(5), 4: plain(5)}, slots(total=2), 0)
    assert (found[3], found[4]) == (Span(30, 35), Span(35, 40))


def test_play_shares_of_a_place() -> None:
    waiting = [run(n, wanted=0.5) for n in (1, 2, 3)]
    found = play({}, waiting, {1: plain(10), 2: plain(20), 3: plain(5)}, slots("a"), 0)
    assert (found[1], found[2], found[3]) == (Span(0, 10), Span(0, 20), Span(10, 15))


def test_play_shared_stage_is_trained_once_and_waited_for() -> None:
    work = {n: Work((("proxy", 100.0), ("", 10.0))) for n in (1, 2, 3)}
    found = play({}, [run(n) for n in (1, 2, 3)], work, slots("a", "b"), 0)
    assert found[1] == Span(0, 110)
    assert found[2] == Span(100, 110)
    assert found[3] == Span(110, 120)


def test_play_group_limit_counts_runs_that_end() -> None:
    waiting = [run(1, group="g"), run(2, group="g"), run(3)]
    work = {n: plain(10) for n in (1, 2, 3)}
    found = play({}, waiting, work, slots("a", "b"), 0, Rules(limits={"g": 1}))
    assert [found[n].start for n in (1, 2, 3)] == [0, 10, 0]


def test_play_what_cannot_be_told_is_none() -> None:
    active = {1: (("a",), 1.0, "", plain(FOREVER))}
    assert play(active, [run(2)], {2: plain(1)}, slots(total=1), 0) == {1: Span(None, None), 2: Span(None, None)}
    found = play({}, [run(1), run(2)], {1: plain(FOREVER), 2: plain(1)}, slots("a", "b"), 0)
    assert found == {1: Span(0, None), 2: Span(0, 1)}
    assert play({}, [run(1, wanted=5)], {1: plain(1)}, slots("a"), 0) == {1: Span(None, None)}
    assert play({}, [run(1)], {1: plain(1)}, slots("a"), 0, Rules(closed="drained")) == {1: Span(None, None)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50), st.integers(0, 80)), min_size=1, max_size=25),
)
def test_play_agrees_with_a_second_by_second_simulation(places: int, jobs: list[tuple[int, int, int]]) -> None:
    """The oracle steps a clock one second at a time and knows nothing of events."""
    waiting = [Waiting(n, priority, float(n), float(delay)) for n, (priority, _, delay) in enumerate(jobs)]
    works = {n: plain(seconds) for n, (_, seconds, _) in enumerate(jobs)}
    found = play({}, waiting, works, slots(*(str(n) for n in range(places))), 0)
    left = sorted(range(len(jobs)), key=lambda n: (-jobs[n][0], n))
    ends: list[int] = []
    clock = 0
    while left:
        ends = [end for end in ends if end > clock]
        for n in list(left):
            if len(ends) < places and jobs[n][2] <= clock:
                assert found[n] == Span(clock, clock + jobs[n][1])
                ends.append(clock + jobs[n][1])
                left.remove(n)
        clock += 1


def test_play_ten_thousand_runs_ends() -> None:
    draw = random.Random(1)
    waiting = [run(n) for n in range(10_000)]
    works = {n: plain(draw.uniform(1, 9)) for n in range(10_000)}
    found = play({}, waiting, works, slots("a", "b", "c", "d"), 0)
    total = sum(work.seconds() for work in works.values())
    assert max(span.end or 0 for span in found.values()) == pytest.approx(total / 4, abs=10)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e308])
def test_play_what_takes_for_ever_or_is_no_number_has_no_end(seconds: float) -> None:
    twice = Work((("", seconds), ("", seconds)))
    found = play({1: (("a",), 1.0, "", twice)}, [run(2)], {2: twice}, slots("b", total=2), 0)
    assert found == {1: Span(None, None), 2: Span(0, None)}
