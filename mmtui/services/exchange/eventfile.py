"""An event file of another trainer, made fit to be taken in: every event gets the steps that its line leaves out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engine.events import LONGEST_LINE, whole_lines
from engine.events.numbers import whole
from engine.events.reader import raw_line
from engine.json_types import Json, JsonObject
from mmtui.errors import NotFoundError, UsageError
from mmtui.services.exchange.counting import counted
from mmtui.services.plain_files import open_file

INFINITE = "changed: {} kept as no number"
REPEATED = "left out: {} of a step that was logged again: the last one counts"

Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


class StepFiller:
    """Gives events their ``step`` and ``global_step`` where a line has none; counts what the database will not keep.

    With ``step`` alone the run's step is that of the stage behind all earlier stages: where they end is told by
    ``run_started`` or ``stage_started``, or is the last step before the stage began. With ``global_step`` alone it is
    the other way round. With neither, each ``metrics`` event is a step of its own, and any other event belongs to the
    last one.
    """

    def __init__(self) -> None:
        self.numbered = 0
        """``metrics`` events that had no step at all and got one."""
        self.completed = 0
        """``metrics`` events that had a step of the stage or of the run, and got the other."""
        self.repeated = 0
        """Points of a step at which the metric had one already, which the later one replaces."""
        self.infinite = 0
        """Infinite values, which the database keeps as no numbers."""
        self.too_long = 0
        """Lines that are longer than an event may be."""
        self._offsets: dict[str, int] = {}
        self._last = 0
        self._seen: dict[str, set[int]] = {}

    def fill(self, event: JsonObject) -> bool:
        """Complete an event in place; whether anything had to be added."""
        stage = str(event.get("stage") or "")
        values = event.get("values")
        told = values if isinstance(values, dict) else {}
        self._learn(str(event["kind"]), stage, told)
        added = self._add_steps(event, stage)
        step = whole(event.get("global_step"))
        if step is not None:
            self._last = step
            if event["kind"] == "metrics":
                self._count(step, told)
        return added

    def _learn(self, kind: str, stage: str, values: Mapping[str, Json]) -> None:
        """Where stages begin, as events tell it."""
        stages = values.get("stages")
        if kind == "run_started" and isinstance(stages, list):
            offset = 0
            for item in stages:
                steps = whole(item[1]) if isinstance(item, list) and len(item) == 2 else None
                if steps is None:
                    return
                self._offsets[str(item[0])] = offset
                offset += steps
        elif kind == "stage_started" and (offset_told := whole(values.get("offset"))) is not None:
            self._offsets[stage] = offset_told

    def _add_steps(self, event: JsonObject, stage: str) -> bool:
        step, global_step = event.get("step"), event.get("global_step")
        if step is not None and global_step is not None:
            return False
        offset = self._offsets.setdefault(stage, self._last) if stage else 0
        counts = event["kind"] == "metrics"
        if step is None and global_step is None:
            self.numbered += counts
            event["global_step"] = self._last + counts
            event["step"] = max(self._last + counts - offset, 0)
        elif global_step is None:
            number = whole(step)
            if number is None:
                return False  # it is no event, which is told where it is stored
            event["global_step"] = offset + number
        else:
            number = whole(global_step)
            event["step"] = 0 if number is None else max(number - offset, 0)
        self.completed += counts and not (step is None and global_step is None)
        return True

    def _count(self, step: int, values: Mapping[str, Json]) -> None:
        for name, value in values.items():
            if value is None or isinstance(value, int | float):
                steps = self._seen.setdefault(name, set())
                self.infinite += isinstance(value, float) and math.isinf(value)
                self.repeated += step in steps
                steps.add(step)

    def notes(self) -> list[str]:
        """Sentences about what was added and what is not kept."""
        told = []
        if self.numbered:
            told.append(f"changed: {counted(self.numbered, 'metrics event')} without a step got one, in their order")
        if self.completed:
            events = counted(self.completed, "metrics event")
            told.append(f"changed: {events} with one of step and global_step got the other")
        if self.infinite:
            told.append(INFINITE.format(counted(self.infinite, "infinite value")))
        if self.too_long:
            told.append(f"left out: {counted(self.too_long, 'line')} longer than {LONGEST_LINE >> 20} MiB")
        if self.repeated:
            told.append(REPEATED.format(counted(self.repeated, "point")))
        return told


def check(source: Path) -> None:
    """Refuse what is no event file.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it holds no event, or cannot be read.
    """
    if not source.is_file():
        raise NotFoundError(f"{source} does not exist")
    try:
        with open_file(source) as file:
            if any(line is not None and raw_line(line) is not None for _, line in whole_lines(file)):
                return
            file.seek(0)
            if raw_line(file.read(LONGEST_LINE)) is not None:  # one line without a newline
                return
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}") from None
    raise UsageError(f"{source} holds no event", "the format is described in docs/events.md")


def lines(source: Path, filler: StepFiller, progress: Progress) -> Iterator[bytes]:
    """The lines of an event file, unchanged but for steps that are filled in. The last one may lack its newline.

    Lines that are no events stay as they are: they are counted where they are stored. One that is too long is left out.
    """
    with open_file(source) as file:
        reached = 0
        for length, line in whole_lines(file):
            progress(length)
            reached += length
            if line is None:
                filler.too_long += 1
            else:
                yield _completed(line, filler)
        file.seek(reached)
        rest = file.read(LONGEST_LINE)
        progress(len(rest))
        if len(rest) == LONGEST_LINE:
            filler.too_long += 1
        elif rest.strip():
            yield _completed(rest + b"\n", filler)


def _completed(line: bytes, filler: StepFiller) -> bytes:
    event = raw_line(line)
    if event is None or not filler.fill(event):
        return line
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
