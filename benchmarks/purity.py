"""How much of a patch is of the class it stands for, in every arm of a study: from label maps, without training.

    python benchmarks/purity.py streets --data CAMVID --labels 367
    python benchmarks/purity.py objects --labels 100

Patches are drawn as the match stage draws them, every pixel of their windows is counted. A window holds its own class,
other classes, the background where there is one, void, and what lies outside the crop. The last columns say what
the choice of patches does to the classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from study import FOLDERS, STUDIES, overrides, tuned
from torch import Tensor

from engine.config import load_recipe
from engine.data.dataset import SegmentationData
from engine.data.pipeline import epoch_indices, sample_crops
from engine.data.registry import build_data
from engine.mixmatch.patches import sample_patches
from engine.mixmatch.windows import Patches

VOID = 255


def exact_shares(labels: Tensor, patches: Patches, background: int | None) -> NDArray[np.float64]:
    """Shares of each window, every pixel counted: (N, 2), of its patch's label and of other classes in front."""
    maps, shares = labels.numpy(), []
    without = [VOID] if background is None else [VOID, background]
    columns = (patches.image, patches.cy, patches.cx, patches.size, patches.label)
    for image, cy, cx, size, label in zip(*(column.tolist() for column in columns), strict=True):
        half = size // 2
        window = maps[image, max(0, cy - half) : cy + half, max(0, cx - half) : cx + half]
        own, nothing = np.count_nonzero(window == label), np.count_nonzero(np.isin(window, without))
        others = window.size - nothing - (own if label not in without else 0)
        shares.append((own / size**2, others / size**2))
    return np.array(shares)


def measure(options: argparse.Namespace, arm: str, data: SegmentationData | None) -> tuple[str, SegmentationData]:
    """The row of one arm, and the data it was measured on, for the next one."""
    recipe = load_recipe(STUDIES[options.study][arm].recipe, overrides(options, arm, options.labels, 0), FOLDERS)
    data = data or build_data(recipe.data, "train")
    config = recipe.match
    assert config is not None
    shares, classes, outside, estimates, present = [], [], [], [], []
    for step in range(options.batches):
        source = torch.Generator().manual_seed(step)
        indices = epoch_indices(0, step, config.images, len(data))
        _, labels = sample_crops(data, indices, config.crop, source, label_dtype=torch.uint8)
        patches = sample_patches(
            labels, config.patches_per_image, config.patch_size, config.background, config.background_ratio,
            config.overlap, generator=source, centres=config.centres, candidates=config.candidates,
        )  # fmt: skip
        shares.append(exact_shares(labels, patches, config.background))
        estimates.append(patches.purity.numpy())
        outside.append(patches.padding.numpy())
        classes.append(patches.label.numpy())
        present.append(len(patches.label.unique()))
    (share, others), label = np.concatenate(shares).T, np.concatenate(classes)
    counts = np.bincount(label, minlength=data.num_classes)
    each = [share[label == c].mean() for c in range(data.num_classes) if counts[c]]
    cells = [
        arm,
        f"{config.patch_size[0]}-{config.patch_size[1]}",
        f"{share.mean():.3f}",
        f"{np.mean(each):.3f}",
        f"{np.mean(share < 0.5):.2f}",
        f"{others.mean():.3f}",
        f"{np.concatenate(outside).mean():.2f}",
        f"{np.concatenate(estimates).mean():.3f}",
        f"{np.mean(present):.1f}",
        f"{counts.max() / counts.sum():.2f} ({data.classes[int(counts.argmax())]})",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    if options.per_class:
        named = zip(data.classes, counts, (share[label == c] for c in range(data.num_classes)), strict=True)
        print("   " + ", ".join(f"{name} {n} {own.mean():.2f}" for name, n, own in named if n))
    return cells[0], data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", type=Path, help="CamVid folder")
    parser.add_argument("--labels", type=int, required=True)
    parser.add_argument("--batches", type=int, default=40, help="batches of images, one match graph each")
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--per-class", action="store_true", help="nodes and mean share of every class too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = (
        "arm",
        "sides",
        "mean share",
        "mean of classes",
        "below half",
        "others",
        "outside",
        "at points",
        "classes",
        "largest",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    data = None
    for arm in tuned(options.study):
        if arm in (options.arms or [arm]):
            _, data = measure(options, arm, data)


if __name__ == "__main__":
    main()
