"""What tuning leaves in the last map, of the runs of a study: how many dimensions, and what they tell of each place.

    python benchmarks/features.py streets --data CAMVID --out FOLDER --labels 367 --seeds 0 1 2
    python benchmarks/features.py objects --out FOLDER --labels 100 --seeds 0 1 2

Crops go through the backbone as the match stage left it, with the statistics of a batch as in training. A cell of the
last map is a vector of its channels. ``dimensions`` is the participation ratio of their covariance's eigenvalues,
``sum(e)^2 / sum(e^2)``: 1 if all vectors lie on one line. ``accuracy`` and ``recall`` (mean of classes) are those of
a ridge regression from a cell's vector to the class with most pixels in it, fitted on crops of the training split
and tested on the validation split. ``random`` is the network before any training.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from study import FOLDERS, STUDIES, overrides, tuned
from torch import Tensor
from torch.nn import functional as F

from engine import determinism
from engine.config import load_recipe
from engine.config.schema import Recipe
from engine.data.listings import Split
from engine.data.pipeline import normalise, sample_crops
from engine.data.registry import build_data
from engine.models import Backbone, build_backbone
from engine.models.weights import load_backbone

VOID = 255
PENALTY = 10.0
"""Of the ridge regression, on normalised channels."""
BATCH = 32


@dataclass(frozen=True)
class Crops:
    """Images uint8 (B, 3, S, S), their labels (B, S, S), and the number of classes."""

    images: Tensor
    labels: Tensor
    classes: int

    def shares(self, side: int) -> Tensor:
        """Share of each class in each of ``side`` x ``side`` cells, (cells, classes)."""
        labels = torch.where(self.labels == VOID, self.classes, self.labels)
        planes = F.one_hot(labels, self.classes + 1)[..., : self.classes].movedim(-1, 1).float()
        return F.adaptive_avg_pool2d(planes, side).movedim(1, -1).flatten(0, 2)


def crops(recipe: Recipe, split: Split, most: int) -> Crops:
    """One crop of each of the first images."""
    assert recipe.match is not None
    data = build_data(recipe.data, split)
    indices = torch.arange(min(most, len(data)))
    images, labels = sample_crops(data, indices, recipe.match.crop, torch.Generator().manual_seed(0), mirror=False)
    return Crops(images, labels, data.num_classes)


@torch.no_grad()
def cells(backbone: Backbone, images: Tensor) -> tuple[Tensor, int]:
    """Vectors of all cells, float64 (cells, channels), and how many cells are on a side."""
    backbone.train()
    maps = torch.cat([backbone.features(normalise(part, "rgb"))[1] for part in images.split(BATCH)])
    return maps.movedim(1, -1).flatten(0, 2).double(), maps.shape[-1]


def probe(backbone: Backbone, fitted: Crops, tested: Crops) -> tuple[float, float, float]:
    """Dimensions, accuracy and recall in percent."""
    x, side = cells(backbone, fitted.images)
    spectrum = torch.linalg.eigvalsh(torch.cov(x.T)).clamp(min=0)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    share = fitted.shares(side)
    known = share.sum(1) > 0.5
    y = F.one_hot(share[known].argmax(1), fitted.classes).double()
    x = (x[known] - mean) / scale
    weight = torch.linalg.solve(x.T @ x + PENALTY * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - y.mean(0)))
    share = tested.shares(side)
    known = share.sum(1) > 0.5
    truth = share[known].argmax(1)
    z = (cells(backbone, tested.images)[0][known] - mean) / scale
    right = (z @ weight + y.mean(0)).argmax(1) == truth
    recall = [float(right[truth == c].double().mean()) for c in truth.unique().tolist()]
    dimensions = float(spectrum.sum().square() / spectrum.square().sum())
    return dimensions, 100 * float(right.double().mean()), 100 * statistics.fmean(recall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", type=Path, help="CamVid folder")
    parser.add_argument("--out", type=Path, required=True, help="the runs of benchmarks/study.py")
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", help="these alone")
    parser.add_argument("--images", type=int, default=200, help="crops to fit on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    matched = tuned(options.study)
    name = STUDIES[options.study][matched[0]].recipe
    recipe = load_recipe(name, overrides(options, matched[0], options.labels, 0), FOLDERS)
    fitted, tested = crops(recipe, "train", options.images), crops(recipe, "val", options.images)
    print("| arm | seeds | dimensions | accuracy % | recall % |\n|---|---|---|---|---|")
    for arm in options.arms or ["random", *matched]:
        found = []
        for seed in options.seeds:
            backbone = build_backbone(recipe.model, determinism.generator(seed, "init/backbone"))
            weights = options.out / f"{arm}_{options.labels}_{seed}/checkpoints/match/final/model.safetensors"
            if arm != "random":
                if not weights.exists():
                    continue
                load_backbone(backbone, weights)
            found.append(probe(backbone, fitted, tested))
        if found:
            cells_ = [f"{statistics.fmean(column):.1f}" for column in zip(*found, strict=True)]
            print(f"| {arm} | {len(found)} | {' | '.join(cells_)} |", flush=True)


if __name__ == "__main__":
    main()
