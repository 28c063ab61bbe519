"""Tables of the command line."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtui.cli import jsonform, render, watching
from mmtui.domain.views import ClassRow, ClassTable, RunRow


def evaluated(run: str, **ious: float | None) -> ClassTable:
    known = [iou for iou in ious.values() if iou is not None]
    rows = tuple(ClassRow(number, name, iou, None, 100 + number) for number, (name, iou) in enumerate(ious.items()))
    return ClassTable(run, 1, "evaluate", len(known), sum(known) / len(known), rows, ())


def test_class_comparison_of_two_has_a_difference_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    tables = [evaluated("1", sky=0.5, road=None), evaluated("2", sky=0.25, road=0.75)]
    render.class_comparison(["one", "two"], tables, ("elapsed", "3s", "4s"))
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert cells[0] == ["class", "(IoU", "%)", "one", "two", "difference", "pixels"]
    assert cells[1:] == [
        ["sky", "50.0", "25.0", "-25.0", "100"],
        ["road", "-", "75.0", "-", "101"],
        ["mean", "IoU", "50.0", "50.0", "+0.0"],
        ["elapsed", "3s", "4s"],
    ]


def test_class_comparison_of_three_tells_means_apart_from_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    tables = [evaluated("1", sky=0.5), evaluated("2", sky=0.25, road=0.5), evaluated("3", sky=0.75)]
    render.class_comparison(["one", "two", "three"], tables, ("elapsed", "3s", "4s", "5s"))
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert cells[0] == ["class", "(IoU", "%)", "one", "two", "three", "pixels"]
    assert cells[1:] == [
        ["sky", "50.0", "25.0", "75.0", "100"],
        ["road", "-", "50.0", "-", "101"],
        ["mean", "IoU", "50.0", "37.5", "75.0"],
        ["difference", "-12.5", "+25.0"],
        ["elapsed", "3s", "4s", "5s"],
    ]


# ---- numbers of foreign runs ---------------------------------------------------------------------------------------


@given(st.floats(), st.integers(0, 60))
@example(1e9, 20)
def test_bar_has_its_width_whatever_the_share(share: float, width: int) -> None:
    assert len(render.bar(share, width)) == width
    if 0 <= share <= 1:
        assert sum(mark in "#█" for mark in render.bar(share, width)) == round(share * width)


@given(st.one_of(st.floats(), st.floats(0, 1)))
def test_percent_is_short_and_not_zero_for_what_is_not(share: float) -> None:
    text = render.percent(share)
    assert len(text) <= 12
    assert math.isnan(share) or (float(text) == 0) == (100 * share == 0)
    if 0.01 <= share <= 1:
        assert text == f"{100 * share:.1f}"


@given(st.lists(st.floats()))
@example([1.7e308, -1.7e308, 0.0])
@example([5e-324, 0.0])
def test_sparkline_has_a_mark_for_each_value(values: list[float]) -> None:
    drawn = watching.sparkline(values)
    finite = [value for value in values if math.isfinite(value)]
    assert len(drawn) == (len(values) if finite else 0)
    assert all((mark == " ") != math.isfinite(value) for mark, value in zip(drawn, values, strict=False))


def foreign(run_id: str, number: float) -> RunRow:
    return RunRow(
        id=run_id,
        name="foreign",
        recipe="",
        state="running",
        reason="",
        stage="train",
        progress=number,
        created_at=number,
        started_at=number,
        ended_at=number,
        seed=0,
        gpus=(),
        tags=(),
        metrics={"miou": number, "loss": number},
    )


@given(st.one_of(st.floats(), st.sampled_from([1.7e12, -1e18, 1e308, -1e308, 5e-324])))
def test_one_run_with_any_numbers_takes_no_table_down(number: float) -> None:
    assert jsonform.run(foreign("2", number))["id"] == "2"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        render.runs_table([foreign("1", 0.5), foreign("2", number)], 1.8e9)
        render.document({"runs": [jsonform.run(foreign("2", number))]})
    assert all(len(line) < 120 for line in printed[0].splitlines())
