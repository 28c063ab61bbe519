"""What an evaluation counts does not depend on which images lie in a batch, nor on how processes share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.config import Recipe
from engine.events import attempt_numbers
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks

VOID, STEPS = 255, 24
TIES = 4
"""Pixels whose best two scores may be as good as equal: another number of images in a pass rounds otherwise."""
SIZES = [(40, 56), (24, 24), (40, 56), (33, 47), (56, 40)]


def save_pair(root: Path, split: str, name: str, mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    picture = np.stack([np.minimum(mask, 3) * 80, np.full_like(mask, 40), 255 - np.minimum(mask, 3) * 60], axis=2)
    for part, pixels in (("images", picture), ("labels", mask)):
        (root / part / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / part / split / f"{name}.png")


def write_data(root: Path) -> None:
    rng = np.random.default_rng(5)
    for split, sizes in (("train", [(48, 48)] * 4), ("val", SIZES)):
        for index, (height, width) in enumerate(sizes):
            cells = rng.integers(0, 3, (7, 7), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            save_pair(root, split, f"{split}_{index}", cells[:height, :width].copy())
    (root / "classes.txt").write_text("sky\nroad\ncar\n")


def recipe_of(root: Path, head: str, **changes: Any) -> Recipe:
    model = {"backbone": "resnet18", "width": 0.125, "head_channels": 8, "head": head, "dilated": head != "hypercolumn"}
    if head == "hypercolumn":
        model |= {"fc_channels": 0, "extra_channels": 0}
    segment = {"steps": STEPS, "batch_size": 2, "crop": 48, "optim": {"lr": 0.05, "milestones": []}}
    data = {"kind": "folder", "root": str(root)}
    return tiny_recipe(data=data, model=model, segment=segment, proxy=None, match=None, **changes)


def matrix_of(run_dir: Path) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The newest confusion matrix of the stage ``evaluate``, and how many images it is of."""
    told = [event for event in Runner(run_dir).events(attempt_numbers(run_dir)[-1]) if event["kind"] == "confusion"]
    return np.array(told[-1]["values"]["matrix"], dtype=np.int64)


def evaluated_again(run_dir: Path, recipe: Recipe, fork: Path, processes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The matrix of a finished run's network by another recipe's evaluation."""
    code, told = Ranks(recipe, fork, processes, "", "--from", f"{run_dir}@{STEPS}").finish()
    assert code == 0, told
    return matrix_of(fork)


@pytest.mark.parametrize("head", ["aspp", "fcn", "hypercolumn"])
def test_matrix_does_not_depend_on_batches_on_a_void_image_or_on_processes(tmp_path: Path, head: str) -> None:
    data, more = tmp_path / "data", tmp_path / "more"
    write_data(data)
    write_data(more)
    save_pair(more, "val", "val_9", np.full((144, 144), VOID, dtype=np.uint8))
    alone = recipe_of(data, head, evaluate={"batch_size": 1})
    assert Runner(tmp_path / "run").train(alone) == "succeeded"
    expected = matrix_of(tmp_path / "run")
    assert expected.sum() == sum(height * width for height, width in SIZES)
    assert (expected.sum(axis=0) > TIES).sum() > 1, "one answer would prove nothing"
    for root, batch_size, processes in ((data, 5, 1), (more, 6, 1), (data, 2, 2), (more, 3, 2)):
        recipe = recipe_of(root, head, evaluate={"batch_size": batch_size})
        copy = tmp_path / f"{root.name} {batch_size} {processes}"
        found = evaluated_again(tmp_path / "run", recipe, copy, processes)
        assert np.abs(found - expected).sum() <= 2 * TIES, (root.name, batch_size, processes)
