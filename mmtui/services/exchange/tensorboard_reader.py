"""Scalars from TensorBoard event files. As in TensorBoard, each folder that holds event files is a run."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmtui.errors import NotFoundError, RefusedError
from mmtui.services.exchange import tensorboard
from mmtui.services.exchange.counting import counted
from mmtui.services.exchange.eventfile import REPEATED
from mmtui.services.exchange.tfrecords import Gap, records

MOST_RUNS = 1_000
"""Runs that one import takes."""
LARGEST_TOTAL = 16 << 30
"""Bytes of all event files of one import."""
MOST_POINTS = 5_000_000
"""Points of one run: they are in memory at once."""
MOST_GAPS_TOLD = 5
_MARK = "tfevents"

Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


@dataclass(frozen=True)
class LoggedRun:
    """The event files of one run, in the order in which they were begun, and what the run is called."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of a tag; ``time`` is Unix seconds."""

    tag: str
    step: int
    time: float
    value: float


@dataclass(slots=True)
class Scalars:
    """The scalars of a run by time, and sentences about what else its files held."""

    points: list[Scalar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(source: Path) -> list[LoggedRun]:
    """The runs below a folder (its own event files, too), or that of one file: ``FOLDER`` and ``FOLDER/train`` ...

    Raises:
        UsageError: TensorBoard is not installed.
        NotFoundError: there is no event file.
        RefusedError: there are too many runs, or bytes, for one import.
    """
    tensorboard.load()
    found = list(_found(source))
    if not found:
        raise NotFoundError(f"{source} has no TensorBoard event file", "give the folder that holds them")
    if len(found) > MOST_RUNS:
        raise RefusedError(f"{source} holds {len(found):,} runs", f"import at most {MOST_RUNS:,} at once: a sub-folder")
    total = sum(file.stat().st_size for run in found for file in run.files)
    if total > LARGEST_TOTAL:
        raise RefusedError(
            f"{source} holds {total / 2**30:,.1f} GiB of event files",
            f"import at most {LARGEST_TOTAL >> 30} GiB at once: a sub-folder",
        )
    return found


def linked_folders(source: Path) -> list[Path]:
    """Folders below that are links: they are passed over, since they may lead in a circle."""
    folders = (Path(folder, name) for folder, below, _ in os.walk(source) for name in sorted(below))
    return [folder for folder in folders if folder.is_symlink()]


def _found(source: Path) -> Iterator[LoggedRun]:
    if source.is_file():
        yield LoggedRun(source.parent.name, (source,))
        return
    for folder, below, names in os.walk(source):
        below.sort()
        files = sorted(name for name in names if _MARK in name)
        regular = tuple(path for path in (Path(folder, name) for name in files) if path.is_file())
        if regular:
            inner = Path(folder).relative_to(source)
            yield LoggedRun(str(Path(source.name) / inner), regular)


def read(run: LoggedRun, progress: Progress) -> Scalars:
    """Every scalar of a run: of a step that was told again, as after a restart, the last one.

    Raises:
        OSError: a file cannot be read.
    """
    reading = _Reading()
    for file in run.files:
        for record in records(file):
            if isinstance(record, Gap):
                reading.gaps.append((file, record))
                progress(record.count)
            else:
                reading.take(record, file)
                progress(len(record))
    reading.number_stepless()
    points = sorted(reading.points.values(), key=lambda point: (point.time, point.step))
    return Scalars(points, reading.notes())


class _Reading:
    """What has been read of a run so far."""

    def __init__(self) -> None:
        self.event_pb2 = tensorboard.load().event_pb2
        self.undecodable = _decode_error()
        self.points: dict[tuple[str, int], Scalar] = {}
        self.gaps: list[tuple[Path, Gap]] = []
        self.at_zero: defaultdict[str, list[Scalar]] = defaultdict(list)
        """Every point of step 0, which is also what a point without a step has."""
        self.repeated = self.numbered = self.zeros = 0
        self.beyond = 0
        self.unknown = 0
        self.others: Counter[str] = Counter()

    def take(self, record: bytes, file: Path) -> None:
        """Keep the scalars of one record."""
        try:
            event = self.event_pb2.Event.FromString(record)
        except self.undecodable:
            self.unknown += 1
            return
        for value in event.summary.value:
            number = _number(value)
            if number is None:
                self.others[value.tag] += 1
            else:
                self._keep(Scalar(value.tag, event.step, event.wall_time, number))

    def _keep(self, point: Scalar) -> None:
        place = (point.tag, point.step)
        if place in self.points:
            self.repeated += 1
            del self.points[place]
        elif len(self.points) >= MOST_POINTS:
            self.beyond += 1
            return
        self.points[place] = point
        if not point.step and self.zeros < MOST_POINTS:
            self.zeros += 1
            self.at_zero[point.tag].append(point)

    def number_stepless(self) -> None:
        """Count the points of a tag that never tells a step: they would all be the same one."""
        stepped = {tag for tag, step in self.points if step}
        for tag, points in self.at_zero.items():
            if tag not in stepped and len(points) > 1:
                del self.points[tag, 0]
                self.points |= {(tag, n): replace(point, step=n) for n, point in enumerate(points, 1)}
                self.repeated -= len(points) - 1
                self.numbered += len(points)

    def notes(self) -> list[str]:
        """Sentences about everything that is not among the points."""
        told = [
            f"{counted(gap.count, 'byte')} behind byte {gap.byte:,} of {file} could not be read: {gap.why}"
            for file, gap in self.gaps[:MOST_GAPS_TOLD]
        ]
        if more := self.gaps[MOST_GAPS_TOLD:]:
            lost = counted(sum(gap.count for _, gap in more), "byte")
            told.append(f"{lost} at {counted(len(more), 'more place')} could not be read")
        if self.unknown:
            told.append(f"left out: {counted(self.unknown, 'record')} that TensorBoard's format does not know")
        if self.numbered:
            told.append(f"{counted(self.numbered, 'point')} without a step got one, in their order")
        if self.repeated:
            told.append(REPEATED.format(counted(self.repeated, "point")))
        if self.beyond:
            told.append(f"left out: {counted(self.beyond, 'point')} beyond the first {MOST_POINTS:,} of a run")
        if self.others:
            values, tags = counted(sum(self.others.values()), "value"), counted(len(self.others), "tag")
            told.append(f"left out: {values} of {tags} without scalars")
        return told


def _decode_error() -> type[Exception]:
    """What protobuf raises for bytes that are no message."""
    from google.protobuf import message

    found: type[Exception] = message.DecodeError
    return found


def _number(value: Any) -> float | None:
    """The number of a scalar, as TensorFlow 1 and 2 write it; None for an image, a histogram, a text ..."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.tensor.tensor_shape.dim:
        return None  # a tensor of a shape may claim any amount of memory
    from tensorboard.util import tensor_util

    try:
        # TensorFlow 2 writes scalars as tensors of no dimension.
        array = tensor_util.make_ndarray(value.tensor)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiu" else None
