"""What is in a data set, and what is wrong with it: the work of ``python -m engine check-data``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.config.schema import DataConfig, FolderData, ShapesData
from engine.data import folder, shapes
from engine.data.dataset import VOID, Progress
from engine.errors import DataError

MAX_PROBLEMS = 20
PROGRESS_EVERY = 16


@dataclass
class SplitSummary:
    """Counts over one split.

    Attributes:
        images: readable images with a mask that fits.
        sizes: number of images of each "WIDTHxHEIGHT", most frequent first, after scaling.
        pixels: number of pixels of each class, in index order.
        present: number of images in which each class occurs.
        void: number of void pixels.
    """

    images: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    pixels: list[int] = field(default_factory=list)
    present: list[int] = field(default_factory=list)
    void: int = 0


@dataclass
class DataReport:
    """What ``summarise`` found; ``dataclasses.asdict`` makes it JSON.

    Attributes:
        kind: kind of data set.
        classes: names in index order.
        splits: counts of train and val.
        problems: what stops a training run, one sentence each; at most 20 are written out.
        problem_count: how many there are.
        warnings: what looks wrong but stops nothing.
    """

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]
    problems: list[str]
    problem_count: int
    warnings: list[str]


class _Tally:
    """Accumulates label maps one at a time, so that a data set of any size can be checked."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(256, np.int64)
        self.present = np.zeros(256, np.int64)
        self.sizes: Counter[str] = Counter()
        self.num_classes = num_classes

    def add(self, labels: NDArray[np.uint8]) -> None:
        counts = np.bincount(labels.ravel(), minlength=256)
        self.counts += counts
        self.present += counts > 0
        self.sizes[f"{labels.shape[1]}x{labels.shape[0]}"] += 1

    def summary(self) -> SplitSummary:
        return SplitSummary(
            images=self.sizes.total(),
            sizes=dict(self.sizes.most_common(10)),
            pixels=self.counts[: self.num_classes].tolist(),
            present=self.present[: self.num_classes].tolist(),
            void=int(self.counts[VOID]),
        )


def summarise(config: DataConfig, progress: Progress | None = None) -> DataReport:
    """Read the whole data set, image by image, and list everything that is wrong instead of stopping at the first.

    Raises:
        DataError: the classes file cannot be read; without it nothing can be checked.
    """
    problems: list[str] = []
    if isinstance(config, ShapesData):
        classes = shapes.class_names(config)
        tallies = {split: _tally_shapes(config, split, progress) for split in ("train", "val")}
        warnings: list[str] = []
    else:
        classes = folder.class_names(config)
        tallies = {split: _tally_folder(config, split, len(classes), problems, progress) for split in ("train", "val")}
        warnings = _shared_names(config)
    splits = {split: tally.summary() for split, tally in tallies.items()}
    warnings += _class_warnings(classes, splits)
    return DataReport(config.kind, classes, splits, problems[:MAX_PROBLEMS], len(problems), warnings)


def _tally_shapes(config: ShapesData, split: str, progress: Progress | None) -> _Tally:
    tally = _Tally(len(shapes.CLASSES))
    count = config.train if split == "train" else config.val
    for index in range(count):
        tally.add(shapes.draw(config, split, index)[1])
        _report(progress, f"drawing {split} images", index + 1, count)
    return tally


def _tally_folder(
    config: FolderData, split: str, num_classes: int, problems: list[str], progress: Progress | None
) -> _Tally:
    tally = _Tally(num_classes)
    try:
        pairs = folder.choose_pairs(config, split)
    except DataError as error:
        problems.append(str(error))
        return tally
    for number, pair in enumerate(pairs, 1):
        try:
            folder.require_masks([pair])
            tally.add(folder.load_pair(pair, config, num_classes)[1])
        except DataError as error:
            problems.append(str(error))
        _report(progress, f"reading {split} images", number, len(pairs))
    return tally


def _report(progress: Progress | None, text: str, done: int, total: int) -> None:
    if progress and (done % PROGRESS_EVERY == 0 or done == total):
        progress(text, done, total)


def _shared_names(config: FolderData) -> list[str]:
    """Images that are in both splits would make the validation score too good."""
    try:
        train = {pair.name for pair in folder.choose_pairs(config, "train")}
        both = sorted(train & {pair.name for pair in folder.choose_pairs(config, "val")})
    except DataError:
        return []
    if not both:
        return []
    return [f"{len(both)} names are in both splits, {both[0]} first: the validation score may be too good."]


def _class_warnings(classes: tuple[str, ...], splits: dict[str, SplitSummary]) -> list[str]:
    warnings = []
    for split, summary in splits.items():
        absent = [
            f"{index} {name}" for index, name in enumerate(classes) if summary.images and not summary.present[index]
        ]
        if absent:
            meaning = "it cannot be learned" if split == "train" else "its IoU will be left out or 0"
            warnings.append(f"no pixel of class {', '.join(absent)} in split {split}: {meaning}.")
    return warnings


def format_report(report: DataReport) -> str:
    """The report as text: one block a split, one line a class, then what is wrong."""
    lines = []
    width = max(len(name) for name in report.classes)
    for split, summary in report.splits.items():
        sizes = ", ".join(f"{size} ({count})" for size, count in summary.sizes.items())
        lines.append(f"{split}: {summary.images} images, {sizes or 'none readable'}")
        total = max(sum(summary.pixels) + summary.void, 1)
        for index, (name, pixels) in enumerate(zip(report.classes, summary.pixels, strict=True)):
            share, present = 100 * pixels / total, summary.present[index]
            lines.append(f"  {index:3d} {name:<{width}} {share:6.2f} % of pixels, in {present} images")
        lines.append(f"  255 {'void':<{width}} {100 * summary.void / total:6.2f} % of pixels")
    lines += [f"warning: {text}" for text in report.warnings]
    lines += [f"problem: {text}" for text in report.problems]
    if report.problem_count > len(report.problems):
        lines.append(f"problem: and {report.problem_count - len(report.problems)} more")
    lines.append(f"{report.problem_count or 'no'} problem{'' if report.problem_count == 1 else 's'} found")
    return "\n".join(lines)
