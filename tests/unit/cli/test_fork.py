"""Runs queued from another run's checkpoint, on a parent that the engine has really trained."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from engine.config import load_recipe
from mmtui.paths import Home
from mmtui.services import reports, runs, seeds
from tests.family import trained_parent
from tests.unit.engine_run.conftest import Runner, tiny_recipe

Invoke = Callable[..., Any]
LEAD = "proxy is taken over, match is taken over, "


@pytest.fixture(scope="module")
def parent_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Run 1 ended: proxy at step 3, match at 7, segment at 13; every second checkpoint is kept."""
    return trained_parent(tmp_path_factory.mktemp("parent") / "mmtui")


@pytest.fixture
def family(home: Home, parent_once: Home) -> Home:
    shutil.copytree(parent_once.root, home.root)
    return home


def origin_file(home: Home, run_id: str) -> Any:
    return json.loads((home.run(run_id).checkpoints / "origin.json").read_text())


def test_run_from_queues_a_child_with_the_parents_recipe_and_the_checkpoint_in_its_folder(
    family: Home, mmtui_: Invoke
) -> None:
    found = mmtui_("run", "--from", "1@10", "segment.optim.lr=0.25", "seed=4", "--hold")
    assert (found.code, found.out) == (0, "2\n"), found.err
    assert "(tiny, forked from run 1 at step 9 (segment 2)) is held" in found.err
    recipe, before = (load_recipe(family.run(run_id).recipe) for run_id in ("2", "1"))
    assert recipe.segment is not None and recipe.segment.optim.lr == 0.25 and recipe.seed == 4
    assert recipe.proxy == before.proxy and recipe.model == before.model
    detail = runs.get_run(family, "2")
    assert detail.overrides == ("runtime.keep_every=2", "segment.optim.lr=0.25", "seed=4")
    assert [(stage.name, stage.status, stage.step) for stage in detail.stages] == [
        ("proxy", "finished", 3),
        ("match", "finished", 4),
        ("segment", "pending", 2),
        ("evaluate", "pending", 0),
    ]
    assert detail.row.progress == pytest.approx(9 / 14)
    here, there = (family.run(run_id).checkpoints / "segment/step_00000002" for run_id in ("2", "1"))
    assert (here / "optim.pt").samefile(there / "optim.pt"), "linked, not copied"
    assert origin_file(family, "2")["forked_from"] == {"run": "1", "stage": "segment", "step": 2, "global_step": 9}
    connection = sqlite3.connect(family.database)
    rows = connection.execute("SELECT parent, parent_step, shared_stages FROM runs ORDER BY id").fetchall()
    assert rows[0][:2] == (None, None) and rows[0][2] != "{}" and rows[1] == (1, 9, "{}")


def test_run_from_child_outlives_its_parent(family: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "--from", "1@9", "--hold", "-q").out == "2\n"
    whole = Runner(family.run("1").root).weights("segment")
    assert mmtui_("rm", "1").code == 0 and mmtui_("purge", "--yes").code == 0
    assert not family.run("1").root.exists()
    child = Runner(family.run("2").root)
    assert child.train(tiny_recipe(runtime__keep_every=2, seed=1)) == "succeeded"
    assert child.weights("segment") == whole
    told = mmtui_("show", "2").out
    assert "parent   run 1 at step 9 (segment 2)  (not here any more)" in told
    assert mmtui_("show", "2", "--json").json()["parent"]["here"] is False


def test_run_from_without_step_takes_the_newest_and_a_selector_names_the_run(family: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "--from", "@", "segment.steps=8", "--hold", "-q").out == "2\n"
    assert origin_file(family, "2")["begun"] == ["segment", 6]
    assert mmtui_("run", "--from", "@~1@5", "--hold", "-q").out == "3\n"
    assert origin_file(family, "3")["forked_from"]["global_step"] == 5


def test_run_from_with_a_recipe_of_its_own(family: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", str(family.run("1").recipe), "--from", "1@5", "--hold", "-q")
    assert (found.code, found.out) == (0, "2\n")
    assert runs.get_run(family, "2").overrides == ()
    found = mmtui_("run", "shapes_smoke", "--from", "1")
    assert found.code == 2 and "model." in found.err and "in run 1" in found.err


def test_run_from_dry_run_says_what_is_taken_and_what_is_trained(family: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "--from", "1@10", "segment.optim.lr=0.5", "--dry-run")
    assert found.code == 0 and yaml.safe_load(found.out)["segment"]["optim"]["lr"] == 0.5
    told = "from run 1 at step 9 (segment 2): " + LEAD + "segment goes on at step 2 of 6, evaluate is done anew"
    assert found.err.strip() == told
    found = mmtui_("run", "--from", "1@100", "match.margin=1,2", "--dry-run")
    assert "match goes on at step 2 of 4, segment is trained anew, 6 steps" in found.err
    assert "(no later checkpoint: match.margin is 1.0 here and 2.1 in run 1, which had finished match" in found.err
    assert [row.id for row in runs.list_runs(family)] == ["1"]


def test_run_from_sweep_forks_each_member(family: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "--from", "1@9", "segment.optim.lr=0.1,0.2", "seed=0..1", "--hold", "-q")
    assert found.out.split() == ["2", "3", "4", "5"]
    children = runs.get_run(family, "1").children
    assert [(child.run, child.global_step) for child in children] == [(str(n), 9) for n in range(2, 6)]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--from", "7"), 4, "no run 7"),
        (("--from", "1@1"), 5, "at or before step 1: the first ones are proxy 2 (step 2)"),
        (("--from", "1@9", "model.width=0.5"), 2, "model.width is 0.5 here and 0.25 in run 1"),
        (("--from", "1@9", "proxy=null"), 2, "proxy.kind is null here"),
        (("--from", "1@x"), 2, "the step is no number"),
        (("--from", "1@9", "segment.stepz=1"), 2, "segment.steps"),
        (("segment.steps=3",), 2, "no recipe"),
    ],
)
def test_run_from_refusals_say_why_and_queue_nothing(
    family: Home, mmtui_: Invoke, words: tuple[str, ...], code: int, told: str
) -> None:
    for more in ((), ("--dry-run",)):
        found = mmtui_("run", *words, *more)
        assert (found.code, found.out) == (code, ""), found.err
        assert told in found.err and "Traceback" not in found.err
    assert [row.id for row in runs.list_runs(family)] == ["1"]
    assert [entry.name for entry in family.runs.iterdir()] == ["1"]


def test_run_from_a_parent_whose_folder_is_gone_exits_5(family: Home, mmtui_: Invoke) -> None:
    shutil.rmtree(family.run("1").root)
    found = mmtui_("run", "--from", "1")
    assert found.code == 5 and "run 1 cannot be forked: its folder is gone" in found.err


def test_run_from_a_parent_without_checkpoints_exits_5(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "--from", "3")
    assert found.code == 5 and "run 3 has no checkpoint to go on from yet" in found.err


def test_show_tells_parent_and_children(family: Home, mmtui_: Invoke) -> None:
    mmtui_("run", "--from", "1@9", "--hold", "-q")
    mmtui_("run", "--from", "1@5", "match.margin=1.0", "--hold", "-q")
    assert "children 2 at step 9 (segment 2)  3 at step 5 (match 2)" in mmtui_("show", "1").out
    body = mmtui_("show", "1", "--json").json()
    assert body["parent"] is None
    assert body["children"][0] == {"run": "2", "stage": "segment", "step": 2, "global_step": 9}
    body = mmtui_("show", "3", "--json").json()
    assert (body["parent"]["run"], body["parent"]["global_step"], body["parent"]["here"]) == ("1", 5, True)
    assert body["children"] == []
    assert "parent   run 1 at step 5 (match 2)" in mmtui_("show", "3").out


def test_family_is_a_tree_of_forebears_and_descendants(family: Home, mmtui_: Invoke) -> None:
    for words in (("1@9",), ("1@5",), ("2@7",), ("4@5",)):
        assert mmtui_("run", "--from", *words, "--hold", "-q").code == 0
    # 1 -> 2 -> 4 -> 5 and 1 -> 3
    tree = {run: [(one.row.id, one.depth) for one in runs.family(family, run)] for run in "12345"}
    assert tree["1"] == [("1", 0), ("2", 1), ("4", 2), ("5", 3), ("3", 1)]
    assert tree["4"] == [("1", 0), ("2", 1), ("4", 2), ("5", 3)]
    assert tree["3"] == [("1", 0), ("3", 1)]
    assert len(runs.family(family, "1", 2)) == 2
    assert [one["run"] for one in origin_file(family, "5")["lineage"]] == ["1", "2", "4"]


def test_edit_of_a_fork_that_waits_keeps_its_checkpoint(family: Home, mmtui_: Invoke) -> None:
    mmtui_("run", "--from", "1@9", "--hold", "-q")
    found = mmtui_("edit", "2", "match.margin=1.0")
    assert found.code == 2 and "match.margin is 1.0 here" in found.err
    assert mmtui_("edit", "2", "segment.optim.lr=0.75", "segment.steps=9").code == 0
    detail = runs.get_run(family, "2")
    assert detail.parent is not None and detail.parent.global_step == 9
    assert [(stage.name, stage.step, stage.total_steps) for stage in detail.stages][2] == ("segment", 2, 9)
    child = Runner(family.run("2").root)
    assert child.train(load_recipe(family.run("2").recipe)) == "succeeded"
    rates = [e["values"]["lr"] for e in child.kind("metrics", "segment") if "lr" in e["values"]]
    assert rates[0] == 0.75 and len(rates) == 7


def test_rebuilt_rows_keep_the_lineage(family: Home, mmtui_: Invoke) -> None:
    mmtui_("run", "--from", "1@9", "--hold", "-q")
    family.database.unlink()
    for suffix in ("-wal", "-shm"):
        family.database.with_name(f"mmtui.db{suffix}").unlink(missing_ok=True)
    assert mmtui_("doctor", "--rebuild").code == 0
    parent = runs.get_run(family, "2").parent
    assert parent is not None and (parent.run, parent.global_step, parent.here) == ("1", 9, True)


def test_capsule_keeps_the_lineage_but_ties_it_to_no_run_of_another_machine(
    family: Home, mmtui_: Invoke, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmtui_("run", "--from", "1@9", "--hold", "-q")
    mmtui_("cancel", "2")
    file = tmp_path / "two.capsule"
    assert mmtui_("export", "2", "--to", "capsule", "-o", str(file)).code == 0
    assert mmtui_("import", str(file)).out == "3\n"
    parent = runs.get_run(family, "3").parent
    assert parent is not None and (parent.run, parent.global_step, parent.here) == ("1", 9, False)
    assert [child.run for child in runs.get_run(family, "1").children] == ["2"]


def test_forks_are_folded_with_their_like_alone_and_are_no_row_of_the_paper(family: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "--from", "1@9", "seed=0..1", "--hold", "-q").code == 0
    assert mmtui_("run", "--from", "1@5", "--hold", "-q").code == 0
    keys = seeds.keys_of(family, ["1", "2", "3", "4"])
    assert keys["2"] == keys["3"] and len(set(keys.values())) == 3
    assert seeds.changed_in(list(keys.values()))[keys["4"]] == ('from="1@5"',)
    connection = sqlite3.connect(family.database)
    connection.execute("UPDATE runs SET recipe = 'voc_alexnet_random_mixmatch', state = 'succeeded', miou = id")
    connection.commit()
    connection.close()
    (row, _) = [row for row in reports.paper(family) if row.recipe == "voc_alexnet_random_mixmatch"]
    assert (row.measured, row.runs) == (1.0, 1)
    folds = {fold.ids: fold for fold in seeds.fold(family, ["1", "2", "3"])}
    assert folds["2", "3"].overrides == ("runtime.keep_every=2", "--from", "1@9")
