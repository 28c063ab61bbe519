"""The paper's tables: every row is a recipe, means are means, trials do not count."""

from __future__ import annotations

import sqlite3

import pytest

from mmtui.paths import Home
from mmtui.services import queue, recipes, reports


def finish(home: Home, run_id: str, miou: float) -> None:
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded', miou = ? WHERE id = ?", [miou, run_id])
    connection.commit()
    connection.close()


def test_every_row_is_a_recipe_with_the_published_number(home: Home) -> None:
    names = {view.name: view for view in recipes.list_recipes(home)}
    rows = list(reports.paper(home))
    assert len(rows) == 8 + 3 + 15 + 3
    assert all(row.recipe in names and row.runs == 0 and row.measured is None for row in rows)
    published = {(row.table, row.label): row.published for row in rows}
    assert published["2", "M&M"] == 64.5 and published["3", "Cityscapes, VGG16, random: baseline"] == 42.5
    assert published["graph size", "200 nodes"] == 42.4
    assert all(row.published is not None for row in rows)


def test_measured_is_the_mean_of_full_runs_alone(home: Home) -> None:
    for miou in (40.0, 44.0):
        finish(home, queue.enqueue(home, "voc_alexnet_random_mixmatch", hold=True), miou)
    finish(home, queue.enqueue(home, "voc_alexnet_random_mixmatch", ["segment.steps=3"], hold=True), 1.0)
    queue.enqueue(home, "voc_alexnet_random_mixmatch", hold=True)
    (row, _) = [row for row in reports.paper(home) if row.recipe == "voc_alexnet_random_mixmatch"]
    assert (row.measured, row.runs, row.published) == (42.0, 2, 43.6)
    assert row.spread == pytest.approx(2.828, abs=1e-3)
