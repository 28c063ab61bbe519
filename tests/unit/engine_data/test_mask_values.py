"""What values of masks look like: the likely cause is named, and the conversion that is named restores the classes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.__main__ import main
from engine.config.schema import FolderData
from engine.data.check import DataReport, summarise
from engine.data.mask_values import likely_cause
from engine.data.pairs import plain_meaning
from engine.data.registry import build_data
from engine.errors import DataError

Values = NDArray[np.int64]
Did = Callable[[Values, int], Values]
DONE: dict[str, Did] = {
    "from one": lambda index, _: index + 1,
    "stretched, down": lambda index, count: np.floor(index * 255 / (count - 1)).astype(int),
    "stretched, up": lambda index, count: np.ceil(index * 255 / (count - 1)).astype(int),
    "times ten": lambda index, _: index * 10,
    "times two": lambda index, _: index * 2,
}
"""What people do to class indices before they write them."""
WORDS = {"from one": "counted from 1", "stretched, down": "stretched to 0-255", "stretched, up": "stretched to 0-255"}


@given(st.sampled_from(sorted(DONE)), st.integers(2, 20), st.booleans(), st.data())
def test_conversion_that_is_named_restores_the_classes(done: str, count: int, void: bool, data: st.DataObject) -> None:
    """Void is written as 255, where that is left for it. All classes but a few occur, the last of them always."""
    missing = data.draw(st.sets(st.integers(0, count - 2), max_size=count // 2 - 1))
    truth = np.array([index for index in range(count) if index not in missing])
    written = DONE[done](truth, count)
    meaning = plain_meaning(count, (255,))
    with_void = [*written.tolist(), *([255] if void and "stretched" not in done else [])]
    cause = likely_cause(with_void, meaning, count)
    if all(meaning[value] >= 0 for value in with_void) and not (count == 2 and set(with_void) == {0, 255}):
        assert cause is None
        return
    assert cause is not None and WORDS.get(done, "multiplied by") in cause.text
    # Where few classes occur, another step than was taken may fit as well: 0, 2 and 4 may be 0, 4 and 8 times a half.
    factor = math.gcd(*truth.tolist()) if "times" in done else 1
    assert [cause.becomes[value] * factor for value in written.tolist()] == truth.tolist()


@given(st.integers(1, 255), st.data())
def test_values_that_are_right_have_no_cause(count: int, data: st.DataObject) -> None:
    void = data.draw(st.sets(st.integers(count, 255), max_size=3))
    values = data.draw(st.sets(st.sampled_from([*range(count), *void]), min_size=1))
    if not (count == 2 and values == {0, 255}):
        assert likely_cause(values, plain_meaning(count, sorted(void)), count) is None


@given(st.integers(2, 40), st.integers(1, 30))
def test_classes_that_lack_a_name_are_no_shift_and_no_step(count: int, more: int) -> None:
    """0, 1, 2, ... beyond the classes file: names are missing."""
    values = range(count + more)
    assert likely_cause(values, plain_meaning(count, (255,)), count) is None
    assert likely_cause([*values, 255], plain_meaning(count, (255,)), count) is None


def test_few_values_are_no_evidence() -> None:
    meaning = plain_meaning(12, (255,))
    for values in ({0, 20}, {12}, {0, 255, 232}, {3, 12}):
        assert likely_cause(values, meaning, 12) is None


def data_of(root: Path, names: list[str], masks: dict[str, list[int]]) -> FolderData:
    """A data set whose masks hold these values, by their name: ``train0``, ``val1``."""
    for number, (name, values) in enumerate(masks.items()):
        split = name.rstrip("0123456789")
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        row = np.resize(np.array(values, np.uint8), (4, 12))
        Image.fromarray(row).save(root / f"labels/{split}/{name}.png")
        Image.fromarray(np.stack([row, row, np.full_like(row, number)], axis=2)).save(
            root / f"images/{split}/{name}.png"
        )
    (root / "classes.txt").write_text("\n".join(names))
    return FolderData(root=str(root))


def only_problem(report: DataReport) -> str:
    assert len(report.problems) == 1
    return report.problems[0]


def test_binary_masks_of_two_classes_are_told_and_not_called_sound(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["sky", "road"], {"train0": [0, 255], "train1": [255], "val0": [0, 255]})
    problem = only_problem(summarise(config))
    assert problem == (
        "all masks hold 0 and 255 alone, and 255 means void: class indices look stretched to 0-255:"
        " write 0, 1 for 0, 255, or set 'data.label_map={255: 1}'."
    )
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {kind: folder}\nsegment: {steps: 1}\n")
    assert main(["check-data", str(recipe), "--set", f"data.root={tmp_path}"]) == 1


def test_binary_masks_that_say_what_255_is_are_told_the_same(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["sky", "road"], {"train0": [0, 255], "val0": [0]}).model_copy(
        update={"void_labels": ()}
    )
    assert "write 0, 1 for 0, 255" in only_problem(summarise(config))
    with pytest.raises(
        DataError,
        match=r"look stretched to 0-255: write 0, 1 for 0, 255; if that is not so, if 255 means",
    ):
        build_data(config, "train")


@pytest.mark.parametrize("values", [[0, 127, 255], [0, 128, 255]])
def test_stretched_masks_are_told_in_one_sentence(tmp_path: Path, values: list[int]) -> None:
    config = data_of(
        tmp_path, ["a", "b", "c"], {"train0": values, "train1": [0, 255], "train2": values[1:], "val0": values}
    )
    problem = only_problem(summarise(config))
    assert problem.startswith(f"3 masks hold values of {values[1]} but there are 3 classes (0 to 2): ")
    mapped = f"{{{values[1]}: 1, 255: 2}}"
    assert (
        problem.endswith(f"write 0, 1, 2 for 0, {values[1]}, 255, or set 'data.label_map={mapped}'.")
        and "add the class" not in problem
    )


def test_masks_that_count_from_one_are_told_by_all_of_them(tmp_path: Path) -> None:
    """No mask alone says it: one lacks the last class, one the first."""
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [1, 2], "train1": [3, 255], "val0": [2, 3]})
    problem = only_problem(summarise(config))
    assert problem.startswith("2 masks hold values of 3 but there are 3 classes (0 to 2): classes look counted from 1")
    assert "subtract 1 from every value but void" in problem and "add the class" not in problem
    zero_is_void = config.model_copy(update={"void_labels": (0, 255)})
    assert "counted from 1" in only_problem(summarise(zero_is_void))


def test_masks_that_are_multiplied_are_told_the_factor(tmp_path: Path) -> None:
    config = data_of(tmp_path, list("abcd"), {"train0": [0, 50, 100, 255], "val0": [150, 50]})
    problem = only_problem(summarise(config))
    assert "2 masks hold values of 50, 100, 150" in problem and "divide every value but void by 50" in problem


def test_other_problems_stay_beside_the_cause(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [1, 2], "train1": [3, 1], "val0": [2, 3], "val1": [1]})
    (tmp_path / "labels/val/val1.png").unlink()
    problems = summarise(config).problems
    assert len(problems) == 2 and "val1.png has no mask" in problems[0] and "counted from 1" in problems[1]


NO_CAUSE = "no one conversion fits the values of all masks"


def test_values_without_a_joint_cause_are_told_in_one_sentence_that_guesses_nothing(tmp_path: Path) -> None:
    """One mask alone looks multiplied by 3 (0, 3), another counted from 1: the others say that neither is so."""
    masks = {"train0": [0, 1, 7], "train1": [0, 3], "train2": [1, 3], "val0": [2]}
    config = data_of(tmp_path, ["a", "b", "c"], masks)
    problem = only_problem(summarise(config))
    assert problem == (
        f"3 masks hold values of 3, 7 but there are 3 classes (0 to 2), and {NO_CAUSE} (0, 1, 2, 3, 7): if they mean"
        " void, set data.void_labels to [255, 3, 7]; else say what they mean with data.label_map, or add classes to"
        f" the classes file. 3 is in {tmp_path}/labels/train/train1.png and 1 more (48 pixels), 7 in"
        f" {tmp_path}/labels/train/train0.png (16 pixels)."
    )


def test_one_value_without_a_joint_cause_is_told_with_its_remedy(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [0, 1, 2], "train1": [0, 3], "val0": [2]})
    problem = only_problem(summarise(config))
    assert problem.startswith(f"1 mask holds the value 3 but there are 3 classes (0 to 2), and {NO_CAUSE} (0, 1, 2, 3)")
    assert "set data.void_labels to [255, 3]" in problem and "multiplied" not in problem
    assert problem.endswith(f"3 is in {tmp_path}/labels/train/train1.png (24 pixels).")


@given(st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=2, max_size=4))
def test_joint_sentence_is_true_of_every_mask(several: list[set[int]]) -> None:
    """Whatever values masks hold: at most one sentence about them, and a conversion in it makes classes of all."""
    with tempfile.TemporaryDirectory() as folder:
        masks = {f"{'train' if n else 'val'}{n}": sorted(values) for n, values in enumerate(several)}
        found = summarise(data_of(Path(folder), list("abcd"), masks))
    wrong = {value for values in several for value in values if value > 3}
    told = [text for text in found.problems if "but there are" in text]
    assert len(told) == bool(wrong)
    joint = likely_cause({value for values in several for value in values}, plain_meaning(4, (255,)), 4)
    assert not told or (joint is None) == (" look " not in told[0])


def test_one_mask_that_looks_like_nothing_keeps_its_own_sentence(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [0, 1, 2], "train1": [0, 1, 7], "val0": [2]})
    assert "holds the value 7 (16 pixels, 33.3 %) but there are" in only_problem(summarise(config))


def test_wrong_values_of_masks_whose_recipe_says_what_they_mean_stay_told_mask_by_mask(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [0, 1, 7], "train1": [0, 3], "val0": [2]})
    mapped = config.model_copy(update={"label_map": {"2": "a"}})
    assert len(summarise(mapped).problems) == 2


def test_values_of_the_map_that_no_mask_holds_are_told(tmp_path: Path) -> None:
    config = data_of(tmp_path, ["a", "b", "c"], {"train0": [0, 1, 100], "val0": [0, 2]})
    for mapped, words in (
        ({"100": 2, "7": 1, "9": "void"}, "data.label_map speaks of 7 and 9, which no mask holds."),
        ({"100": 2, "255": 1}, "data.label_map speaks of 255, which no mask holds."),
        ({"100": 2, "2": 1}, ""),
    ):
        report = summarise(config.model_copy(update={"label_map": mapped}))
        assert not report.problems
        assert [text for text in report.warnings if "label_map" in text] == ([words] if words else [])
    (tmp_path / "labels/val/val0.png").write_bytes(b"no picture")
    report = summarise(config.model_copy(update={"label_map": {"100": 2, "2": 1}}))
    assert "data.label_map speaks of 2, which no mask that can be read holds." in report.warnings
