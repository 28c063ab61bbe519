"""Resume is exact: whatever ends a run early, going on gives the run that was never cut off."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from engine.config import Recipe
from engine.errors import CheckpointError, EngineError
from engine.events import attempt_folder
from engine.replay import Replay
from engine.resume import find_position
from tests.unit.engine_run.test_proxies import folder_of_classes

pytestmark = pytest.mark.slow

Make = Callable[..., Recipe]


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def finish(self, recipe: Recipe, *options: str) -> tuple[int, str, str]: ...
    def kill_at(self, recipe: Recipe, number: signal.Signals, stage: str, step: int) -> int: ...
    def events(self, attempt: int | None = None) -> list[dict[str, Any]]: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...
    def losses(self) -> dict[tuple[str, int], float]: ...
    def weights(self, stage: str) -> bytes: ...


def at(stage: str, step: int) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether the newest event is of that step or a later one of the stage."""
    return lambda events: events[-1]["stage"] == stage and events[-1]["step"] >= step


def assert_equal_runs(one: Runner, other: Runner, stages: Sequence[str] = ("proxy", "match", "segment")) -> None:
    """Losses, weights, evaluations and graphs to the last bit."""
    assert one.losses() == other.losses()
    for stage in stages:
        assert one.weights(stage) == other.weights(stage)
    for kind, key in (("confusion", "matrix"), ("graph", "d_pos_mean"), ("projection", "x")):
        found = [{(e["stage"], e["step"]): e["values"][key] for e in run.kind(kind)} for run in (one, other)]
        assert found[0] == found[1]


def assert_no_gap_in_seq(run: Runner) -> None:
    seqs = [event["seq"] for event in run.events()]
    assert seqs == list(range(1, len(seqs) + 1))


# ---- in this process: every place where a run may be asked to leave -------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        *[("", 0), ("proxy", 0), ("proxy", 1), ("proxy", 3), ("match", 0), ("match", 2)],
        *[("segment", 1), ("segment", 3), ("segment", 5), ("segment", 6), ("evaluate", 0)],
    ],
)
def test_stop_then_resume_equals_the_run_that_was_never_stopped(
    runner: Runner, another_runner: Runner, make_recipe: Make, stage: str, step: int
) -> None:
    recipe = make_recipe()
    assert another_runner.train(recipe) == "succeeded"
    assert runner.train(recipe, stop=at(stage, step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner)
    assert_no_gap_in_seq(runner)


def jitter(*stages: str) -> dict[str, Any]:
    """Random resizing and colours in these stages."""
    chosen = ("scale_jitter", [0.5, 2.0]), ("colour_jitter", 0.4)
    return {f"{stage}__{key}": value for stage in stages for key, value in chosen}


# Settings that do not touch each other share a case, which is stopped inside every stage that they change.
OTHERS: dict[str, tuple[dict[str, Any], tuple[tuple[str, int], ...]]] = {
    "jigsaw, semi-hard edges, jitter, mapped cache": (
        {"proxy__kind": "jigsaw", "proxy__tile": 16, "proxy__gap": 2, "proxy__permutations": 4}
        | {"match__strategy": "semi_hard", "runtime__memory_budget_gib": 1e-9}
        | jitter("proxy", "match", "segment"),
        (("proxy", 1), ("match", 2), ("segment", 4)),
    ),
    "rotation, contrast, balanced centres, purest candidates": (
        {"proxy__kind": "rotation", "match__loss": "info_nce", "match__centres": "balanced"}
        | {"match__candidates": "pure", "segment": None, "evaluate": None},
        (("proxy", 2), ("match", 1)),
    ),
    "classification, balanced edges, jitter": (
        {"proxy__kind": "classification", "proxy__image_side": 32, "match__strategy": "balanced"}
        | {"segment": None, "evaluate": None, **jitter("proxy", "match")},
        (("proxy", 1), ("match", 3)),
    ),
}


def test_run_goes_on_by_another_name_of_its_loss(runner: Runner, another_runner: Runner, make_recipe: Make) -> None:
    former, now = (make_recipe(match__loss=word, proxy=None) for word in ("supcon", "info_nce"))
    assert another_runner.train(former) == "succeeded"
    for recipe, stage, step in ((former, "match", 2), (now, "match", 3), (former, "segment", 2)):
        assert runner.train(recipe, stop=at(stage, step)) == "stopped"
    assert runner.train(now) == "succeeded"
    assert runner.losses() == another_runner.losses() and runner.weights("segment") == another_runner.weights("segment")
    with pytest.raises(CheckpointError, match=r"made with match\.loss=info_nce, the recipe now says triplet"):
        runner.train(make_recipe(match__loss="triplet", proxy=None))


@pytest.mark.parametrize("case", OTHERS)
def test_run_of_other_settings_stopped_in_every_stage_equals_the_one_that_was_not(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path, case: str
) -> None:
    changes, stops = OTHERS[case]
    cache = tmp_path / "cache"
    if "mapped cache" in case:
        changes = {**changes, "runtime__data_cache": str(cache)}
    if "classification" in case:
        root = folder_of_classes(tmp_path / "pictures", {"cat": 3, "ant": 2})
        changes = {**changes, "proxy__images": str(root)}
    recipe = make_recipe(**changes)
    assert another_runner.train(recipe) == "succeeded"
    for stage, step in stops:
        assert runner.train(recipe, stop=at(stage, step)) == "stopped"
        position = find_position(recipe, runner.run_dir)
        assert (position.stage, position.step) == (stage, step)
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, [stage for stage, _ in stops])
    assert len(list(cache.glob("*.json"))) == (2 if "mapped cache" in case else 0)


def test_stop_at_every_step_still_comes_to_the_same_end(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    recipe = make_recipe(proxy=None, match__steps=2, segment__steps=3, segment__eval_every=2, evaluate=None)
    another_runner.train(recipe)
    for attempts in range(1, 12):
        own: list[int] = []

        def after_one_step(events: list[dict[str, Any]], number: int = attempts, own: list[int] = own) -> bool:
            own[:] = [e["step"] for e in events if e["kind"] == "metrics"]
            return len(own) >= number

        if runner.train(recipe, stop=after_one_step) == "succeeded":
            break
    assert attempts == 5
    assert runner.losses() == another_runner.losses()
    assert runner.weights("segment") == another_runner.weights("segment")


def test_resume_reports_where_it_goes_on(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe()
    runner.train(recipe, stop=at("match", 2))
    assert find_position(recipe, runner.run_dir).global_step == 5
    runner.train(recipe)
    started = runner.kind("run_started")[1]["values"]
    assert (started["resumed_stage"], started["resumed_step"], started["resumed_global_step"]) == ("match", 2, 5)
    assert runner.kind("stage_started", "match")[1]["values"]["resumed_step"] == 2


def test_stop_during_an_evaluation_does_it_again_before_going_on(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    recipe = make_recipe(proxy=None, match=None)
    another_runner.train(recipe)

    # The first image of the evaluation after step 3 is written, its matrix is not.
    assert runner.train(recipe, stop=lambda events: events[-1]["kind"] == "image") == "stopped"
    assert runner.kind("confusion") == []
    assert runner.kind("checkpoint")[0]["step"] == 3
    runner.train(recipe)
    assert [e["step"] for e in runner.kind("confusion", "segment")] == [3, 6]
    assert runner.losses() == another_runner.losses()
    miou = [[e["values"]["miou"] for e in r.kind("metrics") if "miou" in e["values"]] for r in (runner, another_runner)]
    assert miou[0] == miou[1]


def test_loss_of_a_step_is_told_even_if_the_run_leaves_during_its_evaluation(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    """Step 3 is logged for its evaluation alone, and nothing trains it again: the curve would lack a point."""
    recipe = make_recipe(proxy=None, match=None, runtime__log_every=4)
    another_runner.train(recipe)
    assert runner.train(recipe, stop=lambda events: events[-1]["kind"] == "image") == "stopped"
    runner.train(recipe)
    assert sorted(step for _, step in another_runner.losses()) == [3, 4, 6]
    assert runner.losses() == another_runner.losses()


def test_resume_finished_run_does_nothing_more(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(proxy=None, match=None)
    runner.train(recipe)
    assert runner.train(recipe) == "succeeded"
    assert [e["kind"] for e in runner.events(2)] == ["run_started"]


def test_resume_from_a_damaged_checkpoint_takes_the_one_before_and_warns(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    recipe = make_recipe(proxy=None, match=None, runtime__checkpoint_every=2)
    another_runner.train(recipe)
    runner.train(recipe, stop=at("segment", 5))
    newest = runner.run_dir / "checkpoints/segment/step_00000005/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    runner.train(recipe)
    assert "step_00000005 is damaged" in runner.kind("warning")[0]["values"]["text"]
    assert runner.kind("stage_started", "segment")[1]["values"]["resumed_step"] == 4
    assert runner.losses() == another_runner.losses()


def test_resume_with_other_threads_warns(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(proxy=None, match=None)
    runner.train(recipe, stop=at("segment", 1))
    runner.train(make_recipe(proxy=None, match=None, runtime__threads=2))
    assert "set runtime.threads=1 to go on exactly" in runner.kind("warning")[0]["values"]["text"]


@pytest.mark.parametrize(
    ("key", "then", "sentence"),
    [
        ("torch", "1.0", "was made with torch 1.0, now there is"),
        ("device", "NVIDIA H100", "was made on NVIDIA H100, now the run is on"),
        ("opencv", "0.1", "was made with OpenCV 0.1, now there is"),
    ],
)
def test_resume_elsewhere_warns(runner: Runner, make_recipe: Make, key: str, then: str, sentence: str) -> None:
    recipe = make_recipe(proxy=None, segment=None, evaluate=None)
    runner.train(recipe, stop=at("match", 1))
    (file,) = (runner.run_dir / "checkpoints" / "match").glob("step_*/meta.json")
    meta = json.loads(file.read_text())
    assert key in meta
    file.write_text(json.dumps({**meta, key: then}))
    runner.train(recipe)
    (warning,) = runner.kind("warning")
    assert sentence in warning["values"]["text"]


# ---- the proof by replay -------------------------------------------------------------------------------------------


def test_replay_compares_with_the_attempt_before(runner: Runner, make_recipe: Make) -> None:
    recipe = make_recipe(proxy=None, segment=None, evaluate=None, runtime__checkpoint_every=2)
    runner.train(recipe, stop=at("match", 3))
    replay = Replay(runner.run_dir, 2, "match", 2)
    loss = runner.losses()[("match", 3)]
    assert replay.compare(3, loss) == "" and replay.compare(4, 1.0) == ""
    assert (replay.compared, replay.equal) == (1, 1)


@pytest.mark.parametrize("other", [False, True])
def test_replay_knows_all_earlier_attempts_of_the_same_training(runner: Runner, make_recipe: Make, other: bool) -> None:
    runner.train(make_recipe(proxy=None, segment=None, evaluate=None), stop=at("match", 3))
    first = {step: loss for (_, step), loss in runner.losses().items()}
    second = 7.0 if other else first[2]
    for number, lines in ((2, []), (3, [(1, first[1]), (2, second)])):
        folder = attempt_folder(runner.run_dir, number)
        folder.mkdir()
        (folder / "events.jsonl").write_text("".join(event_line(step, loss) for step, loss in lines))
    replay = Replay(runner.run_dir, 4, "match", 1)
    assert replay.compare(1, 9.0) == "", "the checkpoint is from after it"
    assert replay.compare(2, second) == ""
    assert replay.compare(3, first[3]) == ""
    # Attempt 3 has repeated two of attempt 1.
    assert (replay.compared, replay.equal) == ((1, 1) if other else (4, 4)), "attempt 1 was another training"


def event_line(step: int, loss: float) -> str:
    """A line of an event file, as far as it matters here."""
    event = {"v": 1, "seq": step, "t": 0.0, "kind": "metrics", "stage": "match", "step": step, "global_step": step}
    return json.dumps({**event, "values": {"loss": loss}}) + "\n"


REFUSED: dict[str, dict[str, Any]] = {
    "its data do not fit": {"runtime__memory_budget_gib": 1e-9, "runtime__data_cache": "none"},
    "its weights are gone": {"model__weights": "nowhere.safetensors"},
    "its network is another": {"model__width": 0.5},
}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("why", REFUSED)
def test_losses_are_compared_over_attempts_that_were_refused(
    runner: Runner, make_recipe: Make, why: str, times: int
) -> None:
    """They trained nothing: what goes on after them repeats the losses of the attempt before them."""
    break_down_at(runner, make_recipe(**LITTLE), 5)
    for _ in range(times):
        with pytest.raises(EngineError):
            runner.train(make_recipe(**LITTLE, **REFUSED[why]))
    assert runner.train(make_recipe(**LITTLE)) == "succeeded"
    assert runner.events(times + 2)[0]["values"]["resumed_step"] == 3
    assert replayed(runner) == {"replayed": 2, "replayed_equal": 2, "replayed_worst": 0.0}


def test_losses_that_an_attempt_repeated_before_it_was_stopped_count(runner: Runner, make_recipe: Make) -> None:
    """Only the attempt that finishes a stage tells of losses that were computed again, by whichever attempt."""
    break_down_at(runner, make_recipe(**LITTLE), 5)
    assert runner.train(make_recipe(**LITTLE), stop=at("match", 7)) == "stopped"
    assert runner.train(make_recipe(**LITTLE)) == "succeeded"
    assert runner.events(3)[0]["values"]["resumed_step"] == 7
    assert replayed(runner) == {"replayed": 2, "replayed_equal": 2, "replayed_worst": 0.0}


LITTLE = {"proxy": None, "segment": None, "evaluate": None, "match__steps": 8, "runtime__checkpoint_every": 3}


def break_down_at(runner: Runner, recipe: Recipe, step: int) -> None:
    """An attempt that ends behind its last checkpoint."""

    def breaks_down(events: list[dict[str, Any]]) -> bool:
        if at("match", step)(events):
            raise ConnectionError("a test says so")
        return False

    with pytest.raises(ConnectionError):
        runner.train(recipe, stop=breaks_down)


def replayed(runner: Runner) -> dict[str, float]:
    """What the finished stage tells of losses that were computed again."""
    (finished,) = runner.kind("stage_finished")
    return {key: value for key, value in finished["values"].items() if key.startswith("replayed")}


def test_replay_first_difference_is_told_once(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(proxy=None, segment=None, evaluate=None))
    replay = Replay(runner.run_dir, 2, "match", 0)
    assert "the loss of step 1 is 9" in replay.compare(1, 9.0)
    assert replay.compare(2, 9.0) == ""
    assert (replay.compared, replay.equal) == (2, 0)


# ---- real processes ------------------------------------------------------------------------------------------------

LONG = {"proxy__steps": 30, "match__steps": 40, "segment__steps": 60, "segment__eval_every": 25}


@pytest.mark.slow
def test_process_killed_in_every_stage_and_stopped_once_equals_the_run_that_was_not(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    recipe = make_recipe(**LONG, runtime__checkpoint_every=7)
    code, _, err = another_runner.finish(recipe, "--quiet")
    assert code == 0, err
    for stage, step in (("proxy", 9), ("match", 16), ("segment", 24)):
        assert runner.kill_at(recipe, signal.SIGKILL, stage, step) == -signal.SIGKILL
    assert runner.kill_at(recipe, signal.SIGTERM, "segment", 40) == 143
    assert runner.events(4)[-1]["values"] == {"status": "stopped"}
    stopped_at = runner.kind("checkpoint")[-1]["step"]
    code, _, err = runner.finish(recipe, "--quiet")
    assert code == 0, err
    assert_equal_runs(runner, another_runner)
    assert_no_gap_in_seq(runner)
    assert runner.kind("run_started")[4]["values"]["resumed_step"] == stopped_at >= 40
    replayed = [e["values"] for e in runner.kind("stage_finished") if e["values"]["replayed"]]
    assert replayed and all(v["replayed"] == v["replayed_equal"] for v in replayed)
    assert runner.kind("warning") == []


def test_checkpoint_that_tells_of_no_opencv_was_made_without(
    runner: Runner, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(proxy=None, segment=None, evaluate=None)
    runner.train(recipe, stop=at("match", 1))
    (file,) = (runner.run_dir / "checkpoints" / "match").glob("step_*/meta.json")
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "opencv"}))
    for version, count in (("4.13", 1), ("", 0)):
        monkeypatch.setattr("engine.resume.opencv_version", lambda version=version: version)
        found = find_position(recipe, runner.run_dir).warnings
        assert len([text for text in found if "made without OpenCV, now there is 4.13" in text]) == count
