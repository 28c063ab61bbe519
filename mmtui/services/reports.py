"""The paper's tables with what was measured here beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from mmtui.domain.states import RunState
from mmtui.paths import Home
from mmtui.services import recipes
from mmtui.store.reader import Reader

_COLUMNS = (
    ("VOC", "AlexNet", ("random", "jigsaw", "colorization")),
    ("VOC", "VGG16", ("random", "colorization")),
    ("Cityscapes", "VGG16", ("random", "colorization")),
)
_TABLE_3 = [
    (f"{data}, {network}, {start}: {words}", f"{data.lower()}_{network.lower()}_{start}_{tuning}")
    for data, network, starts in _COLUMNS
    for start in starts
    for words, tuning in (("baseline", "baseline"), ("M&M", "mixmatch"))
]
TABLES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "1": (
        "VOC 2012 val, mean IoU",
        (
            ("ImageNet, VGG-16", "voc_vgg16_imagenet_baseline"),
            ("Random, VGG-16", "voc_vgg16_random_baseline"),
            ("M&M graph, colorization, VGG-16", "voc_vgg16_colorization_mixmatch"),
            ("ImageNet, AlexNet", "voc_alexnet_imagenet_baseline"),
            ("Random, AlexNet", "voc_alexnet_random_baseline"),
            ("M&M random triplets, colorization, AlexNet", "voc_alexnet_colorization_triplets"),
            ("M&M graph, colorization, AlexNet", "voc_alexnet_colorization_mixmatch"),
            ("M&M graph, random, AlexNet", "voc_alexnet_random_mixmatch"),
        ),
    ),
    "2": (
        "VOC 2012 val, VGG-16, mean IoU (per class: mmtui classes RUN)",
        (
            ("ImageNet", "voc_vgg16_imagenet_baseline"),
            ("Colorization", "voc_vgg16_colorization_baseline"),
            ("M&M", "voc_vgg16_colorization_mixmatch"),
        ),
    ),
    "3": (
        "Pre-training, networks and data sets, mean IoU",
        (*_TABLE_3, ("Cityscapes, VGG16, imagenet: baseline", "cityscapes_vgg16_imagenet_baseline")),
    ),
    "graph size": (
        "VOC 2012 val, AlexNet, colorization: nodes of the graph",
        tuple((f"{nodes} nodes", f"voc_alexnet_colorization_graph{nodes}") for nodes in (100, 200, 400)),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of the paper.

    Attributes:
        published: mean IoU in percent, None where the paper gives none.
        measured: mean over the runs that have succeeded, None where there is none.
        spread: their standard deviation, None for fewer than two.
        runs: how many there are.
    """

    table: str
    label: str
    recipe: str
    published: float | None
    measured: float | None
    spread: float | None
    runs: int


def paper(home: Home) -> Iterator[Row]:
    """Every row of tables 1 to 3 and of the graph-size ablation that is a training run."""
    published = {view.name: view.reference_miou for view in recipes.list_recipes(home)}
    found = _measured(home)
    for number, (_, rows) in TABLES.items():
        for label, recipe in rows:
            values = found.get(recipe, [])
            yield Row(
                table=number,
                label=label,
                recipe=recipe,
                published=published.get(recipe),
                measured=statistics.fmean(values) if values else None,
                spread=statistics.stdev(values) if len(values) > 1 else None,
                runs=len(values),
            )


def _measured(home: Home) -> dict[str, list[float]]:
    """Final mean IoU of every run that has succeeded, by recipe; of full length, as trials say nothing, and no forks,
    which were trained by two recipes."""
    sql = (
        "SELECT recipe, miou, overrides FROM runs WHERE state = ? AND miou IS NOT NULL AND deleted_at IS NULL"
        " AND origin = '{}'"
    )
    found: dict[str, list[float]] = {}
    with Reader(home) as reader:
        for recipe, miou, overrides in reader.query(sql, [RunState.SUCCEEDED.value]):
            if ".steps=" not in overrides:
                found.setdefault(recipe, []).append(miou)
    return found
