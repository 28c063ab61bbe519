"""Series of device samples: fewer of them, and what they amount to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from mmtui.domain.text import size
from mmtui.domain.views import DeviceUse, TrainerView

Number = TypeVar("Number", int, float)

LEAST_GAP_SECONDS = 30.0
"""Between two samples that are further apart than this, and than three usual distances, nothing is known."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What samples of one device amount to. None where the device does not tell."""

    count: int
    utilisation: float | None  # mean, percent
    memory_used: int | None  # largest, bytes
    memory_total: int | None  # bytes
    power_watts: float | None  # mean
    temperature: float | None  # largest, degrees Celsius
    energy_joules: float | None  # over the times in which samples were taken


def thinned(samples: Sequence[DeviceUse], most: int) -> list[DeviceUse]:
    """At most so many samples, each for an equal share of the time: means of use and power, largest memory and heat."""
    if len(samples) <= most or most < 1:
        return list(samples)
    first, span = samples[0].time, (samples[-1].time - samples[0].time) or 1.0
    shares: dict[int, list[DeviceUse]] = {}
    for sample in samples:
        shares.setdefault(min(int((sample.time - first) / span * most), most - 1), []).append(sample)
    return [merged(several) for several in shares.values()]


def merged(samples: Sequence[DeviceUse]) -> DeviceUse:
    """Several samples as one."""
    return DeviceUse(
        sum(s.time for s in samples) / len(samples),
        _mean(s.utilisation for s in samples),
        _largest(s.memory_used for s in samples),
        _largest(s.memory_total for s in samples),
        _mean(s.power_watts for s in samples),
        _largest(s.temperature for s in samples),
    )


def gap_seconds(samples: Sequence[DeviceUse]) -> float:
    """Longest distance of two samples between which the device's use may be taken as known."""
    distances = [after.time - before.time for before, after in pairwise(samples)]
    return max(LEAST_GAP_SECONDS, 3 * sorted(distances)[len(distances) // 2]) if distances else LEAST_GAP_SECONDS


def energy_joules(samples: Sequence[DeviceUse]) -> float | None:
    """Power summed over time by trapezia, gaps left out; None if no two samples tell it."""
    known = [s for s in samples if s.power_watts is not None]
    longest, total, found = gap_seconds(known), 0.0, False
    for before, after in pairwise(known):
        seconds = after.time - before.time
        if 0 < seconds <= longest:
            total += seconds * ((before.power_watts or 0.0) + (after.power_watts or 0.0)) / 2
            found = True
    return total if found else None


def summary(attempts: Iterable[Sequence[DeviceUse]]) -> Summary:
    """What a device did over several attempts."""
    several = [list(samples) for samples in attempts]
    samples = [sample for one in several for sample in one]
    energies = [energy for one in several if (energy := energy_joules(one)) is not None]
    return Summary(
        len(samples),
        _mean(s.utilisation for s in samples),
        _largest(s.memory_used for s in samples),
        _largest(s.memory_total for s in samples),
        _mean(s.power_watts for s in samples),
        _largest(s.temperature for s in samples),
        sum(energies) if energies else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _largest(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def trainer_words(one: TrainerView) -> str:
    """A trainer in one line."""
    cpu = "" if one.cpu_percent is None else f"  {one.cpu_percent:.0f}% of a core"
    workers = "" if one.processes == 1 else f"  {one.processes} processes"
    return f"  run {one.run}  pid {one.pid}{cpu}  {size(one.memory)}{workers}"
