"""Order of the queue, terms of runs, editing what waits, and the migration that brought them."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from engine.config import dump_recipe, load_recipe, strict_yaml
from engine.config.determining import LATER_KEYS, flat
from mmtui.errors import RefusedError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services import editing, forecast, labels, queue, recipes, runs
from mmtui.store import db
from mmtui.store.db import Database
from mmtui.store.pyramid import fill
from mmtui.store.runs import place, read_run, waiting_line
from mmtui.store.schema import HEAD, schema_revision
from mmtui.store.session import snapshot


def three(home: Home) -> list[str]:
    return [queue.enqueue(home, "shapes_smoke", hold=True) for _ in range(3)]


def test_move_before_after_top_and_bottom(home: Home) -> None:
    a, b, c = three(home)
    assert runs.queue_order(home) == [a, b, c]
    queue.move(home, c, before=a)
    assert runs.queue_order(home) == [c, a, b]
    queue.move(home, c, after=a)
    assert runs.queue_order(home) == [a, c, b]
    queue.move(home, b)
    assert runs.queue_order(home) == [b, a, c]
    queue.move(home, b, bottom=True)
    assert runs.queue_order(home) == [a, c, b]


def test_move_takes_the_priority_of_the_neighbour_that_was_named(home: Home) -> None:
    a, b, c = three(home)
    queue.set_priority(home, a, 5)
    queue.move(home, c, before=a)
    assert runs.queue_order(home) == [c, a, b]
    queue.move(home, c, after=b)
    assert runs.queue_order(home) == [a, b, c]
    queue.set_priority(home, c, 9)
    assert runs.queue_order(home) == [c, a, b]


def test_move_a_run_that_does_not_wait_is_refused(home: Home) -> None:
    a, b, _ = three(home)
    queue.cancel(home, a)
    with pytest.raises(RefusedError, match=f"run {a} does not wait"):
        queue.move(home, a, before=b)
    with pytest.raises(RefusedError, match=f"run {a} does not wait"):
        queue.move(home, b, before=a)


def test_moves_without_end_keep_the_order_a_list_would_have(home: Home) -> None:
    """Hundreds of moves to the same place exhaust the numbers between two neighbours; the order must not suffer."""
    ids = [int(queue.enqueue(home, "shapes_smoke", hold=True)) for _ in range(5)]
    model, source = list(ids), random.Random(0)
    database = Database(home)
    for number in range(400):
        moving, anchor = source.sample(model, 2) if number % 4 == 0 else (model[-1], model[1])
        model.remove(moving)
        model.insert(model.index(anchor), moving)
        with database.write() as session:
            place(session, moving, before=anchor)
            assert [run.id for run in waiting_line(session)] == model
    database.close()


def test_sweep_is_one_group_all_or_none(home: Home) -> None:
    members = recipes.sweep("shapes_smoke", ["seed=0..2", "segment.optim.lr=0.1,0.01"], home)
    ids = queue.enqueue_all(home, "shapes_smoke", members, queue.Terms(hold=True, tags=["s"]))
    rows = runs.by_ids(home, ids)
    assert len(rows) == 6 and {row.group for row in rows} == {f"sweep-{ids[0]}"}
    assert [row.seed for row in rows] == [0, 0, 1, 1, 2, 2]
    rates = [load_recipe(home.run(run_id).recipe).segment.optim.lr for run_id in ids]  # type: ignore[union-attr]
    assert rates == [0.1, 0.01] * 3
    with pytest.raises(UsageError, match=r"segment\.steps"):
        recipes.sweep("shapes_smoke", ["segment.steps=5,0"], home)
    assert len(runs.list_runs(home)) == 6


def test_edit_changes_row_recipe_and_manifest_of_a_run_that_has_not_begun(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", ["segment.steps=7"], hold=True)
    editing.edit(home, run_id, ["segment.steps=9", "seed=4", "match=null"])
    detail = runs.get_run(home, run_id)
    assert (detail.row.seed, detail.config["segment"]["steps"], detail.config["match"]) == (4, 9, None)
    assert [(stage.name, stage.total_steps) for stage in detail.stages if stage.name != "proxy"] == [
        ("segment", 9),
        ("evaluate", 1),
    ]
    assert load_recipe(home.run(run_id).recipe).model_dump(mode="json") == detail.config
    manifest = json.loads(home.run(run_id).manifest.read_text())
    assert manifest["overrides"] == ["segment.steps=7", "segment.steps=9", "seed=4", "match=null"]


def test_edit_with_a_mistake_changes_nothing(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    before = home.run(run_id).recipe.read_bytes()
    with pytest.raises(UsageError, match="did you mean"):
        editing.edit(home, run_id, ["segment.stepz=9"])
    assert home.run(run_id).recipe.read_bytes() == before
    queue.cancel(home, run_id)
    with pytest.raises(RefusedError, match="is cancelled"):
        editing.edit(home, run_id, ["segment.steps=9"])


@pytest.mark.processes
def test_editor_changes_become_overrides(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    script = tmp_path / "editor"
    script.write_text("#!/bin/sh\nsed -i 's/^seed: 0/seed: 8/' \"$1\"\n")
    script.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(script))
    assert recipes.changed_in_editor(home.run(run_id).recipe) == ["seed=8"]
    script.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UsageError, match="ended with code 3"):
        recipes.changed_in_editor(home.run(run_id).recipe)
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    with pytest.raises(UsageError, match="cannot be started"):
        recipes.changed_in_editor(home.run(run_id).recipe)


@pytest.mark.processes
@pytest.mark.parametrize(("script", "expected"), [
    ("/ 255: 1/d", ['data.label_map={"0": 2}']),
    ("/label_map/d;/ 0: 2/d;/ 255: 1/d", ["data.label_map=null"]),
    ("s/ 255: 1/ 255: void/", ['data.label_map={"0": 2, "255": "void"}']),
    ("/sky: 3/d", ['reference.per_class={"road": 4.0}']),
    ("/sky/d;/road/d", ["reference.per_class=null"]),
    ("/label_map/d;/ 0: 2/d;/ 255: 1/d;s/folder/shapes/;/root/d;/reference/d;/per_class/d;/sky/d;/road/d",
     ["data.kind=\"shapes\"", "reference.per_class=null"]),
])  # fmt: skip
def test_what_an_editor_takes_out_of_a_mapping_is_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, expected: list[str]
) -> None:
    file = tmp_path / "mapped.yaml"
    file.write_text(
        "data:\n  kind: folder\n  root: /x\n  label_map:\n    0: 2\n    255: 1\n"
        "segment: {steps: 2}\nreference:\n  per_class:\n    sky: 3\n    road: 4\n"
    )
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nsed -i '{script}' \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(editor))
    found = recipes.changed_in_editor(file)
    assert [text for text in found if text.startswith(("data.kind", "data.label_map", "reference"))] == expected
    before = load_recipe(file).model_dump(mode="json")
    editor.write_text("#!/bin/sh\nexit 0\n")
    assert recipes.changed_in_editor(file) == [] and load_recipe(file, found).model_dump(mode="json") != before


def test_costs_are_those_of_runs_with_the_same_work(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    recipe = recipes.resolve("shapes_smoke", (), home)
    assert forecast.Costs(home).seconds(recipe) is None
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE stages SET seconds_per_step = 0.5 WHERE run_id = ?", [run_id])
    connection.commit()
    connection.close()
    steps = sum(count for _, count in recipe.stages())
    assert forecast.Costs(home).seconds(recipe) == pytest.approx(0.5 * steps)
    longer = recipes.resolve("shapes_smoke", ["segment.steps=1000", "segment.optim.lr=0.3"], home)
    assert forecast.Costs(home).seconds(longer) == pytest.approx(
        0.5 * (steps + 1000 - recipe.segment.steps)  # type: ignore[union-attr]
    )
    assert forecast.Costs(home).seconds(recipes.resolve("shapes_smoke", ["segment.batch_size=3"], home)) is None
    # What runs took besides their stages counts too: this one took 100 s, its stages 90 s.
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded', attempt = 1, started_at = 0, ended_at = 100")
    connection.execute("UPDATE stages SET started_at = 0, ended_at = 90.0 / (SELECT count(*) FROM stages)")
    connection.commit()
    connection.close()
    assert forecast.Costs(home).seconds(recipe) == pytest.approx(10 + 0.5 * steps)


@pytest.fixture(params=["0001", "0002", "0003", "0004"])
def old(request: pytest.FixtureRequest, home: Home) -> Home:
    """A database of an earlier schema, with one run and forty points of its loss."""
    home.create()
    config = Config()
    config.set_main_option("script_location", str(Path(db.__file__).parent / "migrations"))
    config.attributes["database"] = home.database
    command.upgrade(config, request.param)
    connection = sqlite3.connect(home.database)
    values = {
        "name": "old",
        "state": "held",
        "gpus": "[]",
        "tags": "[]",
        "config": "{}",
        "overrides": "[]",
        "code": "{}",
    }
    columns = connection.execute("PRAGMA table_info(runs)").fetchall()
    names = [name for _, name, _, required, default, key in columns if required and default is None and not key]
    row = [values.get(name, "" if name in ("recipe", "run_group", "reason", "error", "stage") else 0) for name in names]
    connection.execute(f"INSERT INTO runs ({','.join(names)}) VALUES ({','.join('?' * len(names))})", row)
    points = [(1, "loss", step, 1, "segment", step, 0.0, float(step % 7)) for step in range(40)]
    connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", points)
    if request.param >= "0004":
        fill(connection)  # as points of that version are stored
    connection.commit()
    connection.close()
    return home


def test_database_of_an_earlier_schema_is_upgraded_with_a_copy_kept(old: Home) -> None:
    database = Database(old)
    with database.write() as session:
        run = read_run(session, 1)
        assert (run.name, run.after, run.if_failed, run.wanted, run.launcher) == ("old", "[]", "hold", 1.0, "{}")
        assert (run.parent, run.parent_step, run.origin) == (None, None, "{}")
    database.close()
    assert [path.name.startswith(f"before-{HEAD}") for path in old.backups.iterdir()] == [True]
    assert runs.queue_order(old) == ["1"] and runs.queue_settings(old) == {}


def test_reading_upgrades_too_and_charts_show_old_points(old: Home) -> None:
    made = runs.series(old, "1", "loss", max_buckets=10)
    assert made.total_points == 40 and max(bucket.high for bucket in made.buckets) == 6.0
    assert len(list(old.backups.iterdir())) == 1


def test_snapshot_upgrades_first_and_then_is_of_one_moment(old: Home) -> None:
    with snapshot(old):
        assert runs.queue_order(old) == ["1"] and runs.series(old, "1", "loss", max_buckets=10).total_points == 40
        change = sqlite3.connect(old.database)
        change.execute("DELETE FROM metrics")
        change.execute("UPDATE runs SET state = 'cancelled'")
        change.commit()
        change.close()
        assert [row.state for row in runs.list_runs(old)] == ["held"] and len(runs.points(old, "1", "loss")) == 40
    assert runs.queue_order(old) == [] and len(list(old.backups.iterdir())) == 1


def test_database_is_not_upgraded_under_the_hands_of_an_older_supervisor(old: Home) -> None:
    script = "import sys; from mmtui.paths import Home; from mmtui.supervisor.lock import SupervisorLock;"
    script += (
        "from pathlib import Path; lock = SupervisorLock(Home(Path(sys.argv[1]))); print('held'); sys.stdin.read()"
    )
    before = schema_revision(old.database)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(old.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        for action in (lambda: runs.queue_order(old), lambda: Database(old)):
            with pytest.raises(UnreachableError, match="older mmtui's supervisor"):
                action()
        assert schema_revision(old.database) == before and not list(old.backups.iterdir())
        process.communicate("")
    assert runs.queue_order(old) == ["1"]


def as_before_later_keys(home: Home, run_id: str) -> None:
    """The recipe of a run as a program has written it that did not know ``LATER_KEYS``."""
    data = strict_yaml.load(strict_yaml.read_text(home.run(run_id).recipe), "")[0]
    for key in LATER_KEYS:
        part = data
        *sections, last = key.split(".")
        for section in sections:
            part = part[section] if isinstance(part, dict) else None
        if isinstance(part, dict):
            del part[last]
    home.run(run_id).recipe.write_text(strict_yaml.dump(data))


def test_edited_recipe_of_older_code_has_no_key_that_the_code_does_not_know(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    as_before_later_keys(home, run_id)
    before = set(flat_keys(home, run_id))
    editing.edit(home, run_id, ["segment.steps=9"])
    assert set(flat_keys(home, run_id)) == before
    assert load_recipe(home.run(run_id).recipe).segment.steps == 9  # type: ignore[union-attr]
    editing.edit(home, run_id, ["proxy=null"])
    assert not {key for key in flat_keys(home, run_id) if key in LATER_KEYS}
    editing.edit(home, run_id, ["proxy.kind=rotation"])
    assert not {key for key in flat_keys(home, run_id) if key in LATER_KEYS}


@pytest.mark.parametrize("text", ["segment.loss=dice", "segment.optim.optimiser=adamw"])
def test_edit_that_older_code_cannot_do_is_refused(home: Home, text: str) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    as_before_later_keys(home, run_id)
    before = home.run(run_id).recipe.read_text()
    with pytest.raises(RefusedError, match=f"does not know {text.split('=', maxsplit=1)[0]}"):
        editing.edit(home, run_id, [text])
    assert home.run(run_id).recipe.read_text() == before


@pytest.mark.parametrize("knows", [True, False])
def test_edit_writes_a_map_of_labels_only_for_code_that_knows_of_such(home: Home, tmp_path: Path, knows: bool) -> None:
    """A recipe without one is written alike by code that knows the key and by code that does not."""
    data = ["data.kind=folder", f"data.root={tmp_path}"]
    run_id = queue.enqueue(home, "shapes_smoke", data, hold=True)
    if not knows:
        for file in home.code.glob("*/engine/config/*.py"):
            file.write_text(file.read_text().replace("label_map", "label_cap"))
    before = home.run(run_id).recipe.read_text()
    if knows:
        editing.edit(home, run_id, ["data.label_map={255: 1}"])
        assert flat_keys(home, run_id).count("data.label_map.255") == 1
        return
    with pytest.raises(RefusedError, match=r"does not know data\.label_map"):
        editing.edit(home, run_id, ["data.label_map={255: 1}"])
    assert home.run(run_id).recipe.read_text() == before


def test_edit_of_a_run_whose_code_lacks_a_key_that_is_no_later_one(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    data = strict_yaml.load(strict_yaml.read_text(home.run(run_id).recipe), "")[0]
    del data["runtime"]["checkpoint_every"]
    home.run(run_id).recipe.write_text(strict_yaml.dump(data))
    editing.edit(home, run_id, ["segment.steps=9"])
    assert "runtime.checkpoint_every" not in flat_keys(home, run_id)
    with pytest.raises(RefusedError, match=r"does not know runtime\.checkpoint_every"):
        editing.edit(home, run_id, ["runtime.checkpoint_every=7"])


def test_edit_looks_at_the_data_before_it_keeps_others_from_writing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = queue.enqueue(home, "shapes_smoke")
    held = list[bool]()

    def writable(*_: object) -> labels.Look:
        with sqlite3.connect(home.database, timeout=0) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                held.append(True)
            else:
                held.append(False)
                other.rollback()
        return labels.Look()

    monkeypatch.setattr(labels, "_ask", writable)
    monkeypatch.setattr(labels, "_answers", {})
    (tmp_path / "data").mkdir()
    editing.edit(home, run_id, ["data.kind=folder", f"data.root={tmp_path / 'data'}"])
    assert held == [False]


def test_edited_recipe_of_the_code_of_today_has_all_keys(home: Home) -> None:
    run_id = queue.enqueue(home, "shapes_smoke", hold=True)
    editing.edit(home, run_id, ["segment.loss=dice"])
    assert home.run(run_id).recipe.read_text() == dump_recipe(load_recipe(home.run(run_id).recipe))


def flat_keys(home: Home, run_id: str) -> list[str]:
    data = strict_yaml.load(strict_yaml.read_text(home.run(run_id).recipe), "")[0]
    return [key.removeprefix(".") for key, _ in flat(data, "")]
