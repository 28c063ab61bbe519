"""A quiet step waits for no GPU, launches no more operators than are written down, and leaves no tensor behind."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from engine.stages import pixel_losses
from engine.stages.segment import SegmentStage
from tests.discipline import (
    CASES,
    EVALUATIONS,
    OPERATORS,
    REASONS,
    REPORTS,
    Case,
    Evaluation,
    further_batch,
    live_after,
    quiet_step,
    row,
)
from tests.pretended_gpu import TO_HOST, VALUE, Count, Stall

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "discipline.md"
ENGINE = ROOT / "engine"
HINT = "python docs/make_discipline.py, and look at what has changed"


def make_discipline() -> Any:
    spec = importlib.util.spec_from_file_location("make_discipline", DOCUMENT.with_name("make_discipline.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_version() -> bool:
    """Whether the document was counted with this version of PyTorch."""
    told: str = make_discipline().told()["version"]
    return told in DOCUMENT.read_text()


def assert_known(count: Count) -> None:
    """Somebody has looked whether these operators wait."""
    assert not same_version() or {name for name, _ in count.launched} <= OPERATORS


def assert_written_down(name: str, count: Count) -> None:
    """The document tells of exactly this; of other versions of PyTorch that operators are not many more."""
    (written,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {name} |"))
    found = row(name, count)
    if same_version():
        assert found == written, HINT
        return
    (kinds, operators), (before, most) = (line.strip(" |").rsplit(" | ", 1) for line in (found, written))
    assert kinds == before and int(operators) <= 1.2 * int(most)


def test_document_tells_of_these_options_and_reasons_and_no_others() -> None:
    text = DOCUMENT.read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if re.search(r"\| \d+ \|$", line)]
    assert rows == [case.name for cases in (CASES, EVALUATIONS, REPORTS) for case in cases], HINT
    module = make_discipline()
    assert module.updated(text, {"reasons": module.told()["reasons"]}) == text, HINT


def test_reasons_are_given_for_functions_that_there_are() -> None:
    for place in REASONS:
        module, function = place.split(":")
        assert f"def {function}(" in (ENGINE / module).read_text(), place


def test_count_that_differs_from_the_document_would_be_seen() -> None:
    name = CASES[0].name
    with pytest.raises(AssertionError):
        assert_written_down(name, Count(launched=Counter({("add", ""): 9999})))
    with pytest.raises(AssertionError):
        assert_written_down(name, Count([Stall(VALUE, "item")]))
    if same_version():
        with pytest.raises(AssertionError):
            assert_known(Count(launched=Counter({("add", ""): 1, ("multinomial", ""): 1})))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_quiet_step_waits_for_nothing_but_what_is_known(case: Case, tmp_path: Path) -> None:
    count = quiet_step(case, tmp_path)
    assert count.kinds() == {}, count.stalls
    assert count.kinds(beside=True) == case.beside, count.stalls
    assert {stall.place for stall in count.stalls} <= REASONS.keys()
    assert_written_down(case.name, count)
    assert_known(count)


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case.name)
def test_step_with_a_report_waits_as_often_as_is_written_down(case: Case, tmp_path: Path) -> None:
    assert_written_down(case.name, quiet_step(case, tmp_path))


@pytest.mark.parametrize("case", EVALUATIONS, ids=lambda case: case.name)
def test_evaluation_waits_at_its_end_and_for_files_alone(case: Evaluation, tmp_path: Path) -> None:
    more, end = further_batch(case, tmp_path)
    assert more.kinds() == case.stalls, more.stalls
    assert {stall.place for stall in more.stalls} <= REASONS.keys()
    assert end.kinds() == {TO_HOST: 1}, "the counts of all batches"
    assert_written_down(case.name, more)
    assert_known(more)


BY_NAME = {case.name: case for case in CASES}


def hidden_question(logits: Tensor, target: Tensor, valid: Tensor, *others: Any) -> Tensor:
    return pixel_loss(logits, target, valid, *others) if valid else logits.sum() * 0


pixel_loss = pixel_losses.pixel_loss


def test_offender_in_a_step_would_be_seen_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_losses, "pixel_loss", hidden_question)
    stalls = quiet_step(BY_NAME["segment, hypercolumn on tiny_vgg"], tmp_path).stalls
    assert stalls == [Stall(VALUE, "_local_scalar_dense", "stages/pixel_losses.py:__call__")]


# ---- what is left behind ---------------------------------------------------------------------------------------------


def assert_nothing_is_left(case: Case, folder: Path, first: int, last: int) -> None:
    before, after = live_after(case, folder, first, last)
    assert (after - before, before - after) == (Counter(), Counter()), "more of these, fewer of those"


SMALL = {"data__height": 16, "data__width": 16, "model__width": 0.125, "model__head": "fcn"}
FEW = {"match__images": 2, "match__patches_per_image": 2, "match__crop": 16, "match__memory": 2}
QUICK = [
    Case("proxy", "small", {**SMALL, "proxy__kind": "rotation", "proxy__crop": 16}),
    Case("match", "small", {**SMALL, **FEW}),
    Case("segment", "small", {**SMALL, "segment__crop": 16}),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.stage)
def test_a_thousand_steps_leave_no_tensor_behind(case: Case, tmp_path: Path) -> None:
    assert_nothing_is_left(case, tmp_path, 10, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_steps_leave_no_tensor_behind(case: Case, tmp_path: Path) -> None:
    assert_nothing_is_left(case, tmp_path, 10, 16)


def keeps_losses(stage: Any, loss: Tensor) -> None:
    stage.losses.append(loss.detach())


def adds_up_with_gradient(stage: Any, loss: Tensor) -> None:
    stage.losses[:] = [loss + sum(stage.losses)]


def keeps_cycles(stage: Any, loss: Tensor) -> None:
    around: list[Any] = [loss.detach()]
    around.append(around)


@pytest.mark.parametrize("leak", [keeps_losses, adds_up_with_gradient, keeps_cycles])
def test_leak_would_be_seen(leak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portion = SegmentStage._portion

    def leaking(stage: Any, *args: Any) -> Tensor:
        loss = portion(stage, *args)
        leak(stage, loss)
        return loss

    monkeypatch.setattr(SegmentStage, "losses", [], raising=False)
    monkeypatch.setattr(SegmentStage, "_portion", leaking)
    with pytest.raises(AssertionError, match="more of these"):
        assert_nothing_is_left(BY_NAME["segment, hypercolumn on tiny_vgg"], tmp_path, 10, 25)
