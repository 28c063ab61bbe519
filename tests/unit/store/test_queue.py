"""Queuing: files before rows, frozen code, ids that are never given twice."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from engine.config import load_recipe
from mmtui.errors import MmtuiError, NotFoundError, RefusedError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import code, queue, run_folders, runs
from mmtui.store.db import backup


def test_enqueue_writes_row_recipe_and_manifest(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", ["segment.steps=7"], name="mine", tags=["a", "b"], seed=5, group="g")
    detail = runs.get_run(home, run_id)
    row = detail.row
    assert (row.state, row.name, row.tags, row.seed, row.group) == ("queued", "mine", ("a", "b"), 5, "g")
    assert [(stage.name, stage.total_steps) for stage in detail.stages][-2:] == [("segment", 7), ("evaluate", 1)]
    recipe = load_recipe(home.run(run_id).recipe)
    assert recipe.model_dump(mode="json") == detail.config
    assert (recipe.seed, recipe.segment and recipe.segment.steps) == (5, 7)
    manifest = json.loads(home.run(run_id).manifest.read_text())
    assert (manifest["id"], manifest["code"]) == (run_id, detail.code)
    assert code.own_folder(home, detail.code) == home.code / detail.code["digest"]
    assert home.run(run_id).recipe.stat().st_mode & 0o777 == 0o600


def test_enqueue_wrong_override_queues_nothing(home: Home) -> None:
    with pytest.raises(UsageError, match=r"segment\.stepz"):
        queue.enqueue(home, "shapes_smoke", ["segment.stepz=7"])
    assert runs.list_runs(home) == []


def test_enqueue_files_cannot_be_written_leaves_no_row(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folders, "_sync_one", full)
    with pytest.raises(UnreachableError, match="No space"):
        queue.enqueue(home, "shapes_smoke")
    assert runs.list_runs(home) == [] and not list(home.runs.iterdir())
    monkeypatch.undo()
    run_id = queue.enqueue(home, "shapes_smoke")
    assert home.run(run_id).manifest.is_file()


def test_enqueue_after_an_older_database_was_put_back_gives_no_id_that_has_a_folder(home: Home) -> None:
    queue.enqueue(home, "shapes_smoke")
    older = backup(home.database, home.root / "older")
    for _ in range(2):
        queue.enqueue(home, "shapes_smoke")
    (home.run("3").checkpoints / "segment" / "final").mkdir(parents=True)
    for file in home.root.glob("mmtui.db*"):
        file.unlink()
    older.rename(home.database)
    run_id = queue.enqueue(home, "shapes_smoke")
    assert run_id == "4"
    assert not home.run(run_id).checkpoints.exists()
    assert queue.enqueue(home, "shapes_smoke") == "5"


def test_ids_are_not_given_again_after_the_newest_run_is_gone(home: Home) -> None:
    queue.enqueue(home, "shapes_smoke")
    newest = queue.enqueue(home, "shapes_smoke")
    connection = sqlite3.connect(home.database)
    for table in ("stages", "transitions"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [newest])
    connection.execute("DELETE FROM runs WHERE id = ?", [newest])
    connection.commit()
    connection.close()
    home.run(newest).root.rename(home.trash / newest)
    assert queue.enqueue(home, "shapes_smoke") == "3"


def test_freeze_same_source_is_kept_once_and_a_damaged_copy_is_replaced(home: Home) -> None:
    first = code.freeze(home)
    assert code.freeze(home) == first
    frozen = home.code / str(first["digest"])
    assert [entry.name for entry in home.code.iterdir()] == [frozen.name]
    (frozen / "engine" / "events.py").write_text("")
    with pytest.raises(MmtuiError, match="was changed"):
        code.own_folder(home, first)
    assert code.freeze(home) == first
    assert code.own_folder(home, first) == frozen


@pytest.mark.parametrize(
    "name",
    ["sitecustomize.py", "engine/loop.abi3.so", "engine/loop.pyc", "torch/__init__.py", "engine/data.txt", "x.diff"],
)
def test_freeze_leaves_no_file_beside_its_own(home: Home, name: str) -> None:
    first = code.freeze(home)
    stray = home.code / first["digest"] / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("")
    with pytest.raises(MmtuiError, match="was changed"):
        code.own_folder(home, first)
    assert code.freeze(home) == first
    assert not stray.exists() and code.own_folder(home, first)


@pytest.mark.parametrize("name", ["sitecustomize.py", "engine/loop.abi3.so", "engine/loop.pyc", "torch/__init__.py"])
def test_code_frozen_before_digests_were_whole_is_not_run_with_a_file_beside_it(home: Home, name: str) -> None:
    frozen = home.code / code.freeze(home)["digest"]
    old = {"digest": code.digest_of_sources(frozen / "engine")}
    frozen = frozen.rename(home.code / old["digest"])
    compiled = frozen / "engine" / "__pycache__" / "loop.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_text("")
    assert code.own_folder(home, old) == frozen
    assert not compiled.exists(), "nobody can tell who has compiled it"
    (frozen / name).parent.mkdir(exist_ok=True)
    (frozen / name).write_text("")
    with pytest.raises(MmtuiError, match="was changed"):
        code.own_folder(home, old)


@pytest.mark.parametrize(
    "digest", ["", "../runs/1", "/etc", "0123456789ABCDEF", "0123456789abcdef\n", "a" * 17, None, 7]
)
@pytest.mark.parametrize("key", ["digest", "sha256"])
def test_name_of_code_that_is_no_digest_leads_to_no_file(home: Home, key: str, digest: object) -> None:
    good = code.freeze(home)
    if key == "digest" or digest:
        with pytest.raises(MmtuiError):
            code.own_folder(home, {**good, key: digest})


def test_digest_sees_every_name_and_byte(tmp_path: Path) -> None:
    def seen() -> str:
        return code.digest_of(code.files_of(tmp_path))

    (tmp_path / "a.py").write_text("x")
    (tmp_path / "b.py").write_text("")
    found = [seen()]
    (tmp_path / "a.py").write_text("")
    (tmp_path / "b.py").write_text("x")
    found.append(seen())
    for name in ("c.py", "sitecustomize.py", "a.so", "data", "sub/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        found.append(seen())
    (tmp_path / "c.py").rename(tmp_path / "d.py")
    found.append(seen())
    (tmp_path / "e.py").symlink_to(tmp_path / "d.py")
    found.append(seen())
    assert len(set(found)) == len(found)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_text("x")
    assert seen() == found[-1]


def test_verbs_of_a_run_that_does_not_exist_or_is_in_another_state(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    assert runs.get_run(home, run_id).row.state == "held"
    for verb in (queue.pause, queue.resume, queue.hold, queue.retry):
        with pytest.raises(RefusedError, match="is held") as caught:
            verb(home, run_id)
        assert caught.value.hint == "possible now: cancel, release"
    queue.release(home, run_id)
    assert runs.get_run(home, run_id).row.state == "queued"
    with pytest.raises(NotFoundError):
        queue.cancel(home, "77")
