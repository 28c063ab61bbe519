"""What is in a data set, and what is wrong with it: the work of ``python -m engine check-data``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engine.config.schema import DataConfig, FolderData, ProxyConfig
from engine.data import supervision
from engine.data.check_proxy import ProxySummary, format_proxy, summarise_proxy
from engine.data.fingerprint import fingerprint
from engine.data.listings import LISTINGS, Split, class_names
from engine.data.names import same
from engine.data.pairs import LabelRule, Listing, Pair, WrongValuesError, fitted, read_pair, require_files
from engine.data.pictures import Bytes, Picture, has_frames
from engine.data.registry import BUILDERS
from engine.data.supervision import Labels
from engine.data.threads import in_threads
from engine.data.values import VOID, Progress
from engine.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "val")
SHOWN_NAMES = 5
"""How many duplicates or orphans a sentence names."""
_ONLY_BINARY = "all masks hold 0 and 255 alone, and 255 means void"
SHOWN_SIZES = 10
"""How many sizes of images a line names."""
NOTES = {
    "turned": "turned as the EXIF orientation says, as viewers show them: their masks have to show the same",
    "frames": "the first of several frames, of image or mask: the others are passed over",
    "transparent": "transparent in places: the colours are read as they are stored, without a background",
}
"""What a user should know of pictures that are read, continuing "3 images of split train are ..."."""


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
        problems: what stops a training run or leaves nothing to be learned, one sentence each, all of them.
        warnings: what looks wrong but stops nothing.
        fingerprint: of the whole data set, see ``engine.data.fingerprint``; "" if files are missing.
        proxy: counts over the folder of the proxy task; None if there is none.
    """

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]
    problems: list[str]
    warnings: list[str]
    fingerprint: str
    proxy: ProxySummary | None = None

    @property
    def problem_count(self) -> int:
        """How many problems there are."""
        return len(self.problems)


@dataclass(frozen=True)
class _Seen:
    """One image as it was read: its name, what its pixels hash to, its size in words, counts of its label map, and
    which of ``NOTES`` its files ask for and the values of its mask."""

    name: str
    digest: str
    size: str
    counts: NDArray[np.int64]
    notes: frozenset[str] = frozenset()
    values: frozenset[int] = frozenset()


@dataclass
class _Found:
    """All images of a split that could be read, and sentences about those that could not.

    Attributes:
        values: that its masks hold, before they get a meaning.
        wrong: masks whose values have none; their sentences are among the problems.
        rule: what values mean; None for data without files.
    """

    seen: list[_Seen] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    values: set[int] = field(default_factory=set)
    wrong: list[WrongValuesError] = field(default_factory=list)
    rule: LabelRule | None = None
    warnings: list[str] = field(default_factory=list)

    def summary(self, num_classes: int) -> SplitSummary:
        pixels, present = np.zeros(256, np.int64), np.zeros(256, np.int64)
        for seen in self.seen:
            pixels += seen.counts
            present += seen.counts > 0
        return SplitSummary(
            images=len(self.seen),
            sizes=dict(Counter(seen.size for seen in self.seen).most_common()),
            pixels=pixels[:num_classes].tolist(),
            present=present[:num_classes].tolist(),
            void=int(pixels[VOID]),
        )


def summarise(
    config: DataConfig, progress: Progress | None = None, proxy: ProxyConfig | None = None, seed: int = 0
) -> DataReport:
    """Read the whole data set, image by image, and list everything that is wrong instead of stopping at the first.

    Args:
        proxy: the recipe's proxy section, whose images are read, too; None = there is none.
        seed: the run's, which chooses ``proxy.max_images``.

    Raises:
        DataError: the classes file or ``data.root`` cannot be read; without them nothing can be checked.
    """
    classes = class_names(config)
    found = {split: _read_split(config, split, progress) for split in SPLITS}
    splits: dict[str, SplitSummary] = {split: found[split].summary(len(classes)) for split in SPLITS}
    problems = _with_cause(list(dict.fromkeys(text for split in SPLITS for text in found[split].problems)), found)
    warnings = [text for split in SPLITS for text in found[split].warnings]
    for split in SPLITS:
        warnings += _note_warnings(split, found[split].seen)
        warnings += _void_warnings(split, found[split].seen) + _copy_warnings(split, found[split].seen)
    warnings += _duplicate_warnings(found["train"].seen, found["val"].seen)
    warnings += _class_warnings(classes, splits) + _unused_keys(config, found)
    for labels in (_labels(split, splits[split]) for split in SPLITS):
        told = [*supervision.mostly_void(labels, f"the {labels.split} split"), *supervision.one_class(labels, classes)]
        warnings += [f"{text}." for text in told]
        problems += [] if problems else _refusal(config, labels, classes)
    try:
        whole = fingerprint(config, progress)
    except DataError:
        whole = ""  # what is missing is among the problems
    images, wrong, odd = summarise_proxy(proxy, seed, progress) if proxy is not None else (None, [], [])
    return DataReport(config.kind, classes, splits, problems + wrong, warnings + odd, whole, images)


def _labels(split: str, summary: SplitSummary) -> Labels:
    return Labels(split, tuple(summary.pixels), summary.void, summary.images, summary.images)


def _refusal(config: DataConfig, labels: Labels, classes: tuple[str, ...]) -> list[str]:
    """Why nothing can come of the labels of a split, of which every mask could be read."""
    try:
        supervision.refuse(config, labels, classes)
    except DataError as error:
        return [str(error)]
    return []


def _read_split(config: DataConfig, split: Split, progress: Progress | None) -> _Found:
    found = _Found()
    try:
        if config.kind in LISTINGS:
            listing = LISTINGS[config.kind](config, split)
            work, count, text = _listed(listing), len(listing.pairs), f"reading {split} images"
            found.rule = listing.rule
            found.problems += listing.problems
            found.warnings += [*listing.remarks(), *_orphan_warnings(listing)]
        else:
            work, count, text = _drawn(config, split)
    except DataError as error:
        found.problems.append(str(error))
        return found
    for result in in_threads(work, count, text, progress):
        if isinstance(result, _Seen):
            found.seen.append(result)
            found.values |= result.values
        else:
            found.problems.append(str(result))
        if isinstance(result, WrongValuesError):
            found.wrong.append(result)
            found.values |= set(result.pixels)
    return found


def _with_cause(problems: list[str], found: Mapping[Split, _Found]) -> list[str]:
    """The problems, with one sentence for all masks of wrong values: what was done, if all values together tell.

    A mask alone may lack the values that would tell, and have others that tell something false.
    """
    rule = next((split.rule for split in found.values() if split.rule is not None), None)
    values = {value for split in found.values() for value in split.values}
    if rule is None or not rule.guess or not values:
        return problems
    cause = rule.cause(values)
    wrong = [error for split in found.values() for error in split.wrong]
    if not wrong:
        return problems if cause is None else [*problems, f"{_ONLY_BINARY}: {cause.advice}."]
    if cause is None and len(wrong) == 1 and rule.cause(set(wrong[0].pixels)) is None:
        return problems  # its own sentence guesses nothing, and has its numbers of pixels
    sentence = _jointly(rule, wrong, cause.advice if cause is not None else "", values)
    told = {str(error) for error in wrong}
    return [*(text for text in problems if text not in told), sentence]


def _jointly(rule: LabelRule, wrong: Sequence[WrongValuesError], advice: str, values: Collection[int]) -> str:
    """One sentence about all masks of wrong values; ``advice``: what fits them all, "" = nothing does."""
    bad = sorted(value for value in values if rule.meaning[value] < 0)
    verb = "holds" if len(wrong) == 1 else "hold"
    holds = f"{_count(wrong, 'mask')} {verb}"
    if advice:
        return f"{holds} values of {', '.join(map(str, bad))} but {rule.allowed}: {advice}."
    voids = [value for value, meaning in enumerate(rule.meaning) if meaning == VOID]
    several = (
        f"if they mean void, set data.void_labels to {voids + bad}; else say what they mean with data.label_map, or"
        " add classes to the classes file"
    )
    remedy = rule.remedy(bad[0]) if len(bad) == 1 else several
    what = f"the value {bad[0]}" if len(bad) == 1 else f"values of {', '.join(map(str, bad))}"
    shown = ", ".join(map(str, sorted(values)))
    why = f"no one conversion fits the values of all masks ({shown})"
    return f"{holds} {what} but {rule.allowed}, and {why}: {remedy}. {_where(bad, wrong)}."


def _where(bad: Sequence[int], wrong: Sequence[WrongValuesError]) -> str:
    """Which masks hold the first few wrong values."""
    parts: list[str] = []
    for value in bad[:SHOWN_NAMES]:
        holding = [error for error in wrong if value in error.pixels]
        more = f" and {len(holding) - 1} more" if len(holding) > 1 else ""
        pixels = sum(error.pixels[value] for error in holding)
        parts.append(f"{value} {'' if parts else 'is '}in {holding[0].file}{more} ({pixels} pixels)")
    return ", ".join(parts) + (f", and {len(bad) - SHOWN_NAMES} more values" if len(bad) > SHOWN_NAMES else "")


def _unused_keys(config: DataConfig, found: Mapping[Split, _Found]) -> list[str]:
    """That the map speaks of values that no mask holds: a slip, or a map that was made for other masks."""
    values = {value for split in found.values() for value in split.values}
    mapped = sorted(map(int, config.label_map)) if isinstance(config, FolderData) else []
    unused = [str(value) for value in mapped if value not in values]
    if not unused or not values:
        return []
    unread = any(split.problems for split in found.values())
    named = f"{', '.join(unused[:-1])} and {unused[-1]}" if len(unused) > 1 else unused[0]
    return [f"data.label_map speaks of {named}, which no mask {'that can be read ' if unread else ''}holds."]


_Work = Callable[[int], "_Seen | DataError"]
"""Reads one image; why it cannot be used."""


def _listed(listing: Listing) -> _Work:
    def read(index: int) -> _Seen | DataError:
        pair = listing.pairs[index]
        try:
            require_files([pair], listing.remedy)
            image, mask = read_pair(pair)
            seen = _look(pair.name, *fitted(image, mask, listing.rule, listing.scale))
            held = np.flatnonzero(
                np.bincount(mask.meant(listing.rule.meaning, listing.rule.named).ravel(), minlength=256)
            )
            return replace(seen, notes=_notes(pair, image), values=frozenset(held.tolist()))
        except DataError as error:
            return error

    return read


def _drawn(config: DataConfig, split: Split) -> tuple[_Work, int, str]:
    source = BUILDERS[config.kind](config, split)

    def read(index: int) -> _Seen | DataError:
        return _look(source.names[index], *source.read(index))

    return read, len(source.names), source.doing


def _look(name: str, picture: Bytes, labels: Bytes) -> _Seen:
    counts = np.bincount(labels.ravel(), minlength=256)
    size = f"{labels.shape[1]}x{labels.shape[0]}"
    # Plane after plane, as pictures of files lie in memory: nothing is copied.
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    return _Seen(name, hashlib.sha256(size.encode() + b"\0" + planes.data).hexdigest(), size, counts)


def _notes(pair: Pair, image: Picture) -> frozenset[str]:
    """Which of ``NOTES`` apply to a pair whose image was read."""
    found = {
        "turned": image.orientation != 1,
        "frames": has_frames(pair.image) or has_frames(pair.mask),
        "transparent": image.is_transparent(),
    }
    return frozenset(note for note, applies in found.items() if applies)


def _note_warnings(split: str, seen: list[_Seen]) -> list[str]:
    warnings = []
    for note, text in NOTES.items():
        names = [one.name for one in seen if note in one.notes]
        if names:
            verb = "is" if len(names) == 1 else "are"
            warnings.append(f"{_count(names, 'image')} of split {split} {verb} {text}: {_some(names)}.")
    return warnings


def _void_warnings(split: str, seen: list[_Seen]) -> list[str]:
    """Masks of void alone: nothing is learned from them, and nothing measured."""
    names = [one.name for one in seen if one.counts[VOID] == one.counts.sum()]
    if not names:
        return []
    verb = "holds" if len(names) == 1 else "hold"
    return [f"{_count(names, 'mask')} of split {split} {verb} void alone, nothing can be learned from: {_some(names)}."]


def _copy_warnings(split: str, seen: list[_Seen]) -> list[str]:
    """Images that are twice in one split count twice."""
    first: dict[str, str] = {}
    copies = [f"{first[one.digest]} = {one.name}" for one in seen if first.setdefault(one.digest, one.name) != one.name]
    if not copies:
        return []
    return [f"{_count(copies, 'image')} of the same content as another within split {split}: {_some(copies)}."]


def _duplicate_warnings(train: list[_Seen], val: list[_Seen]) -> list[str]:
    """Images that are in both splits would make the validation score too good."""
    warnings = []
    train_names = {same(seen.name) for seen in train}
    names = [seen.name for seen in val if same(seen.name) in train_names]
    if names:
        warnings.append(
            f"{_count(names, 'name')} in both splits, the validation score may be too good: {_some(names)}."
        )
    by_content = {seen.digest: seen.name for seen in train}
    copies = [f"{seen.name} (val) = {by_content[seen.digest]} (train)" for seen in val if seen.digest in by_content]
    if copies:
        warnings.append(
            f"{_count(copies, 'image')} of the same content in both splits, the validation score may be too good:"
            f" {_some(copies)}."
        )
    return warnings


def _orphan_warnings(listing: Listing) -> list[str]:
    if not listing.orphans:
        return []
    return [
        f"{_count(listing.orphans, 'mask')} of split {listing.split} without an image, passed over:"
        f" {_some([str(path) for path in listing.orphans])}."
    ]


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN_NAMES} more" if len(items) > SHOWN_NAMES else ""
    return ", ".join(items[:SHOWN_NAMES]) + more


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
    """The report as text: sizes of each split, a table of the classes, then what is wrong."""
    lines = []
    for split, summary in report.splits.items():
        lines.append(f"{split}: {summary.images} images, {_sizes(summary.sizes) or 'none readable'}")
    if report.proxy is not None:
        lines.append(format_proxy(report.proxy))
    lines += _table(report)
    if report.fingerprint:
        lines.append(f"fingerprint: sha256:{report.fingerprint}")
    lines += [f"warning: {text}" for text in report.warnings]
    lines += [f"problem: {text}" for text in report.problems]
    lines.append(f"{report.problem_count or 'no'} problem{'' if report.problem_count == 1 else 's'} found")
    return "\n".join(lines)


def _sizes(sizes: dict[str, int]) -> str:
    shown = ", ".join(f"{size} ({count})" for size, count in list(sizes.items())[:SHOWN_SIZES])
    rest = list(sizes.values())[SHOWN_SIZES:]
    if not rest:
        return shown
    sizes_words, images_words = (
        f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(rest), "more size"), (sum(rest), "image"))
    )
    return f"{shown} and {sizes_words}, {images_words}"


def _table(report: DataReport) -> Iterator[str]:
    """One line a class: its share of the pixels, and in how many images it occurs, for each split."""
    width = max(len(name) for name in ("class", "void", *report.classes))
    heads = "".join(f" {split + ' %':>9} {'images':>8}" for split in report.splits)
    yield f"  {'':3} {'class':<{width}}{heads}"
    for index, name in enumerate(report.classes):
        cells = "".join(f" {_share(s, s.pixels[index])} {s.present[index]:8d}" for s in report.splits.values())
        yield f"  {index:3d} {name:<{width}}{cells}"
    cells = "".join(f" {_share(s, s.void)} {'':8}" for s in report.splits.values())
    yield f"  255 {'void':<{width}}{cells}".rstrip()


def _share(summary: SplitSummary, pixels: int) -> str:
    return f"{100 * pixels / max(sum(summary.pixels) + summary.void, 1):9.2f}"
