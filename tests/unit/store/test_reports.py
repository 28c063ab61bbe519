"""The paper's tables: every row is a recipe, means are means, trials do not count."""

from __future__ import annotations

import sqlite3

import pytest

from mmtui.paths import Home
from mmtui.services import queue, recipes, reports

# Typed from the paper's tables (authors' slides): label of a row -> published mean IoU, percent, or (val, test).
PUBLISHED: dict[str, dict[str, float | tuple[float, float]]] = {
    "1": {
        "ImageNet, VGG-16": 64.2,
        "Random, VGG-16": 35.0,
        "Larsson et al. 2016, VGG-16": 50.2,
        "Larsson et al. 2017, VGG-16": 56.0,
        "M&M graph, colorization, VGG-16": 64.5,
        "ImageNet, AlexNet": 48.0,
        "Random, AlexNet": 23.5,
        "Krähenbühl et al. 2015 (k-means), AlexNet": 32.6,
        "Pathak et al. 2016, AlexNet": 29.7,
        "Donahue et al. 2016 (BiGAN), AlexNet": 35.2,
        "Zhang et al. 2016a (colorization), AlexNet": 35.6,
        "Zhang et al. 2016b (split-brain), AlexNet": 36.0,
        "Noroozi & Favaro 2016 (jigsaw), AlexNet": 37.6,
        "Larsson et al. 2017, AlexNet": 38.4,
        "M&M random triplets, colorization, AlexNet": 40.9,
        "M&M graph, colorization, AlexNet": 42.8,
        "M&M graph, random, AlexNet": 43.6,
    },
    "2": {"ImageNet": 64.2, "Colorization": 60.2, "M&M": 64.5, "Ensemble ImageNet + M&M": 67.4},
    "3": {
        "VOC, AlexNet, random: baseline": 19.8,
        "VOC, AlexNet, random: M&M": 43.6,
        "VOC, AlexNet, jigsaw: baseline": 36.5,
        "VOC, AlexNet, jigsaw: M&M": 41.2,
        "VOC, AlexNet, colorization: baseline": 38.4,
        "VOC, AlexNet, colorization: M&M": 42.8,
        "VOC, AlexNet, imagenet: baseline": 48.0,
        "VOC, VGG16, random: baseline": 35.0,
        "VOC, VGG16, random: M&M": 56.7,
        "VOC, VGG16, colorization: baseline": 60.2,
        "VOC, VGG16, colorization: M&M": (64.5, 64.3),
        "VOC, VGG16, imagenet: baseline": 64.2,
        "Cityscapes, VGG16, random: baseline": 42.5,
        "Cityscapes, VGG16, random: M&M": 49.1,
        "Cityscapes, VGG16, colorization: baseline": 57.5,
        "Cityscapes, VGG16, colorization: M&M": (66.4, 65.6),
        "Cityscapes, VGG16, imagenet: baseline": 67.9,
    },
    "graph size": {"100 nodes": 42.0, "200 nodes": 42.4, "400 nodes": 42.8},
}
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
PER_CLASS = {
    "ImageNet": [
        81.7, 37.4, 73.3, 55.8, 59.6, 82.4, 74.7, 82.4, 30.8, 60.3,
        46.1, 71.4, 65.3, 72.6, 76.7, 49.7, 70.6, 34.2, 72.7, 60.2,
    ],
    "Colorization": [
        73.6, 28.5, 67.5, 55.5, 50.2, 78.3, 66.1, 78.3, 26.8, 60.8,
        50.6, 70.6, 64.9, 62.2, 73.5, 38.2, 66.8, 38.8, 68.1, 55.1,
    ],
    "M&M": [
        83.1, 37.0, 69.6, 56.1, 62.9, 84.4, 76.4, 82.8, 33.4, 61.5,
        44.7, 67.3, 68.5, 68.0, 78.5, 42.2, 72.7, 37.2, 75.7, 58.6,
    ],
    "Ensemble ImageNet + M&M": [
        84.5, 39.4, 76.3, 60.3, 64.6, 85.4, 77.7, 84.1, 35.6, 63.6,
        50.4, 70.6, 72.0, 73.6, 80.1, 50.2, 73.7, 37.6, 77.8, 66.6,
    ],
}  # fmt: skip
QUOTED = ("Larsson", "Krähenbühl", "Pathak", "Donahue", "Zhang", "Noroozi")
"""Numbers that the paper takes from others; no run here makes them."""


def finish(home: Home, run_id: str, miou: float) -> None:
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded', miou = ? WHERE id = ?", [miou, run_id])
    connection.commit()
    connection.close()


def test_every_number_of_the_tables_is_printed_once(home: Home) -> None:
    rows = list(reports.paper(home))
    found: dict[str, dict[str, float | tuple[float, float] | None]] = {}
    for row in rows:
        both = row.published if row.published_test is None else (row.published or 0.0, row.published_test)
        found.setdefault(row.table, {})[row.label] = both
    assert found == PUBLISHED and len(rows) == sum(map(len, PUBLISHED.values()))
    assert {number: list(labels) for number, labels in found.items()} == {
        n: list(rows) for n, rows in PUBLISHED.items()
    }
    names = {view.name for view in recipes.list_recipes(home)}
    assert {row.label for row in rows if not row.recipe} == {
        label for label in PUBLISHED["1"] if label.startswith(QUOTED)
    }
    assert all(row.recipe in names or not row.recipe for row in rows)
    assert all(row.runs == 0 and row.measured is None for row in rows)


def test_every_number_of_the_classes_is_in_the_recipes(home: Home) -> None:
    table = {row.label: row.recipe for row in reports.paper(home) if row.table == "2"}
    assert table.keys() == PER_CLASS.keys()
    for label, numbers in PER_CLASS.items():
        reference = recipes.resolve(table[label], (), home).reference
        assert reference.per_class == dict(zip(CLASSES, numbers, strict=True)), label
        assert reference.miou == PUBLISHED["2"][label], label


def test_recipes_say_a_published_number_that_stands_in_a_table(home: Home) -> None:
    """A recipe of several rows has one of their numbers; none has a number of no row."""
    theirs: dict[str, set[object]] = {}
    for row in reports.paper(home):
        number = PUBLISHED[row.table][row.label]
        theirs.setdefault(row.recipe, set()).add(number[0] if isinstance(number, tuple) else number)
    for view in recipes.list_recipes(home):
        assert view.reference_miou in theirs.get(view.name, {None}), view.name


def test_measured_is_the_mean_of_full_runs_alone(home: Home) -> None:
    for miou in (40.0, 44.0):
        finish(home, queue.enqueue(home, "voc_alexnet_random_mixmatch", hold=True), miou)
    finish(home, queue.enqueue(home, "voc_alexnet_random_mixmatch", ["segment.steps=3"], hold=True), 1.0)
    queue.enqueue(home, "voc_alexnet_random_mixmatch", hold=True)
    (row, _) = [row for row in reports.paper(home) if row.recipe == "voc_alexnet_random_mixmatch"]
    assert (row.measured, row.runs, row.published) == (42.0, 2, 43.6)
    assert row.spread == pytest.approx(2.828, abs=1e-3)
