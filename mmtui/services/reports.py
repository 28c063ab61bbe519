"""The paper's tables with what was measured here beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from mmtui.paths import Home
from mmtui.services import recipes
from mmtui.store.queries import scores
from mmtui.store.session import reading


@dataclass(frozen=True, slots=True)
class Line:
    """What the paper prints in a row.

    Attributes:
        recipe: the recipe of that training, "" for a number that the paper quotes from others.
        published: mean IoU in percent where it is not the one that the recipe tells.
        published_test: mean IoU on the test set in percent, which the paper prints in brackets.
    """

    label: str
    recipe: str = ""
    published: float | None = None
    published_test: float | None = None


_COLUMNS = (
    ("VOC", "AlexNet", ("random", "jigsaw", "colorization", "imagenet")),
    ("VOC", "VGG16", ("random", "colorization", "imagenet")),
    ("Cityscapes", "VGG16", ("random", "colorization", "imagenet")),
)
_TEST_SET = {"voc_vgg16_colorization_mixmatch": 64.3, "cityscapes_vgg16_colorization_mixmatch": 65.6}


def _table_3() -> Iterator[Line]:
    for data, network, starts in _COLUMNS:
        for start in starts:
            for words, tuning in (("baseline", "baseline"), ("M&M", "mixmatch")):
                if (start, tuning) != ("imagenet", "mixmatch"):  # the paper tunes no supervised network
                    recipe = f"{data.lower()}_{network.lower()}_{start}_{tuning}"
                    label = f"{data}, {network}, {start}: {words}"
                    yield Line(label, recipe, published_test=_TEST_SET.get(recipe))


TABLES: dict[str, tuple[str, tuple[Line, ...]]] = {
    "1": (
        "VOC 2012 val, mean IoU (no recipe: quoted by the paper from others)",
        (
            Line("ImageNet, VGG-16", "voc_vgg16_imagenet_baseline"),
            Line("Random, VGG-16", "voc_vgg16_random_baseline"),
            Line("Larsson et al. 2016, VGG-16", published=50.2),
            Line("Larsson et al. 2017, VGG-16", published=56.0),
            Line("M&M graph, colorization, VGG-16", "voc_vgg16_colorization_mixmatch"),
            Line("ImageNet, AlexNet", "voc_alexnet_imagenet_baseline"),
            # Table 3 has 19.8 for the same training.
            Line("Random, AlexNet", "voc_alexnet_random_baseline", published=23.5),
            Line("Krähenbühl et al. 2015 (k-means), AlexNet", published=32.6),
            Line("Pathak et al. 2016, AlexNet", published=29.7),
            Line("Donahue et al. 2016 (BiGAN), AlexNet", published=35.2),
            Line("Zhang et al. 2016a (colorization), AlexNet", published=35.6),
            Line("Zhang et al. 2016b (split-brain), AlexNet", published=36.0),
            Line("Noroozi & Favaro 2016 (jigsaw), AlexNet", published=37.6),
            Line("Larsson et al. 2017, AlexNet", published=38.4),
            Line("M&M random triplets, colorization, AlexNet", "voc_alexnet_colorization_triplets"),
            Line("M&M graph, colorization, AlexNet", "voc_alexnet_colorization_mixmatch"),
            Line("M&M graph, random, AlexNet", "voc_alexnet_random_mixmatch"),
        ),
    ),
    "2": (
        "VOC 2012 val, VGG-16, mean IoU (per class: mmtui classes RUN)",
        (
            Line("ImageNet", "voc_vgg16_imagenet_baseline"),
            Line("Colorization", "voc_vgg16_colorization_baseline"),
            Line("M&M", "voc_vgg16_colorization_mixmatch"),
            Line("Ensemble ImageNet + M&M", "voc_vgg16_ensemble"),
        ),
    ),
    "3": ("Pre-training, networks and data sets, mean IoU", tuple(_table_3())),
    "graph size": (
        "VOC 2012 val, AlexNet, colorization: nodes of the graph",
        tuple(Line(f"{nodes} nodes", f"voc_alexnet_colorization_graph{nodes}") for nodes in (100, 200, 400)),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of the paper.

    Attributes:
        recipe: "" for a number that the paper quotes from others.
        published: mean IoU in percent.
        published_test: that of the test set, None where the paper gives none.
        measured: mean over the runs that have succeeded, None where there is none.
        spread: their standard deviation, None for fewer than two.
        runs: how many there are.
        doubts: what makes the score of any of them doubtful.
    """

    table: str
    label: str
    recipe: str
    published: float | None
    published_test: float | None
    measured: float | None
    spread: float | None
    runs: int
    doubts: tuple[str, ...] = ()


def paper(home: Home) -> Iterator[Row]:
    """Every row of tables 1 to 3 and of the graph-size ablation."""
    told = {view.name: view.reference_miou for view in recipes.list_recipes(home)}
    found = _measured(home)
    for number, (_, lines) in TABLES.items():
        for line in lines:
            measured = found.get(line.recipe, []) if line.recipe else []
            values = [miou for miou, _ in measured]
            yield Row(
                table=number,
                label=line.label,
                recipe=line.recipe,
                published=told.get(line.recipe) if line.published is None else line.published,
                published_test=line.published_test,
                measured=statistics.fmean(values) if values else None,
                spread=statistics.stdev(values) if len(values) > 1 else None,
                runs=len(values),
                doubts=tuple(dict.fromkeys(doubt for _, doubts in measured for doubt in doubts)),
            )


def _measured(home: Home) -> dict[str, list[tuple[float, tuple[str, ...]]]]:
    """Final mean IoU, and what makes it doubtful, of every run that has succeeded, by recipe.

    Of full length, as trials say nothing, and no forks, which were trained by two recipes."""
    found: dict[str, list[tuple[float, tuple[str, ...]]]] = {}
    with reading(home) as reader:
        for one in scores.final(reader):
            if ".steps=" not in one.overrides:
                found.setdefault(one.recipe, []).append((one.miou, one.doubts))
    return found
