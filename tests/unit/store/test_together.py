"""What is done to many runs at once: others can write meanwhile, and of what was killed on the way nothing is seen."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.config import dump_recipe, load_recipe, strict_yaml
from mmtui.domain.states import RunState
from mmtui.errors import NotFoundError, RefusedError
from mmtui.paths import Home
from mmtui.services import doctor, keeping, queue, runs, trash
from mmtui.services.queue_state import Queue
from mmtui.store import batches
from mmtui.store.reader import Reader

ROOT = Path(__file__).resolve().parents[3]
MEMBERS = [[f"seed={seed}"] for seed in range(6)]
HELD = queue.Terms(hold=True)


@pytest.fixture(autouse=True)
def one_in_each_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HELD_SECONDS", 0.0)


def write_now(home: Home) -> None:
    """Write to the database without waiting for anybody."""
    with closing(sqlite3.connect(home.database, timeout=0.0)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO settings (key, value) VALUES ('other', 'writes')")


def writing_between(home: Home, done: Iterable[object]) -> int:
    count = 0
    for _ in done:
        write_now(home)
        count += 1
    return count


def queued(home: Home) -> list[str]:
    return queue.enqueue_all(home, "shapes_smoke", MEMBERS, HELD)


def test_others_can_write_while_a_sweep_is_queued(home: Home) -> None:
    told = list[tuple[int, int]]()

    def tell(done: int, total: int) -> None:
        write_now(home)
        told.append((done, total))

    ids = queue.enqueue_all(home, "shapes_smoke", MEMBERS, HELD, tell=tell)
    assert len(told) >= 2 * len(ids) and told == sorted(told) and {total for _, total in told} == {len(ids)}


@pytest.mark.parametrize(
    "deed",
    [
        lambda home, ids: queue.wish_all(home, ids, "cancel"),
        lambda home, ids: queue.set_priorities(home, ids, 3),
        lambda home, ids: keeping.change_tags_of_all(home, ids, ["a"], []),
        lambda home, ids: trash.remove_all(home, ids),
    ],
    ids=["cancel", "priority", "tag", "rm"],
)
def test_others_can_write_while_something_is_done_to_many_runs(
    home: Home, deed: Callable[[Home, list[str]], Iterator[object]]
) -> None:
    ids = queued(home)
    assert writing_between(home, deed(home, ids)) == len(ids)


def test_others_can_write_while_the_trash_is_emptied_and_runs_come_back(home: Home) -> None:
    ids = queued(home)
    list(trash.remove_all(home, ids))
    assert writing_between(home, trash.restore_all(home, ids[:2])) == 2
    told = list[tuple[int, int]]()

    def tell(done: int, total: int) -> None:
        write_now(home)
        told.append((done, total))

    trash.purge(home, really=True, tell=tell)
    assert told == [(done, 4) for done in range(1, 5)]
    with Reader(home) as reader:
        assert [str(number) for number in reader.ids()] == ids[:2]


def test_members_are_seen_all_in_one_moment(home: Home) -> None:
    queue.enqueue(home, "shapes_smoke")
    seen = set[tuple[int, int]]()

    def tell(_done: int, _total: int) -> None:
        with Reader(home) as reader:
            line = Queue(home, reader).waiting()
            seen.add((len(runs.list_runs(home)), len(line)))

    ids = queue.enqueue_all(home, "shapes_smoke", MEMBERS, queue.Terms(group="g"), tell=tell)
    assert seen == {(1, 1)}
    with Reader(home) as reader:
        assert len(Queue(home, reader).waiting()) == 7
    assert runs.queue_order(home) == ["1", *ids]


def kill_while_queueing(home: Home, after: int) -> None:
    """A process that queues the members is killed when it has told of its progress so often."""
    program = (
        "import os, sys\n"
        "from mmtui.paths import Home\n"
        "from mmtui.services import queue\n"
        "from mmtui.store import batches\n"
        "from pathlib import Path\n"
        "batches.HELD_SECONDS = 0.0\n"
        "told = []\n"
        "def tell(*_):\n"
        "    told.append(1)\n"
        f"    if len(told) > {after}: os._exit(9)\n"
        f"queue.enqueue_all(Home(Path({str(home.root)!r})), 'shapes_smoke', {MEMBERS!r}, queue.Terms(), tell=tell)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 9


@pytest.mark.parametrize("after", [2, 8], ids=["rows", "folders"])
def test_of_a_sweep_that_was_killed_nothing_is_seen_and_the_next_one_clears_it_away(home: Home, after: int) -> None:
    queue.enqueue(home, "shapes_smoke", hold=True)
    kill_while_queueing(home, after)
    assert [row.id for row in runs.list_runs(home)] == ["1"]
    assert all(check.ok is not False for check in doctor.checks(home) if check.name in ("database", "files", "rows"))
    with pytest.raises(RefusedError, match="its queueing has not finished") as refused:
        trash.restore(home, "2")
    assert refused.value.hint.startswith("queue it again")
    ids = queued(home)
    with Reader(home) as reader:
        rows = {str(row[0]) for row in reader.query("SELECT id FROM runs")}
    assert rows == {"1", *ids}
    assert {path.name for path in home.runs.iterdir() if path.name[0] != "."} == {"1", *ids}


def test_of_a_sweep_that_fails_at_last_nothing_is_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.enqueue(home, "shapes_smoke", hold=True)

    def purged(*_: object) -> None:
        raise RefusedError("the frozen code was deleted")

    monkeypatch.setattr("mmtui.services.code.refuse_purged", purged)
    with pytest.raises(RefusedError):
        queued(home)
    with Reader(home) as reader:
        assert [row[0] for row in reader.query("SELECT id FROM runs")] == [1]
    assert [path.name for path in home.runs.iterdir()] == ["1"]


def test_a_delayed_member_still_says_what_it_waits_for(home: Home) -> None:
    ids = queue.enqueue_all(home, "shapes_smoke", MEMBERS[:2], queue.Terms(not_before=4e9))
    assert all(runs.get_run(home, run_id).row.reason.startswith("waits until 2096-") for run_id in ids)


def test_one_that_is_refused_takes_nothing_from_the_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "HELD_SECONDS", 60.0)  # all in one transaction
    ids = queued(home)
    queue.cancel(home, ids[1])
    answers = list(queue.wish_all(home, [*ids[:3], "77"], "hold"))
    assert [answer.run_id for answer in answers] == [*ids[:3], "77"]
    assert isinstance(answers[1].found, RefusedError) and isinstance(answers[3].found, NotFoundError)
    answers = list(queue.wish_all(home, ids[:3], "release"))
    assert [answer.found for answer in answers if not isinstance(answer.found, Exception)] == [RunState.QUEUED] * 2
    assert [runs.get_run(home, run_id).row.state for run_id in ids[:3]] == ["queued", "cancelled", "queued"]


def test_nothing_is_removed_if_one_has_not_finished(home: Home) -> None:
    ids = queued(home)
    queue.release(home, ids[-1])
    with pytest.raises(RefusedError, match=f"run {ids[-1]} is queued"):
        list(trash.remove_all(home, ids))
    assert len(runs.list_runs(home)) == len(ids)


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipe_is_written_section_by_section_as_in_one_go(file: Path) -> None:
    recipe = load_recipe(file, [], [ROOT / "recipes", ROOT / "recipes" / "studies"])
    assert dump_recipe(recipe) == strict_yaml.dump(json.loads(recipe.model_dump_json()))


def test_a_run_that_is_brought_back_while_the_trash_is_emptied_stays(home: Home) -> None:
    ids = queued(home)
    list(trash.remove_all(home, ids))

    def tell(done: int, _total: int) -> None:
        if done == 1:
            trash.restore(home, ids[-1])

    trash.purge(home, really=True, tell=tell)
    assert [row.id for row in runs.list_runs(home)] == [ids[-1]]
    assert home.run(ids[-1]).recipe.is_file()


def test_who_queues_while_a_sweep_is_queued_stands_before_all_of_it(home: Home) -> None:
    others = list[str]()

    def tell(_done: int, _total: int) -> None:
        if len(others) < 2:
            others.append(queue.enqueue(home, "shapes_smoke", hold=True))

    ids = queue.enqueue_all(home, "shapes_smoke", MEMBERS, HELD, tell=tell)
    assert runs.queue_order(home) == [*others, *ids]


def test_doctor_names_what_never_became_whole_and_purge_leaves_nothing_of_it(home: Home) -> None:
    queue.enqueue(home, "shapes_smoke", hold=True)
    kill_while_queueing(home, 9)
    (leftovers,) = (check for check in doctor.checks(home) if check.name == "leftovers")
    assert "6 runs never became whole: 2, 3, 4, 5, 6, 7" in leftovers.text and "mmtui purge --yes" in leftovers.text
    assert list(home.runs.glob(".draft-*"))
    trash.purge(home, really=True)
    assert [path.name for path in home.runs.iterdir()] == ["1"]
    (leftovers,) = (check for check in doctor.checks(home) if check.name == "leftovers")
    assert leftovers.ok, leftovers.text
