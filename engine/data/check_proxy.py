"""What is in the folder of a proxy task, and what is wrong with it: the part of ``check-data`` for ``proxy.images``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from engine.config.schema import ProxyConfig
from engine.data.images import choose_images, image_classes, list_images
from engine.data.pictures import has_frames, square
from engine.data.threads import in_threads
from engine.data.values import Progress
from engine.errors import DataError
from engine.paths import expanded

SHOWN_CLASSES = 10
"""How many classes a line names."""


@dataclass
class ProxySummary:
    """Counts over the images that the task would see.

    Attributes:
        folder: ``proxy.images``.
        files: images that the folder holds.
        images: readable ones among those that ``proxy.max_images`` leaves.
        classes: number of images of each class, by name; {} if the task has none.
    """

    folder: str
    files: int = 0
    images: int = 0
    classes: dict[str, int] = field(default_factory=dict)


def summarise_proxy(
    config: ProxyConfig, seed: int, progress: Progress | None = None
) -> tuple[ProxySummary | None, list[str], list[str]]:
    """Decode every image as the task would; None where it takes the images of the data set.

    Args:
        seed: the run's; chooses ``config.max_images`` of them.

    Returns:
        the counts, all problems and all warnings, one sentence each.
    """
    if not config.images:
        text = "proxy.images is empty: set it to a folder with one folder of images a class."
        return None, [text] if config.kind == "classification" else [], []
    root = expanded(config.images)
    summary = ProxySummary(str(root))
    try:
        everything = list_images(root)
    except DataError as error:
        return summary, [str(error)], []
    files = choose_images(everything, config.max_images, seed)
    problems = _class_problems(root, files) if config.kind == "classification" else []

    def read(index: int) -> tuple[str, bool]:
        try:
            square(files[index], config.image_side)
            return "", has_frames(files[index])
        except DataError as error:
            return str(error), False

    seen = in_threads(read, len(files), "reading images of the proxy task", progress)
    unreadable = [text for text, _ in seen if text]
    animated = [str(file) for file, (_, several) in zip(files, seen, strict=True) if several]
    summary.files, summary.images = len(everything), len(files) - len(unreadable)
    if config.kind == "classification":
        parts = [file.relative_to(root).parts for file in files]
        summary.classes = dict(sorted(Counter(part[0] for part in parts if len(part) > 1).items()))
    return summary, problems + unreadable, _frame_warnings(animated)


def _frame_warnings(files: list[str]) -> list[str]:
    if not files:
        return []
    noun, more = ("image", "") if len(files) == 1 else ("images", f" and {len(files) - 1} more")
    return [f"of {len(files)} {noun} of the proxy task only the first frame of several is read: {files[0]}{more}."]


def _class_problems(root: Path, files: list[Path]) -> list[str]:
    try:
        image_classes(root, files)
    except DataError as error:
        return [str(error)]
    return []


def format_proxy(summary: ProxySummary) -> str:
    """The counts as one line."""
    of = f" (of {summary.files})" if summary.files > summary.images else ""
    line = f"proxy: {summary.images} images{of} of {summary.folder}"
    if not summary.classes:
        return line
    shown = [f"{name} ({count})" for name, count in summary.classes.items()]
    more = f" and {len(shown) - SHOWN_CLASSES} more" if len(shown) > SHOWN_CLASSES else ""
    return f"{line}, {len(shown)} classes: {', '.join(shown[:SHOWN_CLASSES])}{more}"
