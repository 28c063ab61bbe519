"""``RUN@best`` wherever a checkpoint is named: forks, the last evaluation, ensembles, exported weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine import checkpoint
from engine.__main__ import main
from engine.config.best import best_folder, split
from engine.config.forking import kept_checkpoints, make_plan, parse_place, plan_change
from engine.errors import CheckpointError, RecipeError
from engine.models.export import export_segmenter
from engine.stages import evaluate
from tests.unit.engine_run.conftest import Runner
from tests.unit.engine_run.test_best import by
from tests.unit.engine_run.test_fork import fork

# Of this recipe the stage segment ends early: the best is at step 4, the last at 8.
EARLY: dict[str, Any] = {"segment__optim": {"lr": 0.2}, "segment__steps": 40, "segment__ema": 0.1}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    run = Runner(tmp_path_factory.mktemp("family") / "parent")
    assert run.train(by("loss", patience=2, **EARLY)) == "succeeded"
    assert [e["step"] for e in run.kind("early_stop")] == [at_best(run) + 4]
    return run


def at_best(run: Runner) -> int:
    return int(checkpoint.read_meta(best_folder(run.run_dir))["step"])


def best_network(run: Runner) -> dict[str, torch.Tensor]:
    """The average's tensors in the best checkpoint, by the network's own names."""
    tensors = load_file(best_folder(run.run_dir) / "model.safetensors")
    return {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}


@pytest.fixture
def child(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "child")


# ---- forks -----------------------------------------------------------------------------------------------------------


def test_place_of_the_best_is_read() -> None:
    assert parse_place("12@best") == ("12", "best") and parse_place("@@best") == ("@", "best")
    assert parse_place("12@bests") == ("12@bests", None) and parse_place("best") == ("best", None)


def test_fork_from_best_trains_from_exactly_those_weights(parent: Runner, child: Runner) -> None:
    """At a rate of nothing what it hands on is what it began with; its patience begins anew."""
    step = at_best(parent)
    recipe = by("loss", patience=2, **{**EARLY, "segment__optim": {"lr": 1e-12, "momentum": 0.0}})
    assert fork(child, recipe, parent, "best") == "succeeded"
    started = child.kind("run_started")[0]["values"]
    assert (started["resumed_stage"], started["resumed_step"]) == ("segment", step)
    trained = load_file(best_folder(parent.run_dir) / "model.safetensors")
    handed = load_file(child.run_dir / "checkpoints/segment/final/model.safetensors")
    for name, value in handed.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, trained[f"trained.{name}"], rtol=1e-3, atol=1e-5, msg=name)
    first = child.kind("best")[0]
    assert first["step"] == step + 2, "the first evaluation of its own is its first best one"


def test_fork_that_changes_nothing_repeats_its_parent(parent: Runner, child: Runner) -> None:
    assert fork(child, by("loss", patience=2, **EARLY), parent, "best") == "succeeded"
    step = at_best(parent)
    mine = {place: loss for place, loss in child.losses().items() if place[0] == "segment"}
    assert mine and all(parent.losses().get(place, loss) == loss for place, loss in mine.items())
    assert min(number for _, number in mine) == step + 1


def test_longer_fork_of_a_run_that_stopped_early_goes_on_from_its_best(parent: Runner, child: Runner) -> None:
    """Its last step has no optimiser any more; the best one has."""
    longer = by("loss", patience=0, **{**EARLY, "segment__steps": 12, "segment__optim": {"lr": 0.01}})
    plan = make_plan(longer, parent.run_dir, "parent")
    assert plan.begun is not None and plan.begun.path.name == "best" and plan.begun.step == at_best(parent)
    assert fork(child, longer, parent) == "succeeded"
    assert max(step for stage, step in child.losses() if stage == "segment") == 12


def test_output_of_a_stage_that_stopped_early_is_that_of_its_step(parent: Runner) -> None:
    kept = {one.path.name: (one.step, one.global_step, one.whole) for one in kept_checkpoints(parent.run_dir)}
    step = at_best(parent)
    assert kept == {"best": (step, step, False), "final": (step + 4, step + 4, True)}


def test_fork_that_takes_the_stage_over_takes_its_best_along(parent: Runner, child: Runner, tmp_path: Path) -> None:
    again = by("loss", patience=2, **EARLY, evaluate__checkpoint="best")
    assert fork(child, again, parent) == "succeeded"
    (found,) = child.kind("confusion")
    told = {"weights": "ema", "checkpoint": "best", "checkpoint_step": at_best(parent)}
    assert told.items() <= found["values"].items()
    mine, theirs = (best_folder(run.run_dir) / "optim.pt" for run in (child, parent))
    assert mine.samefile(theirs)
    grandchild = Runner(tmp_path / "grandchild")
    assert fork(grandchild, again, child, "best", stop=lambda events: len(events) > 1) == "stopped"
    assert plan_change(grandchild.run_dir, again).origin.step == at_best(parent)


def test_fork_from_a_best_of_the_last_step_takes_the_stage_over(tmp_path: Path, child: Runner) -> None:
    run, recipe = Runner(tmp_path / "run"), by("loss", segment__steps=4, segment__optim={"lr": 0.01})
    assert run.train(recipe) == "succeeded" and at_best(run) == 4
    plan = make_plan(recipe, run.run_dir, "7", "best")
    assert plan.begun is None and [kept.stage for kept in plan.taken] == ["segment"]
    longer = by("loss", segment__steps=6, segment__optim={"lr": 0.01})
    plan = make_plan(longer, run.run_dir, "7", "best")
    assert plan.begun is not None and plan.begun.step == 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"segment__ema": 0.0}, r"segment\.ema is 0\.0 here and 0\.1 in run 7, .*its best checkpoint does not fit"),
        ({"segment__steps": 4}, r"segment\.steps=4 leaves nothing to train: its best checkpoint does not fit"),
        ({"model__width": 0.5}, r"model\.width is 0\.5 here and 0\.25 in run 7"),
    ],
)
def test_fork_from_best_begins_nowhere_else(parent: Runner, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        make_plan(by("loss", patience=2, **{**EARLY, **changes}), parent.run_dir, "7", "best")


def test_best_of_a_run_that_trains_is_forked_from(tmp_path: Path, child: Runner) -> None:
    run, recipe = Runner(tmp_path / "run"), by("loss", segment__optim={"lr": 0.01}, segment__steps=40)
    with pytest.raises(CheckpointError, match="has no checkpoint of stage segment yet, so none is the best"):
        make_plan(recipe, run.run_dir, "7", "best")
    asked = {("best", 6)}
    assert run.train(recipe, stop=lambda events: bool(asked & {(e["kind"], e["step"]) for e in events})) == "stopped"
    assert fork(child, recipe, run, "best", stop=lambda events: len(events) > 1) == "stopped"
    assert child.kind("run_started")[0]["values"]["resumed_step"] == 6


def test_run_without_a_best_is_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Runner(tmp_path / "run")
    plain = by("miou", segment__keep_best=None)
    assert run.train(plain) == "succeeded"
    with pytest.raises(CheckpointError, match=r"run 7 keeps no best checkpoint: segment\.keep_best=miou makes"):
        make_plan(plain, run.run_dir, "7", "best")
    out = str(tmp_path / "net.safetensors")
    assert main(["weights", "export", "--run-dir", f"{run.run_dir}@best", "--out", out]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "keeps no best checkpoint" in said and not Path(out).exists()


def test_folder_whose_name_ends_so_is_itself(tmp_path: Path) -> None:
    (tmp_path / "odd@best").mkdir()
    assert split(str(tmp_path / "odd@best")) == (tmp_path / "odd@best", False)
    assert split(str(tmp_path / "run@best")) == (tmp_path / "run", True)


def test_engine_begins_at_the_best_of_a_folder(parent: Runner, child: Runner, tmp_path: Path) -> None:
    odd = tmp_path / "odd@best"
    shutil.copytree(parent.run_dir, odd)
    longer = by("loss", **{**EARLY, "segment__steps": 12, "segment__optim": {"lr": 0.01}})
    for text in (f"{parent.run_dir}@best", f"{odd}@best", str(odd)):
        run = Runner(tmp_path / f"child{len(list(tmp_path.iterdir()))}")
        code, _, err = run.finish(longer, "--quiet", "--from", text)
        assert code == 0, err
        assert run.kind("run_started")[0]["values"]["resumed_step"] == at_best(parent)
    code, _, err = child.finish(longer, "--quiet", "--from", f"{tmp_path}/none@best")
    assert code == 2 and "there is no run directory" in err and "RUN_DIR@best" in err


def test_best_folder_of_another_step_is_not_taken_for_it(parent: Runner, child: Runner) -> None:
    shutil.copytree(parent.run_dir, child.run_dir)
    file = child.run_dir / "checkpoints/segment/best/meta.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "step": 2}))
    with pytest.raises(CheckpointError, match="is not in its folder any more"):
        best_folder(child.run_dir)


# ---- evaluation ------------------------------------------------------------------------------------------------------


def test_last_evaluation_is_of_the_best_where_the_recipe_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, torch.Tensor]] = []
    work = evaluate.measure

    def noted(context: Any, model: torch.nn.Module, *others: Any, **more: Any) -> Any:
        measured.append({name: value.clone() for name, value in model.state_dict().items()})
        return work(context, model, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "measure", noted)
    run = Runner(tmp_path / "run")
    assert run.train(by("loss", patience=2, **EARLY, evaluate__checkpoint="best")) == "succeeded"
    expected = best_network(run)
    assert measured[-1].keys() == expected.keys()
    assert all(torch.equal(measured[-1][name], value) for name, value in expected.items())
    on_the_way = {e["step"]: e["values"]["matrix"] for e in run.kind("confusion", "segment")}
    (last,) = run.kind("confusion", "evaluate")
    assert last["values"]["matrix"] == on_the_way[at_best(run)] and last["values"]["checkpoint_step"] == at_best(run)


def test_best_checkpoint_that_is_damaged_is_not_evaluated(parent: Runner, child: Runner) -> None:
    shutil.copytree(parent.run_dir, child.run_dir)
    shutil.rmtree(child.run_dir / "checkpoints" / "evaluate")
    file = child.run_dir / "checkpoints/segment/best/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"the best checkpoint .*/best is damaged \(model\.safetensors has"):
        child.train(by("loss", patience=2, **EARLY, evaluate__checkpoint="best"))


def test_member_of_an_ensemble_may_be_the_best_of_a_run(parent: Runner, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    with pytest.MonkeyPatch.context() as patch:
        members = evaluate.load_members

        def noted(*arguments: Any) -> Any:
            for member in members(*arguments):
                seen.append(dict(member.model.state_dict()))  # type: ignore[attr-defined]
                yield member

        patch.setattr(evaluate, "load_members", noted)
        run = Runner(tmp_path / "run")
        both = (str(parent.run_dir), f"{parent.run_dir}@best")
        assert run.train(by("miou", segment__steps=2, evaluate__ensemble=both)) == "succeeded"
    final = load_file(parent.run_dir / "checkpoints/segment/final/model.safetensors")
    for found, expected in zip(seen, (final, best_network(parent)), strict=True):
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not torch.equal(seen[0]["classifier.weight"], seen[1]["classifier.weight"])
    plain = Runner(tmp_path / "plain")
    assert plain.train(by("miou", segment__keep_best=None, segment__steps=2)) == "succeeded"
    with pytest.raises(CheckpointError, match="keeps no best checkpoint"):
        Runner(tmp_path / "third").train(by("miou", segment__steps=2, evaluate__ensemble=(f"{plain.run_dir}@best",)))


# ---- exported weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_exported_best_is_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ema: float, auxiliary: float
) -> None:
    run = Runner(tmp_path / "run")
    keys = {"segment__ema": ema, "segment__auxiliary_head": auxiliary, "model__head": "fcn", "segment__steps": 40}
    assert run.train(by("loss", patience=2, **keys, segment__optim={"lr": 0.2})) == "succeeded"
    out, step = tmp_path / "net.safetensors", at_best(run)
    assert main(["weights", "export", "--run-dir", f"{run.run_dir}@best", "--out", str(out)]) == 0
    assert f"after segment {step}, the best" in capsys.readouterr().out
    prefix = ("average." if ema else "") + ("segmenter." if auxiliary else "") + "backbone."
    kept = load_file(best_folder(run.run_dir) / "model.safetensors")
    expected = {k.removeprefix(prefix): v for k, v in kept.items() if k.startswith(prefix)}
    exported = load_file(out)
    assert exported.keys() == expected.keys() and all(torch.equal(exported[k], v) for k, v in expected.items())
    card = json.loads(Path(f"{out}.json").read_text())
    assert (card["stage"], card["checkpoint"], card["checkpoint_step"]) == ("segment", "best", step)
    assert card["weights"] == ("ema" if ema else "trained")
    last = tmp_path / "last.safetensors"
    assert main(["weights", "export", "--run-dir", str(run.run_dir), "--out", str(last)]) == 0
    assert any(not torch.equal(load_file(last)[k], v) for k, v in exported.items())


def test_exported_segmenter_of_the_best_computes_as_that_network(parent: Runner, tmp_path: Path) -> None:
    cards = [export_segmenter(parent.run_dir, tmp_path / f"{best}.pt2", 32, best=best) for best in (True, False)]
    assert [card.get("checkpoint") for card in cards] == ["best", None]
    programs = [torch.export.load(tmp_path / f"{best}.pt2") for best in (True, False)]
    states = [program.state_dict for program in programs]
    expected = best_network(parent)
    for name, value in states[0].items():
        assert torch.equal(value, expected[name.removeprefix("model.")]), name
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
