"""Figures of runs: which are drawn, under which names, and that a viewer can read them. Pictures: test_pictures.py."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmtui.paths import Home
from mmtui.services import svg

Invoke = Callable[..., Any]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.processes
def test_figures_of_a_run_are_curves_and_what_its_match_stage_drew(
    populated: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    images = populated.run("1").root / "images"
    images.mkdir()
    (images / "match_patches.png").write_bytes(b"a sheet")
    made = [Path(line).name for line in mmtui_("figures", "1", "-o", str(tmp_path / "f")).out.splitlines()]
    assert made == ["patches.png", "loss_segment.svg"]
    assert (tmp_path / "f" / "patches.png").read_bytes() == b"a sheet"
    root = ElementTree.fromstring((tmp_path / "f" / "loss_segment.svg").read_text())
    assert root.tag == f"{SVG}svg" and root.get("width") == str(svg.WIDTH)
    (line,) = root.iter(f"{SVG}polyline")
    assert len(line.get("points", "").split()) == 4, "four steps were logged"


@pytest.mark.processes
def test_graph_sizes_are_compared_where_there_are_two(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    connection = sqlite3.connect(populated.database)
    for run_id, patches, miou in ((1, 5, 40.0), (2, 10, 44.0)):
        config = json.dumps({"match": {"images": 20, "patches_per_image": patches}})
        connection.execute(
            "UPDATE runs SET config = ?, miou = ?, state = 'succeeded' WHERE id = ?", [config, miou, run_id]
        )
        connection.execute(
            "UPDATE stages SET name = 'match', started_at = 0, ended_at = ? WHERE run_id = ? AND position = 0",
            [60.0 * patches, run_id],
        )
    connection.commit()
    connection.close()
    mmtui_("figures", "1", "-o", str(tmp_path / "one"))
    assert not list((tmp_path / "one").glob("graph_size*")), "one size compares with nothing"
    assert mmtui_("figures", "1", "2", "-o", str(tmp_path / "two")).code == 0
    drawn = {name: (tmp_path / "two" / f"graph_size_{name}.svg").read_text() for name in ("miou", "time")}
    for text in drawn.values():
        assert len(list(ElementTree.fromstring(text).iter(f"{SVG}circle"))) == 2
    assert ">100<" in drawn["miou"] and ">200<" in drawn["miou"], "nodes of the graph on the axis"
    assert ">44<" in drawn["miou"] and ">10<" in drawn["time"], "percent, and minutes"


def test_figures_of_a_run_that_has_not_begun_are_refused(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    found = mmtui_("figures", "3", "-o", str(tmp_path / "f"))
    assert (found.code, found.out) == (4, "") and "nothing to draw yet" in found.err
    assert mmtui_("figures", "1", "-o", "/proc/no").code == 3


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=8))
@example([(0.0, 1.7976931348623157e308), (1.0, -1.7976931348623157e308)])
@example([(0.0, 5e-324), (5e-324, 0.0)])
@example([(1e300, 1e300)])
def test_chart_of_any_numbers_is_drawn_within_its_picture(points: list[tuple[float, float]]) -> None:
    drawn = svg.chart("loss", [("one", points)])
    known = [point for point in points if all(map(math.isfinite, point))]
    assert bool(drawn) == bool(known)
    if known:
        root = ElementTree.fromstring(drawn)
        (line,) = root.iter("polyline")
        places = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
        assert len(places) == len(known)
        assert all(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT for x, y in places)
        assert len(list(root.iter("text"))) < 30
