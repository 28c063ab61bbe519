"""A run that begins at another run's checkpoint: what it takes over, what it refuses, and that it is exact."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import checkpoint
from engine.config import Recipe
from engine.config.forking import Place, change_recipe, kept_checkpoints, make_plan, parse_place, read_origin
from engine.errors import CheckpointError, RecipeError
from engine.events import EventWriter, attempt_numbers
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.test_resume import at
from tests.unit.engine_run.test_supervision import data_set

pytestmark = pytest.mark.slow

# Of the tiny recipe: proxy ends at step 3 of the run, match at 7, segment at 13, evaluate is the 14th.
KEEPING = {"runtime__keep_every": 2}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A finished run with every second checkpoint kept."""
    run = Runner(tmp_path_factory.mktemp("family") / "parent")
    assert run.train(tiny_recipe(**KEEPING)) == "succeeded"
    return run


@pytest.fixture
def child(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "child")


def fork(child: Runner, recipe: Recipe, parent: Runner, step: Place = None, **more: Any) -> str:
    """One attempt of a fork in this process."""
    from engine.loop import train

    attempt = (attempt_numbers(child.run_dir) or [0])[-1] + 1
    writer = EventWriter.open_for_attempt(child.run_dir, attempt)
    stop = more.pop("stop", lambda _events: False)
    origin = (parent.run_dir, step)
    try:
        asked, silent = (lambda: stop(child.events())), (lambda _line: None)
        return train(recipe, child.run_dir, writer, attempt, asked, silent, more.pop("cache", None), origin)
    finally:
        writer.close()


def names(run: Runner) -> list[str]:
    return [f"{kept.stage}/{kept.path.name}" for kept in kept_checkpoints(run.run_dir)]


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_keep_every_keeps_multiples_after_the_stage_has_ended_and_nothing_else(parent: Runner) -> None:
    kept = ["proxy/step_00000002", "proxy/final", "match/step_00000002", "match/step_00000004", "match/final"]
    kept += [f"segment/step_0000000{step}" for step in (2, 4, 6)]
    assert names(parent) == [*kept, "segment/final"]
    assert [c.global_step for c in kept_checkpoints(parent.run_dir)] == [2, 3, 5, 7, 7, 9, 11, 13, 13]


@pytest.mark.parametrize("form", ["../../../secret", "{outside}/secret", "..", "", "sub/secret", "a\nb", ".hidden"])
def test_checkpoint_that_names_a_file_outside_is_none(parent: Runner, child: Runner, tmp_path: Path, form: str) -> None:
    """A run from elsewhere brings its own meta files; a fork links what they name."""
    shutil.copytree(parent.run_dir, child.run_dir)
    (tmp_path / "secret").write_text("mine")
    final = child.run_dir / "checkpoints" / "segment" / "final"
    meta = json.loads((final / "meta.json").read_text())
    assert "segment/final" in names(child) and checkpoint.damage(final) == ""
    name = form.format(outside=tmp_path)
    size = (final / name).stat().st_size if (final / name).exists() else 0
    meta["files"][name] = [size, hashlib.sha256(b"mine").hexdigest()]
    (final / "meta.json").write_text(json.dumps(meta))
    assert "segment/final" not in names(child)
    assert "is no name of a file in it" in checkpoint.damage(final)


def test_keep_every_off_keeps_outputs_alone(child: Runner) -> None:
    assert child.train(tiny_recipe(runtime__checkpoint_every=1)) == "succeeded"
    assert names(child) == ["proxy/final", "match/final", "segment/final"]


def test_keep_every_lowered_later_leaves_what_was_kept(child: Runner) -> None:
    child.train(tiny_recipe(**KEEPING), stop=at("segment", 3))
    assert child.train(tiny_recipe(runtime__keep_every=0, runtime__checkpoint_every=1)) == "succeeded"
    assert names(child)[-2:] == ["segment/step_00000002", "segment/final"]


def test_keep_every_changes_nothing_that_is_computed(parent: Runner, child: Runner) -> None:
    child.train(tiny_recipe())
    assert child.losses() == parent.losses() and child.weights("segment") == parent.weights("segment")


# ---- the fork is exact ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "stage", "begun"),
    [(2, "proxy", 2), (3, "match", 0), (6, "match", 2), (7, "segment", 0), (9, "segment", 2), (12, "segment", 4)],
)
def test_fork_with_an_unchanged_recipe_is_the_parents_continuation(
    parent: Runner, child: Runner, step: int, stage: str, begun: int
) -> None:
    assert fork(child, tiny_recipe(**KEEPING), parent, step) == "succeeded"
    first = child.kind("run_started")[0]["values"]
    assert (first["resumed_stage"], first["resumed_step"]) == (stage, begun)
    assert child.losses() == {k: v for k, v in parent.losses().items() if k in child.losses()}
    assert (stage, begun + 1) in child.losses() and (stage, begun) not in child.losses()
    for name in ("proxy", "match", "segment"):
        assert child.weights(name) == parent.weights(name)
    matrices = [run.kind("confusion", "evaluate")[0]["values"]["matrix"] for run in (parent, child)]
    assert matrices[0] == matrices[1]


def test_fork_by_another_name_of_the_loss_takes_the_stages_over(tmp_path: Path) -> None:
    parent, child = Runner(tmp_path / "parent"), Runner(tmp_path / "child")
    assert parent.train(tiny_recipe(**KEEPING, match__loss="supcon")) == "succeeded"
    assert fork(child, tiny_recipe(**KEEPING, match__loss="info_nce"), parent, 9) == "succeeded"
    assert [event["stage"] for event in child.kind("stage_reused")] == ["proxy", "match"]
    assert child.weights("segment") == parent.weights("segment")


def test_fork_goes_on_with_its_own_settings_from_the_parents_weights_and_momentum(
    parent: Runner, child: Runner
) -> None:
    changes: dict[str, Any] = {"segment__optim": {"lr": 0.2, "momentum": 0.5, "weight_decay": 0.01}}
    recipe = tiny_recipe(**changes, segment__steps=9, runtime__keep_every=1, seed=3)
    assert fork(child, recipe, parent, 9) == "succeeded"
    rates = {e["step"]: e["values"]["lr"] for e in child.kind("metrics", "segment") if "lr" in e["values"]}
    assert sorted(rates) == list(range(3, 10)) and rates[3] == 0.2  # schedule of 9 steps, not of 6
    files = [run.run_dir / "checkpoints/segment" for run in (parent, child)]
    before = torch.load(files[0] / "step_00000002/optim.pt", weights_only=True)
    assert (files[1] / "step_00000002/optim.pt").read_bytes() == (files[0] / "step_00000002/optim.pt").read_bytes()
    after = torch.load(files[1] / "step_00000003/optim.pt", weights_only=True)
    assert [g["momentum"] for g in before["param_groups"]] != [g["momentum"] for g in after["param_groups"]]
    assert {(g["momentum"], g["weight_decay"]) for g in after["param_groups"]} == {(0.5, 0.01), (0.5, 0.0)}


def test_fork_with_another_seed_draws_other_data(parent: Runner, child: Runner) -> None:
    assert fork(child, tiny_recipe(**KEEPING, seed=5), parent, 9) == "succeeded"
    assert child.losses()[("segment", 3)] != parent.losses()[("segment", 3)]


def test_fork_makes_a_finished_stage_longer(parent: Runner, child: Runner) -> None:
    assert fork(child, tiny_recipe(**KEEPING, segment__steps=8), parent) == "succeeded"
    assert sorted(step for stage, step in child.losses() if stage == "segment") == [7, 8]


def test_fork_by_command_line_says_what_it_was_forked_from(parent: Runner, child: Runner) -> None:
    code, _, err = child.finish(tiny_recipe(segment__optim={"lr": 0.01}), "--from", f"{parent.run_dir}@10")
    assert code == 0, err
    origin = {"run": str(parent.run_dir), "stage": "segment", "step": 2, "global_step": 9}
    assert [event["values"]["forked_from"] for event in child.kind("run_started")] == [origin]
    assert parent.kind("run_started")[0]["values"]["forked_from"] is None
    assert [event["stage"] for event in child.kind("stage_reused")] == ["proxy", "match"]
    final = json.loads((child.run_dir / "checkpoints/segment/final/meta.json").read_text())
    assert final["lineage"] == [origin]


def test_fork_of_a_fork_keeps_the_whole_lineage(parent: Runner, child: Runner, tmp_path: Path) -> None:
    fork(child, tiny_recipe(**KEEPING, segment__optim={"lr": 0.01}), parent, 9)
    grandchild = Runner(tmp_path / "grandchild")
    fork(grandchild, tiny_recipe(**KEEPING, segment__optim={"lr": 0.02}), child, 11)
    lineage = checkpoint.read_meta(grandchild.run_dir / "checkpoints/segment/final")["lineage"]
    assert [(one["run"], one["global_step"]) for one in lineage] == [(str(parent.run_dir), 9), (str(child.run_dir), 11)]


# ---- resume ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [at("segment", 2), at("segment", 4), at("match", 0), at("evaluate", 0)])
def test_fork_stopped_and_resumed_without_its_parent_is_the_fork_that_was_not(
    parent: Runner, child: Runner, tmp_path: Path, where: Any
) -> None:
    recipe, gone = tiny_recipe(segment__optim={"lr": 0.01}), Runner(tmp_path / "parent")
    shutil.copytree(parent.run_dir, gone.run_dir)
    whole = Runner(tmp_path / "whole")
    fork(whole, recipe, gone, 9)
    assert fork(child, recipe, gone, 9, stop=where) == "stopped"
    shutil.rmtree(gone.run_dir)
    assert fork(child, recipe, gone, 9) == "succeeded"
    assert child.losses() == whole.losses() and child.weights("segment") == whole.weights("segment")
    told = [event["values"]["forked_from"] for event in child.kind("run_started")]
    assert len(told) == 2 and told[0] == told[1]


def test_fork_killed_and_resumed_is_exact(parent: Runner, child: Runner, tmp_path: Path) -> None:
    recipe = tiny_recipe(segment__steps=400, segment__optim={"lr": 0.01}, runtime__checkpoint_every=7)
    whole = Runner(tmp_path / "whole")
    assert whole.finish(recipe, "--from", f"{parent.run_dir}@9")[0] == 0
    process = child.start(recipe, "--from", f"{parent.run_dir}@9")
    while not any(e["stage"] == "segment" and e["step"] >= 20 for e in child.events()):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (child.run_dir / "checkpoints/segment/final").exists()
    assert child.finish(recipe)[0] == 0  # without --from: it is its own run now
    assert child.losses() == whole.losses() and child.weights("segment") == whole.weights("segment")


def test_fork_whose_checkpoint_was_damaged_does_not_train_anew_in_silence(parent: Runner, child: Runner) -> None:
    fork(child, tiny_recipe(), parent, 9, stop=at("match", 0))
    optim = child.run_dir / "checkpoints/segment/step_00000002/optim.pt"
    content = bytearray(optim.read_bytes())
    content[50] ^= 1
    optim.unlink()  # a link: the parent's must not be touched
    optim.write_bytes(content)
    with pytest.raises(CheckpointError, match="forked from is damaged"):
        child.train(tiny_recipe())
    shutil.rmtree(child.run_dir / "checkpoints/match/final")
    with pytest.raises(CheckpointError, match="output of stage match that this run took over is gone"):
        child.train(tiny_recipe())


# ---- the cache ------------------------------------------------------------------------------------------------------


def test_fork_neither_takes_from_the_stage_cache_nor_puts_into_it(
    parent: Runner, child: Runner, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    recipe = tiny_recipe(match__margin=1.5, match__steps=6)
    assert fork(child, recipe, parent, 5, cache=cache) == "succeeded"
    assert list(cache.glob("*/meta.json")) == []
    # The same recipe, trained whole: what the fork would have put there is not what comes out.
    plain = Runner(tmp_path / "plain")
    writer = EventWriter.open_for_attempt(plain.run_dir, 1)
    from engine.loop import train

    train(recipe, plain.run_dir, writer, 1, lambda: False, lambda _line: None, cache)
    assert len(list(cache.glob("*/meta.json"))) == 2
    assert plain.weights("match") != child.weights("match")
    again = Runner(tmp_path / "again")
    fork(again, recipe, parent, 5, cache=cache)
    assert again.weights("match") == child.weights("match"), "the shared output must not replace the fork's own"


# ---- what is refused ------------------------------------------------------------------------------------------------


def plan_words(parent: Runner, step: int | None = None, **changes: Any) -> str:
    return make_plan(tiny_recipe(**changes), parent.run_dir, "12", step).words()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, dict[str, Any]]:
    """A finished run on masks of 0, 7 and 255, of which 7 is said to be road."""
    folder = tmp_path_factory.mktemp("mapped")
    data = {**data_set(folder / "data", (0, 7, 255), (0, 7)), "label_map": {"7": "road"}}
    run = Runner(folder / "parent")
    assert run.train(tiny_recipe(**KEEPING, data=data)) == "succeeded"
    return run, data


@pytest.mark.parametrize(("change", "words"), [
    ({"label_map": {"7": "car"}}, "data.label_map: value 7 means 2 car here and 1 road in run 12, whose stage"),
    ({"label_map": {"7": 1, "0": "void"}}, "data.label_map: value 0 means void here and 0 sky in run 12"),
    ({"label_map": {"7": 1, "255": 2}}, "data.label_map: value 255 means 2 car here and void in run 12"),
    ({"void_labels": [2, 255]}, "data.void_labels: value 2 means void here and 2 car in run 12"),
])  # fmt: skip
def test_what_learned_from_labels_is_not_taken_over_where_they_mean_something_else(
    mapped: tuple[Runner, dict[str, Any]], change: dict[str, Any], words: str
) -> None:
    parent, data = mapped
    plan = make_plan(tiny_recipe(data={**data, **change}), parent.run_dir, "12")
    assert plan.words().startswith("proxy is taken over, match is trained anew, 4 steps, segment is trained anew")
    assert words in plan.note and "has learned from that" in plan.note
    lone = {"proxy": None, "data": {**data, **change}}
    with pytest.raises(RecipeError, match="nothing that it has trained fits"):
        make_plan(tiny_recipe(**lone), parent.run_dir, "12")


@pytest.mark.parametrize("change", [
    {"label_map": {"7": 1}}, {"label_map": {"7": "road", "255": "void", "1": 1}}, {"root": "/other", "label_map": {}},
    {"labels": "other/{split}", "label_map": {"9": 1}}, {"max_train": 2}, {"val_split": "train"},
])  # fmt: skip
def test_labels_that_mean_the_same_and_other_masks_change_nothing_of_what_is_taken_over(
    mapped: tuple[Runner, dict[str, Any]], change: dict[str, Any]
) -> None:
    parent, data = mapped
    plan = make_plan(tiny_recipe(data={**data, **change}), parent.run_dir, "12")
    assert plan.words().endswith("segment is taken over, evaluate is done anew") and not plan.note


def test_fork_that_waits_is_not_given_another_meaning_of_its_labels(
    mapped: tuple[Runner, dict[str, Any]], child: Runner
) -> None:
    parent, data = mapped
    fork(child, tiny_recipe(data=data), parent, 9, stop=lambda _events: True)
    with pytest.raises(RecipeError, match=r"value 7 means 2 car here and 1 road in run .*stage segment has learned"):
        change_recipe(child.run_dir, tiny_recipe(data={**data, "label_map": {"7": 2}}))


def test_plan_takes_the_newest_state_that_the_recipe_allows(parent: Runner) -> None:
    lead = "proxy is taken over, match is taken over, "
    assert plan_words(parent, 9) == lead + "segment goes on at step 2 of 6, evaluate is done anew"
    assert plan_words(parent, 10) == plan_words(parent, 9)
    assert plan_words(parent) == f"{lead}segment is taken over, evaluate is done anew"
    assert plan_words(parent, segment__optim={"lr": 1.0}).startswith(f"{lead}segment goes on at step 4 of 6")
    assert plan_words(parent, 7) == f"{lead}segment is trained anew, 6 steps, evaluate is done anew"
    assert plan_words(parent, 100, match__margin=1.0).startswith("proxy is taken over, match goes on at step 2 of 4")
    assert plan_words(parent, 3, match__margin=1.0, match__steps=9).startswith(
        "proxy is taken over, match is trained anew, 9 steps"
    )


@pytest.mark.parametrize(
    ("step", "changes", "told"),
    [
        (None, {"model__width": 0.5}, "model.width is 0.5 here and 0.25 in run 12"),
        (None, {"model__dropout": 0.1}, "model.dropout is 0.1 here and 0.5 in run 12"),
        (None, {"data": {"kind": "voc", "root": "x"}}, "data.kind is voc here and shapes in run 12"),
        (
            2,
            {"proxy__kind": "rotation"},
            "proxy.kind is rotation here and colorization in run 12, and cannot change inside stage proxy",
        ),
        (2, {"proxy__queue": 9}, "proxy.queue is 9 here and 65536 in run 12, and cannot change inside stage proxy"),
        (3, {"proxy": None}, "run 12 has the end of proxy (step 3), but this recipe has no stage proxy"),
        (2, {"proxy__steps": 2}, "proxy.steps=2 leaves nothing to train"),
    ],
)
def test_plan_names_the_key_that_stands_in_the_way(
    parent: Runner, step: int | None, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_words(parent, step, **changes)
    assert told in str(caught.value)


def test_plan_other_classes_are_refused_when_they_are_known(parent: Runner) -> None:
    with pytest.raises(RecipeError, match="trained on 9 classes"):
        make_plan(tiny_recipe(), parent.run_dir, "12", None, ["a", "b"])


def test_plan_too_early_a_step_says_which_there_are_and_how_to_keep_more(parent: Runner) -> None:
    with pytest.raises(CheckpointError, match=r"at or before step 1: .*proxy 2 \(step 2\).*runtime\.keep_every"):
        plan_words(parent, 1)


def test_plan_of_a_run_without_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint to go on from yet"):
        make_plan(tiny_recipe(), tmp_path, "12")


def test_fork_into_a_folder_with_checkpoints_of_its_own_is_refused(parent: Runner, child: Runner) -> None:
    child.train(tiny_recipe(), stop=at("match", 1))
    with pytest.raises(CheckpointError, match="has checkpoints of its own"):
        fork(child, tiny_recipe(), parent, 9)


def test_command_line_without_such_a_folder_exits_2(child: Runner) -> None:
    code, _, err = child.finish(tiny_recipe(), "--from", "/nowhere@3")
    assert code == 2 and "there is no run directory /nowhere" in err


def test_change_recipe_of_a_fork_that_waits(parent: Runner, child: Runner) -> None:
    fork(child, tiny_recipe(), parent, 9, stop=at("match", 0))
    before = (parent.run_dir / "checkpoints/match/final/meta.json").read_bytes()
    with pytest.raises(RecipeError, match=r"match.margin is 1.0 here and 2.1 in run .*had finished match"):
        change_recipe(child.run_dir, tiny_recipe(match__margin=1.0))
    changed = tiny_recipe(segment__optim={"lr": 0.3})
    assert (
        change_recipe(child.run_dir, changed).words().endswith("segment goes on at step 2 of 6, evaluate is done anew")
    )
    assert (parent.run_dir / "checkpoints/match/final/meta.json").read_bytes() == before
    assert child.train(changed) == "succeeded"
    rates = [e["values"]["lr"] for e in child.kind("metrics", "segment") if "lr" in e["values"]]
    assert rates[0] == 0.3 and (read_origin(child.run_dir) or {})["begun"] == ["segment", 2]


def test_take_over_leaves_no_fork_when_it_is_cut_off(
    parent: Runner, child: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.config import forking

    calls: list[Path] = []

    def cut_off(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        shutil.copyfile(source, target)

    monkeypatch.setattr(forking, "link", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fork(child, tiny_recipe(), parent, 9)
    assert not (child.run_dir / "checkpoints").exists()
    monkeypatch.undo()
    assert fork(child, tiny_recipe(), parent, 9) == "succeeded"
    assert child.weights("segment") == parent.weights("segment")


@pytest.mark.parametrize(
    ("text", "place"), [("12@300", ("12", 300)), ("@@5", ("@", 5)), ("@", ("@", None)), ("@~1@7", ("@~1", 7))]
)
def test_parse_place(text: str, place: tuple[str, int | None]) -> None:
    assert parse_place(text) == place


def test_fork_of_a_running_parent_that_removes_the_checkpoint_meanwhile_takes_what_is_there(
    parent: Runner, child: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.config import forking

    busy = Runner(tmp_path / "busy")
    shutil.copytree(parent.run_dir, busy.run_dir)
    really = forking.link

    def remove_first(source: Path, target: Path) -> None:
        if "segment/step_00000004" in str(source):
            shutil.rmtree(source.parent)
        really(source, target)

    monkeypatch.setattr(forking, "link", remove_first)
    plan = forking.take(tiny_recipe(), (busy.run_dir, "12", 12), child.run_dir)
    assert (plan.origin.stage, plan.origin.step) == ("segment", 2)
    assert names(child) == ["proxy/final", "match/final", "segment/step_00000002"]
