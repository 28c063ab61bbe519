"""How much faster the vectorised draws are than loops over nodes and patches, measured side by side in one run.

    python benchmarks/bench_graph.py [--threads 1] [--rounds 5]

Rivals, on the same input: the node-by-node loop of PAPER 1.3, and patches sampled and cut one after the other with a
coverage mask of pixels, each window resized by itself. Medians; rivals take turns, so a slow moment of the machine
hits both. With one thread the time is that of the processor, which other programs disturb little; with more it is
that of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.mixmatch.graph import build_match_graph
from engine.mixmatch.patches import crop_patches, sample_patches

LARGEST_LOOP = 4096
"""Nodes beyond which the loop, whose time grows with their square, is left out."""


def naive_graph(labels: list[int], source: np.random.Generator) -> list[tuple[int, int, int]]:
    """Triplets (node, positive, negative) by the loop; -1 = no negative."""
    placed: list[int] = []
    positive, negative = [-1] * len(labels), [-1] * len(labels)
    for i in source.permutation(len(labels)).tolist():
        same = [j for j in placed if labels[j] == labels[i]]
        other = [j for j in placed if labels[j] != labels[i]]
        if same:
            positive[i] = same[source.integers(len(same))]
        if other:
            negative[i] = other[source.integers(len(other))]
        placed.append(i)
    for i, label in enumerate(labels):
        if positive[i] == -1:
            same = [j for j in placed if labels[j] == label and j != i]
            positive[i] = same[source.integers(len(same))] if same else i
        if negative[i] == -1:
            other = [j for j in placed if labels[j] != label]
            negative[i] = other[source.integers(len(other))] if other else -1
    return list(zip(range(len(labels)), positive, negative, strict=True))


def naive_windows(labels: NDArray[np.int64], per_image: int, source: np.random.Generator) -> list[tuple[int, int, int]]:
    """Windows (cy, cx, side) of one image."""
    behind = max(1, int(per_image * 0.1))
    pools = [np.nonzero((labels != 0) & (labels != 255)), np.nonzero(labels == 0)]
    front, back = (pool if len(pool[0]) else pools[1 - k] for k, pool in enumerate(pools))
    mask = np.zeros(labels.shape)
    kept: list[tuple[int, int, int]] = []
    dropped: list[tuple[int, int, int]] = []
    wanted = per_image - behind
    for pick in source.integers(len(front[0]), size=5 * wanted):
        cy, cx, side = int(front[0][pick]), int(front[1][pick]), int(source.integers(64, 257)) // 2 * 2
        own = mask[max(0, cy - side // 2) : cy + side // 2, max(0, cx - side // 2) : cx + side // 2]
        if own.sum() / own.size > 0.6:
            dropped.append((cy, cx, side))
            continue
        own[:] = 1
        kept.append((cy, cx, side))
    chosen = (kept + dropped)[:wanted]
    for pick in source.integers(len(back[0]), size=behind):
        chosen.append((int(back[0][pick]), int(back[1][pick]), int(source.integers(64, 257)) // 2 * 2))
    return chosen


def naive_cut(image: Tensor, cy: int, cx: int, side: int) -> Tensor:
    """One window of an image (C, H, W), zero outside of it, resized to 128 x 128."""
    half = side // 2
    y0, y1 = max(0, cy - half), min(image.shape[1], cy + half)
    x0, x1 = max(0, cx - half), min(image.shape[2], cx + half)
    window = torch.zeros((image.shape[0], side, side))
    window[:, y0 - cy + half : y1 - cy + half, x0 - cx + half : x1 - cx + half] = image[:, y0:y1, x0:x1]
    return F.interpolate(window[None], size=(128, 128), mode="bilinear", align_corners=False)[0]


def compare(name: str, rounds: int, ours: Callable[[], object], rival: Callable[[], object] | None) -> None:
    """Print the medians of both, taking turns, and their ratio."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {"ours": [], "rival": []}
    contenders = {"ours": ours} if rival is None else {"ours": ours, "rival": rival}
    for turn in range(rounds + 1):
        for who, work in contenders.items():
            start = clock()
            work()
            if turn:
                times[who].append(1e3 * (clock() - start))
    fast = statistics.median(times["ours"])
    spread = f"[{min(times['ours']):.2f}-{max(times['ours']):.2f}]"
    if rival is None:
        print(f"{name:<34}{'':>12}{fast:>12.2f} {spread:<18}")
        return
    slow = statistics.median(times["rival"])
    print(f"{name:<34}{slow:>12.2f}{fast:>12.2f} {spread:<18}{slow / fast:>10,.1f} x")


def node_labels(count: int) -> Tensor:
    """21 classes, 10 % background, the others by 1/rank."""
    weights = torch.cat([torch.tensor([0.1]), 0.9 * (w := 1 / torch.arange(1, 21)) / w.sum()])
    return torch.multinomial(weights, count, replacement=True, generator=torch.Generator().manual_seed(0))


def bench_graph(rounds: int) -> None:
    source, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for count in (144, 400, 1024, LARGEST_LOOP, 65_536, 1_000_000):
        labels = node_labels(count)
        plain = labels.tolist()
        rival = (lambda plain=plain: naive_graph(plain, rng)) if count <= LARGEST_LOOP else None
        compare(
            f"graph, {count:,} nodes",
            rounds,
            lambda labels=labels: build_match_graph(labels, "graph", source),
            rival,
        )


def bench_patches(rounds: int, batch: int, per_image: int) -> None:
    source, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    maps = np.zeros((batch, 512, 512), dtype=np.int64)
    for image in maps:
        for _ in range(4):
            (y0, y1), (x0, x1) = (sorted(rng.integers(0, 513, 2)) for _ in range(2))
            image[y0:y1, x0:x1] = rng.integers(0, 21)
    labels, images = torch.from_numpy(maps), torch.randn((batch, 3, 512, 512), generator=source)
    windows = [naive_windows(image, per_image, rng) for image in maps]
    patches = sample_patches(labels, per_image, generator=source)
    what = f"{batch} x {per_image}"
    compare(
        f"patches {what}, sampling",
        rounds,
        lambda: sample_patches(labels, per_image, generator=source),
        lambda: [naive_windows(image, per_image, rng) for image in maps],
    )
    compare(
        f"patches {what}, cropping",
        rounds,
        lambda: crop_patches(images, patches),
        lambda: torch.stack([naive_cut(i, *w) for i, own in zip(images, windows, strict=True) for w in own]),
    )
    compare(
        f"patches {what}, both",
        rounds,
        lambda: crop_patches(images, sample_patches(labels, per_image, generator=source)),
        lambda: torch.stack(
            [naive_cut(i, *w) for i, m in zip(images, maps, strict=True) for w in naive_windows(m, per_image, rng)]
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, median of {options.rounds} rounds, ms [min-max]")
    print(f"{'':<34}{'loop':>12}{'ours':>12} {'':<18}{'ratio':>12}")
    bench_graph(options.rounds)
    for batch, per_image in ((16, 9), (40, 10)):
        bench_patches(options.rounds, batch, per_image)


if __name__ == "__main__":
    main()
