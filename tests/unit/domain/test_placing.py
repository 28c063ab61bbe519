"""Which places a run gets, and what is said when there is none."""

from __future__ import annotations

import pytest

from mmtui.domain.placing import MARGIN, RESERVE, Place, Slots, choose, expected, lacking
from mmtui.domain.scheduling import Rules, Waiting, pick_next, waiting_reasons

GIB = 2**30


def gpus(*free: str, partly: tuple[str, ...] = (), total: int = 4, **places: Place) -> Slots:
    return Slots(free, total, "GPU", "", partly, places)


def test_choose_whole_places_in_order_all_or_none() -> None:
    slots = gpus("a", "b", "c")
    assert choose(1, {}, slots) == ("a",)
    assert choose(2, {}, slots) == ("a", "b")
    assert choose(4, {}, slots) == ()


def test_choose_measured_need_with_margin_decides_by_the_model() -> None:
    slots = gpus("a", "b", a=Place("small", room=10 * GIB), b=Place("large", room=20 * GIB))
    fits = int((10 * GIB - RESERVE) / MARGIN)
    assert choose(1, {"small": fits}, slots) == ("a",)
    assert choose(1, {"small": fits + GIB}, slots) == ("b",), "of the other model nothing was measured"
    assert choose(1, {"small": fits + GIB, "large": 30 * GIB}, slots) == ()
    assert choose(2, {"small": fits + GIB}, slots) == ()


def test_choose_share_joins_only_where_the_need_is_known_and_fits() -> None:
    joint = Place("m", share=0.5, room=8 * GIB)
    slots = gpus("b", partly=("a",), a=joint, b=Place("m", room=80 * GIB))
    assert choose(0.5, {"m": 4 * GIB}, slots) == ("a",)
    assert choose(0.5, {"m": 8 * GIB}, slots) == ("b",), "8 GiB and the margin do not fit"
    assert choose(0.5, {}, slots) == ("b",), "measured on a place of its own first"
    assert choose(0.6, {"m": GIB}, slots) == ("b",), "only half is left"
    assert choose(1, {"m": GIB}, slots) == ("b",)
    assert choose(0.5, {}, gpus(partly=("a",), a=joint)) == ()


def test_choose_share_of_a_cpu_slot_needs_no_measurement() -> None:
    slots = Slots((), 1, "CPU slot", "", ("cpu:0",), {"cpu:0": Place(share=0.5)})
    assert choose(0.5, {}, slots) == ("cpu:0",)
    assert choose(0.75, {}, slots) == ()


def test_lacking_names_numbers_and_holders() -> None:
    holders = "3.1 GiB held by pid 4412 of ada"
    slots = gpus("a", a=Place("m", room=int(7.8 * GIB), words="GPU 1", holders=holders))
    need = int((9.1 * GIB - RESERVE) / MARGIN)
    assert lacking(1, {"m": need}, slots) == f"waiting: needs 9.1 GiB, GPU 1 has 7.8 GiB free, {holders}"
    assert lacking(8, {}, slots) == "cannot start: it needs 8 GPUs, this machine has 4"
    assert lacking(2, {}, gpus("a", total=2)) == "waiting: 1 of 2 GPUs in use, it needs 2"
    assert lacking(1, {}, gpus(total=0)) == "waiting: no GPU can be used"


def run(number: int, **more: object) -> Waiting:
    return Waiting(number, 0, float(number), 0, **more)  # type: ignore[arg-type]


def test_pick_next_run_for_several_places_is_not_overtaken_for_ever() -> None:
    waiting = [run(1, wanted=2), run(2)]
    assert pick_next(waiting, gpus("a", total=2), 0) is None
    assert waiting_reasons(waiting, gpus("a", total=2))[2].endswith("free places are kept for #1")
    assert pick_next(waiting, gpus("a", "b", total=2), 0) == (waiting[0], ("a", "b"))


def test_pick_next_run_that_never_fits_or_lacks_memory_lets_others_pass() -> None:
    waiting = [run(1, wanted=9), run(2, needs={"m": 60 * GIB}), run(3, needs={"m": GIB})]
    slots = gpus("a", a=Place("m", room=40 * GIB))
    assert pick_next(waiting, slots, 0) == (waiting[2], ("a",))


def test_pick_next_blocked_and_exhausted_runs_wait_and_say_why() -> None:
    rules = Rules(budgets={"g": 20.0}, spent={"g": 20.04})
    waiting = [run(1, blocked="waiting for #9, which trains the same proxy stage"), run(2, group="g"), run(3)]
    assert pick_next(waiting, gpus("a"), 0, rules) == (waiting[2], ("a",))
    reasons = waiting_reasons(waiting, gpus(), rules)
    assert reasons[1] == "waiting for #9, which trains the same proxy stage"
    assert reasons[2].startswith("waiting: group g has spent 20.0 of 20 device hours")
    assert "mmtui queue --budget g=HOURS" in reasons[2]
    assert pick_next(waiting[1:2], gpus("a"), 0, Rules(budgets={"g": 20.0}, spent={"g": 19.9})) is not None


@pytest.mark.parametrize("need", [0, GIB, 70 * GIB])
def test_expected_is_more_than_was_measured(need: int) -> None:
    assert expected(need) >= need * MARGIN
