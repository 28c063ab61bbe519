"""The best checkpoint on the command line, of a run that the engine has really trained: told, found, forked from."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config.best import best_folder
from mmtui.paths import Home
from mmtui.services import moments, run_report, runs
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import add_attempt
from mmtui.tui.pages import facts
from tests.family import trained_parent

Invoke = Callable[..., Any]
ALONE = ("proxy=null", "match=null", "segment.steps=40", "segment.eval_every=2", "segment.optim.lr=0.2", "seed=1")
BEST = (*ALONE, "segment.keep_best=loss", "segment.patience=2", "segment.ema=0.1")


@pytest.fixture(scope="module")
def best_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Run 1 stopped early, and keeps the best of its checkpoints."""
    home = trained_parent(tmp_path_factory.mktemp("best") / "mmtui", BEST)
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded', ended_at = 2, started_at = 1")
    connection.commit()
    connection.close()
    return home


@pytest.fixture
def best_home(home: Home, best_once: Home) -> Home:
    shutil.copytree(best_once.root, home.root)
    return home


def meta(home: Home, run_id: str = "1") -> Any:
    return json.loads((home.run(run_id).checkpoints / "segment/final/meta.json").read_text())


def test_show_tells_best_step_and_value_beside_the_final_score(best_home: Home, mmtui_: Invoke) -> None:
    told, last = meta(best_home)["best"], meta(best_home)["stopped_early"]
    assert last == told["step"] + 4 < 40
    out = mmtui_("show", "1").out
    value = f"{told['value']:.4g}"
    best = f"best     validation loss {value} at step {told['step']} of segment, of the moving average; its checkpoint"
    assert f"{best} is 1@best\n" in out
    why = f"no better validation loss since step {told['step']} (2 evaluations in a row, segment.patience)"
    assert f"  segment  finished {last}/40  stopped early: {why}\n" in out
    body = mmtui_("show", "1", "--json").json()
    assert body["best"] == {"metric": "loss", "value": told["value"], "stage": "segment", "step": told["step"],
                            "weights": "ema"}  # fmt: skip
    segment, evaluated = body["stages"]
    assert (segment["step"], segment["total_steps"], segment["stopped_early"]) == (last, 40, why)
    assert evaluated["stopped_early"] == "" and body["state"] == "succeeded"


def test_columns_filters_and_best_know_it_and_best_says_what_it_goes_by(best_home: Home, mmtui_: Invoke) -> None:
    told = meta(best_home)["best"]
    (row,) = mmtui_("ls", "-c", "best,best_step,min val_loss", "--json").json()["runs"]
    assert row["columns"] == {"best": told["value"], "best_step": told["step"], "min val_loss": told["value"]}
    assert len(mmtui_("ls", "-F", f"best_step = {told['step']}", "--json").json()["runs"]) == 1
    assert mmtui_("ls", "-F", "best > 1000", "--json").json()["runs"] == []
    found = mmtui_("best", "--min", "best")
    assert found.out == "1\n" and "of the checkpoint that segment.keep_best has kept" in found.err
    found = mmtui_("best", "--max", "miou")
    assert found.out == "1\n" and "of the last evaluation; by the highest on the way: --max 'max miou'" in found.err
    assert "last evaluation" not in mmtui_("best", "--max", "max miou").err


def test_report_and_screen_tell_it(best_home: Home) -> None:
    found = runs.get_run(best_home, "1")
    assert found.best is not None
    (rows,) = [table.rows for table in run_report.collect(best_home, ["1"]).tables if table.title == "Runs"]
    assert ("best", found.best.words()) in rows
    page = "\n".join("".join(text for text, _ in line) for line in facts.history(best_home, "1", 120, True))
    assert found.best.words() in page and "stopped early" in page
    segment = found.stages[0]
    then = moments.stages_at(found.stages, 41, None)
    assert then[0][1:] == ("finished", segment.step)


def test_fork_from_best_begins_there(best_home: Home, mmtui_: Invoke) -> None:
    step = meta(best_home)["best"]["step"]
    found = mmtui_("run", "--from", "1@best", "segment.optim.lr=0.01", "--hold")
    assert found.out == "2\n" and f"forked from run 1 at step {step} (segment {step})" in found.err
    here = best_home.run("2").checkpoints / "segment" / f"step_{step:08d}"
    assert (here / "optim.pt").samefile(best_folder(best_home.run("1").root) / "optim.pt")
    assert mmtui_("edit", "2", "segment.optim.lr=0.02").code == 0
    assert mmtui_("run", "--from", "@~1@best", "--hold", "-q").out == "3\n"
    dry = mmtui_("run", "--from", "1@best", "segment.patience=0", "--dry-run")
    assert f"segment goes on at step {step} of 40" in dry.err
    refused = mmtui_("run", "--from", "1@best", "segment.ema=0", "--hold")
    assert refused.code == 2 and "its best checkpoint does not fit" in refused.err


def test_fork_that_takes_the_stage_over_counts_it_as_done(best_home: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "--from", "1", "evaluate.checkpoint=best", "--hold", "-q").out == "2\n"
    assert [(s.name, s.status) for s in runs.get_run(best_home, "2").stages] == [
        ("segment", "finished"),
        ("evaluate", "pending"),
    ]
    assert best_folder(best_home.run("2").root).name == "best"


def test_run_that_keeps_none_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mmtui_: Invoke
) -> None:
    home = trained_parent(tmp_path / "plain", ALONE)
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    refused = mmtui_("run", "--from", "1@best", "--hold")
    assert refused.code == 5
    assert refused.err == "error: run 1 keeps no best checkpoint: segment.keep_best=miou makes a run keep one\n"
    slip = mmtui_("run", "--from", "1@bset", "--hold")
    assert slip.code == 2 and "RUN@best" in slip.err
    assert mmtui_("show", "1").out.count("@best") == 0 and mmtui_("show", "1", "--json").json()["best"] is None


def test_shells_offer_it_behind_a_run_that_keeps_one(
    best_home: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MMTUI_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    for typed, offered in (
        ("1@", "1@best"),
        ("1@be", "1@best"),
        ("1@x", ""),
        ("2@", ""),
        ("@@", ""),
        ("9" * 40 + "@", ""),
    ):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"mmtui run --from {typed}")
        assert mmtui_().out.partition("\t")[0].strip() == offered, typed


def test_best_goes_through_trash_capsule_and_a_database_that_is_made_again(
    best_home: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (best_folder(best_home.run("1").root) / "optim.pt").read_bytes()
    told = mmtui_("show", "1", "--json").json()["best"]
    assert mmtui_("rm", "1").code == 0 and mmtui_("restore", "1").code == 0
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(tmp_path / "one.tar")).code == 0
    best_home.database.unlink()
    for side in ("-wal", "-shm"):
        best_home.database.with_name(best_home.database.name + side).unlink(missing_ok=True)
    mmtui_("doctor", "--fix")
    assert mmtui_("show", "1", "--json").json()["best"] == told
    monkeypatch.setenv("MMTUI_HOME", str(tmp_path / "elsewhere"))
    assert mmtui_("import", str(tmp_path / "one.tar"), "-q").out == "1\n"
    elsewhere = Home(tmp_path / "elsewhere")
    assert (best_folder(elsewhere.run("1").root) / "optim.pt").read_bytes() == kept
    assert mmtui_("show", "1", "--json").json()["best"] == told
    assert mmtui_("run", "--from", "1@best", "segment.patience=0", "--hold", "-q").code == 0


def test_best_that_a_later_attempt_did_again_does_not_count(best_home: Home, mmtui_: Invoke) -> None:
    """The second attempt went on from step 2, and told of another best at 4 and of no early stop."""
    before = runs.get_run(best_home, "1").best
    assert before is not None and before.step > 2
    file = best_home.run("1").events(2)
    file.parent.mkdir(parents=True)
    head = {"v": 1, "t": 3.0, "stage": "segment"}
    start = {"resumed_stage": "segment", "resumed_step": 2, "resumed_global_step": 2, "attempt": 2}
    start |= {"stages": [["segment", 40], ["evaluate", 1]]}
    lines = [
        {**head, "seq": 901, "kind": "run_started", "step": 2, "global_step": 2, "values": start},
        {**head, "seq": 902, "kind": "best", "step": 2, "global_step": 2,
         "values": {"metric": "loss", "step": 2, "value": 9.5}},
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    database = Database(best_home)
    with database.write() as session:
        add_attempt(session, 1, 2, began=3.0, ended=4.0, host="here")
    ingest_file(database, file, 1, 2, 0)
    database.close()
    found = runs.get_run(best_home, "1")
    assert found.best is not None and (found.best.step, found.best.value) == (2, 9.5)
    assert found.stages[0].stopped_early == ""
    (row,) = mmtui_("ls", "-c", "best", "--json").json()["runs"]
    assert row["columns"] == {"best": 9.5}


def test_damaged_words_of_a_best_hide_nothing(best_home: Home, mmtui_: Invoke) -> None:
    connection = sqlite3.connect(best_home.database)
    for body in ("{", '{"value": "x", "metric": 3}', "[]"):
        connection.execute("""UPDATE events SET "values" = ? WHERE kind IN ('best', 'early_stop')""", [body])
        connection.commit()
        assert mmtui_("show", "1").code == 0 and mmtui_("show", "1", "--json").code == 0
        assert mmtui_("ls", "-c", "best,best_step").code == 0
    connection.close()
