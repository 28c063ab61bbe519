"""How much faster the draws are than loops over nodes and patches, measured side by side in one run.

    python benchmarks/bench_graph.py [--threads 1] [--rounds 5]

Rivals, on the same input:

- ``release``: written after the description of the reference release's layers. Triplets: the node-by-node loop of
  PAPER 1.3 over an array of labels, candidates listed by comprehension and drawn by ``np.random.choice``. Patches: for
  each image a mask of pixels, five candidates per patch tested one after the other; each window copied as float,
  transposed and resized by ``cv2.resize`` (extra ``bench``; left out where OpenCV is not installed).
- ``loop``: the same rules in plain Python lists (triplets) and torch (patches), which is faster than the release.

Medians; rivals take turns, so a slow moment of the machine hits both. With one thread the time is that of the
processor, which other programs disturb little; with more it is that of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.host import one_thread
from engine.mixmatch.graph import build_match_graph
from engine.mixmatch.patches import sample_patches
from engine.stages.patch_inputs import Buffer, patch_inputs

LARGEST_LOOP, LARGEST_RELEASE = 4096, 1024
"""Nodes beyond which the loops, whose time grows with their square, are left out."""


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


def release_graph(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The same as the release's layer does it: labels (N, 1) as the network hands them over."""
    triplets = -np.ones((len(labels), 3), dtype=np.int64)
    placed: list[int] = []
    for node in np.random.permutation(len(labels)):
        own = labels[node]
        near = [other for other in placed if labels[other] == own]
        far = [other for other in placed if labels[other] != own]
        triplets[node, 0] = node
        if near:
            triplets[node, 1] = np.random.choice(near)
        if far:
            triplets[node, 2] = np.random.choice(far)
        placed.append(node)
    for node in range(len(labels)):
        if triplets[node, 1] == -1:
            near = [other for other in placed if labels[other] == labels[node] and other != node]
            triplets[node, 1] = np.random.choice(near) if near else node
        if triplets[node, 2] == -1:
            far = [other for other in placed if labels[other] != labels[node]]
            triplets[node, 2] = np.random.choice(far) if far else -1
    return triplets


def release_cut(
    cv2: ModuleType, images: NDArray[np.float32], number: int, window: tuple[int, int, int]
) -> NDArray[Any]:
    """One patch (3, 128, 128) as the release's layer makes it, in double precision."""
    cy, cx, side = window
    half = side // 2
    y0, y1, x0, x1 = max(0, cy - half), min(512, cy + half), max(0, cx - half), min(512, cx + half)
    cut = np.zeros((3, side, side))
    cut[:, y0 - cy + half : y1 - cy + half, x0 - cx + half : x1 - cx + half] = images[number, :, y0:y1, x0:x1].copy()
    return cv2.resize(cut.transpose(1, 2, 0), (128, 128)).transpose(2, 0, 1)  # type: ignore[no-any-return]


def release_windows(labels: NDArray[np.float32], per_image: int) -> list[tuple[int, int, int]]:
    """Windows (cy, cx, side) of one image: every candidate is made and tested by itself, and none is left out."""
    classes = labels.astype(int)
    behind = max(1, int(per_image * 0.1))
    wanted = max(1, per_image - behind)
    front = np.where((classes != 0) & (classes != 255))
    back = np.where(classes == 0)
    front, back = (front if len(front[0]) else back), (back if len(back[0]) else front)

    def made(pool: tuple[NDArray[np.int64], ...], count: int) -> NDArray[np.int64]:
        picks = np.random.randint(0, len(pool[0]), size=5 * count)
        return np.array([(pool[0][p], pool[1][p], np.random.randint(64, 257) // 2 * 2) for p in picks])

    candidates, rest = made(front, wanted), made(back, behind)
    mask = np.zeros(labels.shape)
    kept: list[int] = []
    for place in np.arange(len(candidates)):
        cy, cx, side = candidates[place]
        half = side // 2
        rows, columns = slice(max(0, cy - half), min(cy + half, 512)), slice(max(0, cx - half), min(cx + half, 512))
        if mask[rows, columns].sum() / float(candidates[0, 2] ** 2) > 0.6:
            continue
        mask[rows, columns] = 1
        kept.append(place)
    kept += [place for place in np.arange(len(candidates)) if place not in kept]
    chosen = np.vstack((candidates[kept[:wanted]], rest[:behind]))
    return [(int(cy), int(cx), int(side)) for cy, cx, side in chosen]


def release_patches(cv2: ModuleType | None, images: NDArray[np.float32], maps: NDArray[np.float32], count: int) -> None:
    """Sampling, and with ``cv2`` cutting too, image by image into arrays that lie ready."""
    pixels = np.empty((len(images) * count, 3, 128, 128), dtype=np.float32)
    for number, (image, labels) in enumerate(zip(images, maps, strict=True)):
        image.transpose(1, 2, 0).copy()  # the layer hands pictures over that way, though only sizes are read
        windows = release_windows(labels.copy(), count)
        if cv2 is not None:
            for place, window in enumerate(windows):
                pixels[number * count + place] = release_cut(cv2, images, number, window)


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


def repeats(work: Callable[[], object], clock: Callable[[], float]) -> int:
    """How often a work is done for one time, so that it takes 10 ms or more; this warms it up, too."""
    work()
    start = clock()
    work()
    return max(1, int(0.01 / max(clock() - start, 1e-6)))


def compare(name: str, rounds: int, ours: Callable[[], object], **rivals: Callable[[], object] | None) -> None:
    """Print the medians of all, taking turns, and how many times as long each rival took."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    works = {"ours": ours, **{who: rival for who, rival in rivals.items() if rival is not None}}
    times: dict[str, list[float]] = {who: [] for who in works}
    often = {who: repeats(work, clock) for who, work in works.items()}
    for _ in range(rounds):
        for who, work in works.items():
            start = clock()
            for _again in range(often[who]):
                work()
            times[who].append(1e3 * (clock() - start) / often[who])
    medians = {who: statistics.median(found) for who, found in times.items()}
    spread = f"[{min(times['ours']):.3f}-{max(times['ours']):.3f}]"
    cells = [f"{name:<30}{medians['ours']:>10.3f} {spread:<20}"]
    for who in rivals:
        there = who in medians
        cells.append(f"{medians[who]:>12.2f}{medians[who] / medians['ours']:>9,.1f} x" if there else f"{'':>23}")
    print("".join(cells).rstrip())


def node_labels(count: int) -> Tensor:
    """21 classes, 10 % background, the others by 1/rank."""
    weights = torch.cat([torch.tensor([0.1]), 0.9 * (w := 1 / torch.arange(1, 21)) / w.sum()])
    return torch.multinomial(weights, count, replacement=True, generator=torch.Generator().manual_seed(0))


def bench_graph(rounds: int) -> None:
    source, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for count in (144, 400, 1024, LARGEST_LOOP, 16_384, 65_536, 262_144, 1_000_000):
        labels = node_labels(count)
        plain, column = labels.tolist(), labels[:, None].float().numpy()
        compare(
            f"graph, {count:,} nodes",
            rounds,
            lambda labels=labels: build_match_graph(labels, "graph", source),  # type: ignore[misc]
            release=(lambda column=column: release_graph(column)) if count <= LARGEST_RELEASE else None,
            loop=(lambda plain=plain: naive_graph(plain, rng)) if count <= LARGEST_LOOP else None,
        )


def bench_patches(rounds: int, batch: int, per_image: int) -> None:
    source, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    cv2 = opencv()
    maps = np.zeros((batch, 512, 512), dtype=np.uint8)
    for image in maps:
        for _ in range(4):
            (y0, y1), (x0, x1) = (sorted(rng.integers(0, 513, 2)) for _ in range(2))
            image[y0:y1, x0:x1] = rng.integers(0, 21)
    labels, wide, buffer = torch.from_numpy(maps), maps.astype(np.int64), Buffer()
    images = torch.randint(0, 256, (batch, 3, 512, 512), generator=source, dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    floats = images.float().contiguous()
    pixels, classes = floats.numpy(), maps.astype(np.float32)

    def sample() -> Any:
        with one_thread():
            return sample_patches(labels, per_image, generator=source)

    def cut(windows: list[list[tuple[int, int, int]]]) -> Tensor:
        return torch.stack([naive_cut(i, *w) for i, own in zip(floats, windows, strict=True) for w in own])

    what = f"patches {batch} x {per_image}"
    windows, patches = [naive_windows(image, per_image, rng) for image in wide], sample()
    compare(
        f"{what}, sampling",
        rounds,
        sample,
        release=lambda: release_patches(None, pixels, classes, per_image),
        loop=lambda: [naive_windows(image, per_image, rng) for image in wide],
    )
    compare(
        f"{what}, cutting, normalising",
        rounds,
        lambda: patch_inputs(images, patches, 128, "rgb", buffer),
        release=None
        if cv2 is None
        else lambda: [release_cut(cv2, pixels, i, w) for i, own in enumerate(windows) for w in own],
        loop=lambda: cut(windows),
    )
    compare(
        f"{what}, both",
        rounds,
        lambda: patch_inputs(images, sample(), 128, "rgb", buffer),
        release=None if cv2 is None else lambda: release_patches(cv2, pixels, classes, per_image),
        loop=lambda: cut([naive_windows(image, per_image, rng) for image in wide]),
    )


def opencv() -> ModuleType | None:
    """OpenCV with as many threads as torch, if it is installed (pip install 'mmtui[bench]')."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(torch.get_num_threads())
    return cv2  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, median of {options.rounds} rounds, ms [min-max]")
    print(f"{'':<30}{'ours':>10} {'':<20}{'release':>12}{'':>11}{'loop':>12}")
    bench_graph(options.rounds)
    for batch, per_image in ((16, 9), (40, 10)):
        bench_patches(options.rounds, batch, per_image)


if __name__ == "__main__":
    main()
