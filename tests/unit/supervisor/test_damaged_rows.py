"""Rows and files of one run that are damaged, or very long: no other run waits for it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.supervisor.attempts import TURN_LINES
from mmtui.supervisor.loop import Supervisor
from tests.waiting import until

if TYPE_CHECKING:
    Workshop = Any

pytestmark = pytest.mark.e2e


def test_run_that_tells_very_much_gets_a_turn_as_long_as_others(workshop: Workshop) -> None:
    """Megabytes of short lines took seconds in one look, in which no other run was looked after."""
    talker, other = workshop.add(waits=True), workshop.add(waits=True)
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(talker, "running")
    workshop.until_state(other, "running")
    workshop.kill()
    supervisor = Supervisor(workshop.home)
    until(lambda: supervisor.tick() and supervisor.took_over, seen=workshop.seen)
    event = {"v": 1, "t": 1.76e9, "kind": "metrics", "stage": "segment", "values": {"loss": 0.5}}
    for run_id, count in ((talker, 3 * TURN_LINES), (other, 10)):
        with workshop.home.run(run_id).events(1).open("a") as file:
            for n in range(count):
                file.write(f"{json.dumps({**event, 'seq': 10**6 + n, 'step': 10**6 + n, 'global_step': 10**6 + n})}\n")

    def stored(run_id: str) -> int:
        return int(workshop.sql("SELECT count(*) FROM metrics WHERE run_id = ? AND step >= 1000000", run_id)[0][0])

    seen = []
    while stored(talker) < 3 * TURN_LINES:
        supervisor.tick()
        seen.append((stored(talker), stored(other)))
    assert seen[0][1] == 10 and 0 < seen[0][0] <= TURN_LINES, seen
    assert all(later[0] - before[0] <= TURN_LINES for before, later in pairwise(seen)), seen
    for run_id in (talker, other):
        workshop.let_end(run_id)
    until(lambda: workshop.row(talker).state == "succeeded", seen=workshop.seen, meanwhile=supervisor.tick)
    supervisor.database.close()
    supervisor.reader.close()


@pytest.mark.parametrize("column", ["code", "after", "config", "gpus", "shared_stages", "tags", "name"])
def test_damaged_row_in_the_queue_holds_up_no_other_run(workshop: Workshop, column: str) -> None:
    bad, good = workshop.add(), workshop.add()
    workshop.sql_write(f"UPDATE runs SET {column} = '{{bad' WHERE id = {bad}")
    workshop.start()
    workshop.until_state(good, "succeeded")
    workshop.until_state(bad, "succeeded", "failed")


@pytest.mark.parametrize("column", ["wanted", "position", "priority", "not_before"])
def test_queued_row_that_cannot_be_compared_is_held_and_the_others_run(workshop: Workshop, column: str) -> None:
    bad, good = workshop.add(), workshop.add()
    workshop.sql_write(f"UPDATE runs SET {column} = '{{bad' WHERE id = {bad}")
    workshop.start()
    workshop.until_state(good, "succeeded")
    assert f"damaged {column}" in workshop.until_state(bad, "held").reason


def test_places_of_a_run_that_trains_stay_its_own_when_nobody_can_read_which(workshop: Workshop) -> None:
    bad = workshop.add(waits=True)
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(bad, "running")
    workshop.sql_write(f"UPDATE runs SET gpus = '{{bad' WHERE id = {bad}")
    good = workshop.add()
    told = f"which places run #{bad} holds cannot be read: see mmtui doctor"
    workshop.until(lambda: told in workshop.row(good).reason, "why it waits")
    assert workshop.row(good).state == "queued"
    workshop.let_end(bad)
    workshop.until_state(good, "succeeded")


@pytest.mark.parametrize(("kind", "word"), [("limit", "N"), ("budget", "HOURS")])
@pytest.mark.parametrize("cell", ["many", "nan", "-1", "0", "1e400"])
def test_group_whose_limit_cannot_be_read_waits_and_says_how_to_set_it(
    workshop: Workshop, kind: str, word: str, cell: str
) -> None:
    bad, good = workshop.add(terms={"group": "g"}), workshop.add()
    workshop.sql_write(f"INSERT INTO settings VALUES ('{kind}:g', '{cell}')")
    workshop.start()
    workshop.until_state(good, "succeeded")
    told = f"waiting: the {kind} of group g cannot be read; set it again: mmtui queue --{kind} g={word}"
    workshop.until(lambda: workshop.row(bad).reason == told, "the reason")
    workshop.sql_write(f"UPDATE settings SET value = '1.0' WHERE key = '{kind}:g'")
    workshop.until_state(bad, "succeeded")


@pytest.mark.parametrize(
    "column", ["wanted", "position", "priority", "not_before", "shared_stages", "time_limit", "work"]
)
def test_damaged_row_of_a_run_that_trains_holds_up_no_other_run(workshop: Workshop, column: str) -> None:
    bad = workshop.add(waits=True)
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(bad, "running")
    workshop.sql_write(f"UPDATE runs SET {column} = '{{bad' WHERE id = {bad}")
    good = workshop.add()
    workshop.until_state(good, "succeeded")
    workshop.let_end(bad)
    workshop.until_state(bad, "succeeded")
