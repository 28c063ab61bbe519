"""Labels are looked at before the first stage trains: refused, or doubts are told with the run's first events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config.schema import Recipe
from engine.errors import DataError
from engine.events import EventWriter
from engine.stages import Context
from tests.unit.engine_run.conftest import Runner

Make = Callable[..., Recipe]


def data_set(root: Path, train: tuple[int, ...], val: tuple[int, ...], shared: bool = False) -> dict[str, Any]:
    """Pictures of noise whose masks are stripes of these values."""
    for split, values in (("train", train), ("val", val)):
        for number in range(4):
            seed = number + (0 if split == "train" or (shared and number == 1) else 10)
            picture = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            mask = np.repeat(np.resize(np.array(values, np.uint8), 32)[None], 32, axis=0)
            for kind, pixels in (("images", picture), ("labels", mask)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{split}{number}.png")
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return {"kind": "folder", "root": str(root)}


@pytest.mark.parametrize("train, val, words", [
    ((255,), (0, 1), "every pixel of the train split is void (255), nothing would be learned"),
    ((0, 255), (0, 255),
     "every labelled pixel of the train split is of one class, 0 sky (50.0 % of all pixels are void)"),
    ((0, 1), (255,), "every pixel of the val split is void (255), nothing would be measured"),
])  # fmt: skip
def test_labels_that_teach_or_measure_nothing_end_the_run_before_any_step(
    runner: Runner, make_recipe: Make, tmp_path: Path, train: tuple[int, ...], val: tuple[int, ...], words: str
) -> None:
    recipe = make_recipe(data=data_set(tmp_path / "data", train, val))
    with pytest.raises(DataError) as caught:
        runner.train(recipe)
    assert words in str(caught.value)
    assert not runner.kind("metrics") and not runner.kind("stage_started")


def test_doubts_come_with_the_first_events_and_are_about_supervision(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    data = data_set(tmp_path / "data", (0, 1, 255, 255, 255), (0,), shared=True)
    assert runner.train(make_recipe(data=data)) == "succeeded"
    told = [event["values"] for event in runner.kind("warning")]
    assert [one["text"] for one in told] == [
        "no pixel of the train split is of class 2 car: it cannot be learned",
        "56.2 % of the pixels of the train split are void: nothing is learned from them",
        "every labelled pixel of the val split is of class 0 sky: the score measures one class",
        "1 of 4 pictures of the val split are in the train split too, the score is too good: val1.png",
    ]
    assert {one["about"] for one in told} == {"supervision"}
    kinds = [event["kind"] for event in runner.events()]
    assert max(n for n, kind in enumerate(kinds) if kind == "warning") < kinds.index("stage_started")


def test_good_labels_raise_no_doubt(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    assert runner.train(make_recipe(data=data_set(tmp_path / "data", (0, 1, 2, 255), (0, 1, 2)))) == "succeeded"
    assert not runner.kind("warning")


def test_proxy_task_alone_asks_for_no_labels(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(data=data_set(tmp_path / "data", (255,), (255,)), match=None, segment=None, evaluate=None)
    assert runner.train(recipe) == "succeeded"


def attempt(
    one: Runner, recipe: Recipe, cache: Path, stop: Callable[[dict[str, Any]], bool] = lambda _newest: False, **how: Any
) -> tuple[str, list[str], list[list[str]]]:
    """How a run with a cache beside it ends, what it doubts, and the splits that it says it looks at again."""
    from engine.events import attempt_numbers
    from engine.loop import train

    number = max(attempt_numbers(one.run_dir), default=0) + 1
    writer = EventWriter.open_for_attempt(one.run_dir, number)
    ended = train(
        recipe, one.run_dir, writer, number, lambda: stop(one.events(number)[-1]), lambda _: None, cache, **how
    )
    writer.close()
    events = one.events(number)
    told = [event["values"]["text"] for event in events if event["values"].get("about") == "supervision"]
    return ended, told, [event["values"]["splits"] for event in events if event["kind"] == "supervision"]


NO_CAR = "no pixel of the train split is of class 2 car: it cannot be learned"
SKY_ALONE = "every labelled pixel of the val split is of class 0 sky: the score measures one class"
SHARED = "1 of 4 pictures of the val split are in the train split too, the score is too good: val1.png"


def in_segment(newest: dict[str, Any]) -> bool:
    return bool(newest["stage"] == "segment" and newest["step"] == 2)


def test_resumed_run_looks_at_what_it_still_reads(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    """Labels of the train split may have changed meanwhile; those of val are decoded again only if they did."""
    recipe, cache = make_recipe(data=data_set(tmp_path / "data", (0, 1), (0,))), tmp_path / "cache"
    assert attempt(runner, recipe, cache, in_segment) == ("stopped", [NO_CAR, SKY_ALONE], [])
    assert attempt(runner, recipe, cache, lambda newest: newest["step"] == 4) == ("stopped", [NO_CAR], [])
    data_set(tmp_path / "data", (1,), (0,))
    with pytest.raises(DataError, match="of one class, 1 road"):
        attempt(runner, recipe, cache)
    data_set(tmp_path / "data", (0, 1), (0,))
    anew = [NO_CAR, SKY_ALONE], [["train", "val"]]  # an attempt has said of other data what it doubts
    assert attempt(runner, recipe, cache) == ("succeeded", *anew)


def test_resumed_run_whose_val_split_changed_looks_at_it_again(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    recipe, cache = make_recipe(data=data_set(tmp_path / "data", (0, 1), (0, 1))), tmp_path / "cache"
    assert attempt(runner, recipe, cache, in_segment) == ("stopped", [NO_CAR], [])
    data_set(tmp_path / "data", (0, 1, 2), (0,), shared=True)
    ended, told, again = attempt(runner, recipe, cache)
    assert (ended, again) == ("succeeded", [["train", "val"]])
    assert told == [NO_CAR, SKY_ALONE, SHARED], "what it was trained on before is doubtful still"
    assert attempt(runner, recipe, cache) == ("succeeded", [NO_CAR], []), "nothing is left to be measured"


def test_resumed_run_that_does_not_know_its_data_looks_at_val_again(
    runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    """Without a cache data have no fingerprint."""
    recipe = make_recipe(data=data_set(tmp_path / "data", (0, 1), (0, 1, 2)))
    assert runner.train(recipe, stop=lambda events: in_segment(events[-1])) == "stopped"
    data_set(tmp_path / "data", (0, 1), (0,))
    runner.train(recipe)
    assert [event["values"]["text"] for event in runner.events(2) if event["kind"] == "warning"] == [NO_CAR, SKY_ALONE]


def test_fork_inside_a_stage_looks_at_its_own_val_and_takes_over_what_was_doubtful(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    recipe, cache = make_recipe(data=data_set(tmp_path / "data", (0, 1), (0, 1))), tmp_path / "cache"
    assert attempt(runner, recipe, cache, in_segment) == ("stopped", [NO_CAR], [])
    other = make_recipe(data=data_set(tmp_path / "other", (0, 1, 2), (0,)))
    ended, told, _ = attempt(another_runner, other, cache, fork=(runner.run_dir, None))
    assert (ended, told) == ("succeeded", [NO_CAR, SKY_ALONE])
    assert another_runner.kind("metrics", "segment") and not another_runner.kind("metrics", "match")


def test_who_takes_over_what_was_trained_takes_its_doubts_over(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    """A fork that only evaluates, and a run that begins with another one's match stage."""
    from engine.loop import train

    data = data_set(tmp_path / "data", (0, 1), (0, 1, 2))
    recipe = make_recipe(data=data, proxy=None, runtime__reuse_stages=True)
    cache = tmp_path / "cache"

    def begin(one: Runner, recipe: Recipe, **how: Any) -> list[str]:
        writer = EventWriter.open_for_attempt(one.run_dir, 1)
        assert train(recipe, one.run_dir, writer, 1, lambda: False, lambda _line: None, **how) == "succeeded"
        writer.close()
        return [event["values"]["text"] for event in one.kind("warning")]

    expected = ["no pixel of the train split is of class 2 car: it cannot be learned"]
    assert begin(runner, recipe, cache=cache) == expected
    data_set(tmp_path / "data", (0, 1, 2), (0, 1, 2))
    changed = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"flip": True})})  # type: ignore
    assert begin(another_runner, changed, fork=(runner.run_dir, None)) == expected
    assert not another_runner.kind("metrics", "segment")
    data_set(tmp_path / "data", (0, 1), (0, 1, 2))
    meta = next(cache.rglob("meta.json"))
    hostile = {**json.loads(meta.read_text()), "doubts": ["graphs of one class", 5, "x" * 5000, None]}
    meta.write_text(json.dumps(hostile))
    third = Runner(tmp_path / "third")
    told = begin(third, make_recipe(data=data, proxy=None, segment__steps=7), cache=cache)
    assert (
        third.kind("stage_reused") and told[0] == expected[0] and set(told) - set(expected) <= {"graphs of one class"}
    )


def test_run_can_leave_while_pictures_are_compared(runner: Runner, make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(data=data_set(tmp_path / "data", (0, 1, 2), (0, 1, 2)))
    for number in range(4):  # of one length in both splits
        for split in ("train", "val"):
            picture = Image.open(tmp_path / f"data/images/{split}/{split}{number}.png")
            picture.save(tmp_path / f"data/images/{split}/{split}{number}.bmp")
            (tmp_path / f"data/images/{split}/{split}{number}.png").unlink()

    def comparing(events: list[dict[str, Any]]) -> bool:
        return str(events[-1]["values"].get("text", "")).startswith("comparing pictures")

    assert runner.train(recipe, stop=comparing) == "stopped"
    assert not runner.kind("stage_started")
    assert runner.train(recipe) == "succeeded"


@pytest.mark.parametrize("memory", [0, 2])
def test_match_graphs_of_one_class_each_are_doubted_at_the_end(
    runner: Runner,
    another_runner: Runner,
    make_recipe: Make,
    tmp_path: Path,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each picture is of one class, and each graph of one picture; with a memory there is something to push away."""
    read = Context.data

    def of_one_class(self: Context, split: Any) -> Any:
        data = read(self, split)
        for number, labels in enumerate(data.labels):
            labels.copy_(torch.full_like(labels, number % 3))
        return data

    monkeypatch.setattr(Context, "data", of_one_class)
    data = data_set(tmp_path / "data", (0, 1, 2), (0, 1, 2))
    recipe = make_recipe(data=data, proxy=None, match__images=1, match__graphs=2, match__memory=memory)
    assert runner.train(recipe) == "succeeded"
    expected = (
        [] if memory else ["8 of 8 match graphs held patches of one class alone, or none: they pushed nothing apart"]
    )
    assert [event["values"]["text"].partition(";")[0] for event in runner.kind("warning")] == expected
    assert another_runner.train(recipe, stop=lambda events: events[-1]["step"] == 2) == "stopped"
    another_runner.train(recipe)
    assert [event["values"]["text"].partition(";")[0] for event in another_runner.kind("warning")] == expected
