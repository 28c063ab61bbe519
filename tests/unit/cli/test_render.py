"""Tables of the command line."""

from __future__ import annotations

import pytest

from mmtui.cli import render
from mmtui.domain.views import ClassRow, ClassTable


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
