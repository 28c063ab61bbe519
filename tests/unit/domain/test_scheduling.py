from __future__ import annotations

from mmtui.domain.placing import Slots
from mmtui.domain.scheduling import (
    Rules,
    Waiting,
    crowded,
    order,
    pick_next,
    place_between,
    waiting_reasons,
)
from tests.work import python_steps

ONE_FREE = Slots(("cpu:0",), 1, "CPU slot")
NONE_FREE = Slots((), 1, "CPU slot")


def test_pick_next_priority_before_position_before_id() -> None:
    waiting = [Waiting(1, 0, 1.0, 0), Waiting(2, 5, 9.0, 0), Waiting(3, 5, 2.0, 0), Waiting(4, 0, 0.5, 0)]
    assert [run.run_id for run in order(waiting)] == [3, 2, 4, 1]
    assert pick_next(waiting, ONE_FREE, now=0) == (waiting[2], ("cpu:0",))


def test_pick_next_run_that_backs_off_lets_the_next_pass() -> None:
    waiting = [Waiting(1, 0, 1.0, not_before=50.0), Waiting(2, 0, 2.0, 0)]
    assert pick_next(waiting, ONE_FREE, now=49.9) == (waiting[1], ("cpu:0",))
    assert pick_next(waiting, ONE_FREE, now=50.0) == (waiting[0], ("cpu:0",))


def test_pick_next_no_free_slot_picks_nothing() -> None:
    assert pick_next([Waiting(1, 0, 1.0, 0)], NONE_FREE, now=0) is None


def test_waiting_reasons_count_runs_ahead_in_queue_order() -> None:
    reasons = waiting_reasons([Waiting(1, 0, 1.0, 0), Waiting(2, 1, 2.0, 0), Waiting(3, 0, 3.0, 0)], NONE_FREE)
    assert reasons[2] == "waiting: 1 of 1 CPU slot in use"
    assert reasons[1].endswith("1 run ahead")
    assert reasons[3].endswith("2 runs ahead")


def test_waiting_reasons_take_no_more_for_each_run_the_more_there_are() -> None:
    def steps(count: int) -> int:
        waiting = [Waiting(i, 0, float(i), 0) for i in range(count)]
        return python_steps(lambda: waiting_reasons(waiting, NONE_FREE))

    assert steps(2000) < 2.1 * steps(1000), "ten thousand are looked at in every tick"


def test_pick_next_run_that_waits_for_another_lets_the_next_pass() -> None:
    waiting = [Waiting(1, 9, 1.0, 0, after=(7, 8)), Waiting(2, 0, 2.0, 0)]
    assert pick_next(waiting, ONE_FREE, now=0) == (waiting[1], ("cpu:0",))
    reasons = waiting_reasons(waiting, NONE_FREE)
    assert reasons[1] == "waiting for #7, #8 to succeed"
    assert "ahead" not in reasons[2], "who cannot start stands in nobody's way"


def test_pick_next_full_group_lets_others_pass_and_says_its_numbers() -> None:
    rules = Rules(limits={"g": 2}, active={"g": 2})
    waiting = [Waiting(1, 0, 1.0, 0, group="g"), Waiting(2, 0, 2.0, 0, group="h"), Waiting(3, 0, 3.0, 0)]
    assert pick_next(waiting, ONE_FREE, 0, rules) == (waiting[1], ("cpu:0",))
    assert waiting_reasons(waiting, NONE_FREE, rules)[1] == "waiting: group g has 2 of 2 runs active"
    assert pick_next(waiting, ONE_FREE, 0, Rules(limits={"g": 3}, active={"g": 2})) == (waiting[0], ("cpu:0",))


def test_pick_next_closed_queue_starts_nothing_and_every_run_says_why() -> None:
    waiting = [Waiting(1, 0, 1.0, 0), Waiting(2, 0, 2.0, 0)]
    assert pick_next(waiting, ONE_FREE, 0, Rules(closed="drained")) is None
    assert waiting_reasons(waiting, ONE_FREE, Rules(closed="drained")) == {1: "drained", 2: "drained"}


def test_place_between_neighbours_until_nothing_fits() -> None:
    assert (place_between(None, None), place_between(None, 3.0), place_between(5.0, None)) == (0.0, 2.0, 6.0)
    low, high, moves = 1.0, 2.0, 0
    while not crowded(low, high):
        high = place_between(low, high)
        assert low < high
        moves += 1
    assert 40 < moves < 60
    assert not crowded(None, 1.0) and not crowded(1.0, None)
