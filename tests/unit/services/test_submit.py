"""Queueing by a process that stays: nothing of an earlier request is in a later one, and two may come at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import inputs, labels, run_check, run_line, runs, submit
from mmtui.services.submit import Request
from tests.unit.cli.test_labels import data_set

SAME = "sky\nroad\n"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_answers", {})


def folder(root: Path, *more: str, **terms: object) -> Request:
    overrides = ("data.kind=folder", f"data.root={root}", "data.val_split=train", *more)
    return Request("shapes_mixmatch", overrides, **terms)  # type: ignore[arg-type]


def test_doubts_are_those_of_the_runs_that_are_queued(home: Home, tmp_path: Path) -> None:
    root = data_set(tmp_path, (0, 1), 2, SAME)
    doubtful = submit.enqueue(submit.plan(home, folder(root)))
    assert any("pictures" in text for text in doubtful.doubts)
    assert submit.enqueue(submit.plan(home, Request("shapes_smoke"))).doubts == ()
    assert submit.enqueue(submit.plan(home, folder(root, hold=True))).doubts == (), "nobody has looked"
    assert submit.enqueue(submit.plan(home, folder(root))).doubts == doubtful.doubts, "each is told its own"


def test_what_was_looked_at_before_takes_no_look_from_a_request(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has just tried many recipes in the form is refused what the command line refuses."""
    broken = data_set(tmp_path / "broken", (255,), 2, SAME)
    for number in range(1, labels.MOST + 1):
        submit.enqueue(submit.plan(home, folder(data_set(tmp_path / str(number), (0, 1), 1, SAME))))
    with pytest.raises(UsageError, match="void"):
        submit.enqueue(submit.plan(home, folder(broken)))
    asked: list[str] = []
    monkeypatch.setattr(labels, "_ask", lambda text: asked.append(text) or labels.Look())
    many = ",".join(str(number) for number in range(1, labels.MOST + 9))
    planned = submit.plan(home, folder(tmp_path / "1", f"data.max_train={many}"))
    assert len(submit.enqueue(planned).ids) == labels.MOST + 8
    assert len(asked) == labels.MOST, "of a sweep over more the runs will say"


def test_recipe_file_is_read_anew_for_each_request(home: Home, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    for steps in (3, 4):
        own.write_text(f"base: shapes_smoke\nsegment: {{steps: {steps}}}\n")
        (run_id,) = submit.submit(home, Request(str(own), hold=True)).ids
        assert runs.get_run(home, run_id).config["segment"]["steps"] == steps


def test_two_requests_at_one_moment_are_both_queued_whole(home: Home) -> None:
    found: dict[int, submit.Submitted] = {}
    together = threading.Barrier(4)

    def ask(number: int) -> None:
        together.wait()
        request = Request("shapes_smoke", ("seed=0..9",), name=f"n{number}", hold=True)
        found[number] = submit.submit(home, request)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    rows = {row.id: row for row in runs.list_runs(home)}
    assert len(rows) == 40 and {one for each in found.values() for one in each.ids} == set(rows)
    for number, each in found.items():
        assert {rows[one].group for one in each.ids} == {each.group} == {f"sweep-{each.ids[0]}"}
        assert all(rows[one].name.startswith(f"n{number} ") for one in each.ids)
    left = [path.name for path in (*home.runs.iterdir(), *home.code.iterdir()) if path.name.startswith(".")]
    assert left == []


def test_file_system_that_did_not_answer_is_asked_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, over, asked = 1000.0, threading.Event(), list[Path]()

    def hang(path: Path) -> bool:
        asked.append(path)
        over.wait()
        return False

    monkeypatch.setattr(inputs, "PATIENCE", 0.05)
    monkeypatch.setattr(inputs, "_silent", {})
    monkeypatch.setattr(inputs.time, "monotonic", lambda: now)
    file = str(tmp_path / "away.pth")
    with monkeypatch.context() as hanging:
        hanging.setattr(Path, "is_file", hang)
        try:
            assert inputs._stands(file, folder=False) and inputs._stands(file, folder=False)
        finally:
            over.set()
    assert len(asked) == 1
    now += inputs.SILENCE - 1
    assert inputs._stands(file, folder=False)
    now += 2
    assert not inputs._stands(file, folder=False), "it answers again: there is no such file"


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["r"], Request("r")),
        (["r", "a=1,2", "--zip"], Request("r", ("a=1,2",), zipped=True)),
        (["--from", "12@300", "a=1", "b=2"], Request("", ("a=1", "b=2"), from_run="12@300")),
        (["r", "--from", "12", "b=2"], Request("r", ("b=2",), from_run="12")),
        (["r", "--delay", "1h", "--time-limit", "90", "--budget", "90m"],
         Request("r", delay=3600.0, time_limit=90.0, budget=1.5)),
        (["r", "--delay=0s"], Request("r", delay=0.0)),
        (["r", "--after", "1", "--after", "@", "--tag", "x"], Request("r", after=("1", "@"), tags=("x",))),
        (["r", "--launcher", "slurm", "--slurm", "nodes=2"], Request("r", launcher="slurm", slurm=("nodes=2",))),
    ],
)  # fmt: skip
def test_words_become_a_request_of_numbers(words: Sequence[str], request_: Request) -> None:
    assert run_line.read(words).request() == request_


def test_plan_writes_nothing(home: Home) -> None:
    planned = submit.plan(home, Request("shapes_baseline", ("seed=0..2", "model.weights=/no.pth"), smoke=True))
    assert [one.seed for one in planned.resolved] == [0, 1, 2] and planned.begun == ()
    assert len(planned.lacking) == 1 and "/no.pth is no file" in planned.lacking[0]
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("options", "seeds"),
    [("seed=0..2", {0, 1, 2}), ("--tag --smoke seed=0,1", {0, 1}), ("--seed", {0}), ("--seed=4 -- priority=1", set())],
)
def test_check_reads_options_as_queueing_does(home: Home, options: str, seeds: set[int]) -> None:
    """An override among them is one; a word behind an option is its value; what is half typed is not there yet."""
    checked = run_check.check_run(home, "shapes_mixmatch", [], options.split())
    assert checked.good == bool(seeds), checked.verdict
    assert {one.seed for one in (checked.sample.recipes if checked.sample else ())} == seeds
    assert not seeds or "match 200 steps" in checked.verdict
