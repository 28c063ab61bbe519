"""What the devices of a run did while it trained, over its steps or time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mmtui.domain.device_use import gap_seconds, summary
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import printable, size
from mmtui.domain.views import DeviceRecord, DeviceUse, RunDetail, RunDevices
from mmtui.paths import Home
from mmtui.services import moments, runs
from mmtui.services.device_history import HOST, history
from mmtui.services.devices import gpu_numbers
from mmtui.tui.pages.charts import View
from mmtui.tui.pages.compose import column_width, columns, padded, table
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import Curve, Frame, Sample, draw

LEAST_WIDTH, HEIGHT = 36, 7
GIB = 2.0**30
SIMULATED = "SIMULATED: a recording plays the NVIDIA driver"


@dataclass(frozen=True)
class Measure:
    """One thing that is measured of a device."""

    name: str
    unit: str
    value: Callable[[DeviceUse], float | None]
    limit: Callable[[DeviceUse], float | None]

    def text(self, value: float | None) -> str:
        """A value with its unit."""
        digits = 1 if self.unit == "GiB" else 0
        return "n/a" if value is None else f"{value:.{digits}f} {self.unit}"


def _gib(value: int | None) -> float | None:
    return None if value is None else value / GIB


MEASURES = (
    Measure("use", "%", lambda use: use.utilisation, lambda _: 100.0),
    Measure("memory", "GiB", lambda use: _gib(use.memory_used), lambda use: _gib(use.memory_total)),
    Measure("power", "W", lambda use: use.power_watts, lambda _: None),
    Measure("heat", "C", lambda use: use.temperature, lambda _: None),
)


@dataclass(frozen=True)
class TimeAxis:
    """How time is laid out (``kind`` as in ``axes.AXES``; epochs are shown as steps), and where the slider is."""

    steps: moments.Steps
    start: float
    kind: str
    until: float | None
    ends: tuple[float, float] | None = None

    @property
    def by_time(self) -> bool:
        return self.kind in ("clock", "relative")

    def x(self, attempt: int, time: float) -> float:
        if self.by_time:
            return time - (self.start if self.kind == "relative" else 0.0)
        return self.steps.at(attempt, time)


def run_devices(home: Home, run_id: str, width: int, height: int, ascii_only: bool, view: View) -> list[Line]:
    """A table of what each device did, then charts; with the slider, the table is as of its step."""
    detail, found = runs.get_run(home, run_id), history(home, run_id)
    if not found.records:
        return [[(printable(found.note), "dim")]]
    until = None if view.moment is None else moments.time_at(home, run_id, view.moment)
    axis = TimeAxis(moments.steps(home, run_id), detail.row.started_at or 0.0, view.axis, until)
    axis = replace(axis, ends=_window(found.records, axis, view.window))
    names = _names(found)
    lines: list[Line] = [[(SIMULATED, "warn")]] if found.simulated else []
    lines += [*(padded(line, width) for line in _table(found, names, until)), []]
    shown = [(device, measure) for device in names for measure in MEASURES if _told(found, device, measure)]
    each = column_width(width, LEAST_WIDTH, len(shown))
    rows = -(-len(shown) // max((width + 2) // (each + 2), 1))
    tall = max(HEIGHT, min((height - len(lines)) // max(rows, 1) - 2, 14))
    blocks = [_chart(found, detail, device, names[device], m, axis, each, tall, ascii_only) for device, m in shown]
    return [*lines, *columns(blocks, width, LEAST_WIDTH)]


def _names(found: RunDevices) -> dict[str, str]:
    """What the devices are called, GPUs by their number where the driver still knows them."""
    devices = list(dict.fromkeys(record.device for record in found.records))
    known = gpu_numbers() if any(device != HOST for device in devices) else {}
    names = {}
    for device in sorted(devices, key=lambda device: (device == HOST, device)):
        number = known.get(device)
        names[device] = "host" if device == HOST else f"GPU {number}" if number is not None else printable(device)[:12]
    return names


def _of(found: RunDevices, device: str, until: float | None = None) -> list[DeviceRecord]:
    records = [record for record in found.records if record.device == device]
    if until is None:
        return records
    return [DeviceRecord(r.device, r.attempt, tuple(s for s in r.samples if s.time <= until)) for r in records]


def _told(found: RunDevices, device: str, measure: Measure) -> bool:
    return any(measure.value(use) is not None for record in _of(found, device) for use in record.samples)


def _table(found: RunDevices, names: dict[str, str], until: float | None) -> list[Line]:
    rows = []
    for device, name in names.items():
        told = summary(record.samples for record in _of(found, device, until))
        use, _, power, heat = MEASURES
        energy = "n/a" if told.energy_joules is None else f"{told.energy_joules / 3.6e6:.3f} kWh"
        memory, whole = (size(value).removesuffix(" GiB") for value in (told.memory_used, told.memory_total))
        if device == HOST:
            energy = "-"
        rows.append(
            (
                *(name, str(told.count), use.text(told.utilisation), f"{memory} of {whole}"),
                *(power.text(told.power_watts), heat.text(told.temperature), energy),
            )
        )
    header = ("device", "samples", "mean use", "most GiB", "mean power", "most heat", "energy")
    return table(header, rows, (1, 2, 3, 4, 5, 6))


def _window(
    records: Sequence[DeviceRecord], axis: TimeAxis, window: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Ends of the axis that is drawn, the same for every chart; ``window`` in steps, None: all."""
    if window is not None and not axis.by_time:
        return window
    low, high = window or (-math.inf, math.inf)
    xs = [
        axis.x(record.attempt, use.time)
        for record in records
        for use in record.samples
        if window is None or low <= axis.steps.at(record.attempt, use.time) <= high
    ]
    return (min(xs), max(xs)) if xs and max(xs) > min(xs) else None


def _chart(
    found: RunDevices,
    detail: RunDetail,
    device: str,
    name: str,
    measure: Measure,
    axis: TimeAxis,
    width: int,
    height: int,
    ascii_only: bool,
) -> list[Line]:
    curves: list[Curve] = []
    at: float | None = None
    now: float | None = None
    for record in _of(found, device):
        curves += curves_of(record, measure, axis)
        for use in record.samples:
            if measure.value(use) is not None and (axis.until is None or use.time <= axis.until):
                now, at = measure.value(use), axis.x(record.attempt, use.time)
    limits = [limit for r in _of(found, device) for use in r.samples if (limit := measure.limit(use)) is not None]
    marks = [] if axis.by_time else [(float(stage.offset), stage.name) for stage in detail.stages]
    if axis.until is not None and at is not None:
        marks.append((at, "^" if ascii_only else "▲"))
    frame = Frame(
        width=width,
        height=height,
        ascii_only=ascii_only,
        marks=marks,
        x_axis=axis.kind if axis.by_time else "step",
        growing=axis.ends is None and RunState(detail.row.state) in ACTIVE_STATES,
        limits=(0.0, max(limits)) if limits else None,
        x_range=axis.ends,
    )
    title = fit(f"{name} {measure.name} ", max(width - 14, 8), ascii_only).rstrip()
    where = "" if axis.until is None else " then"
    return [[(f"{title} ", "title"), (f"{measure.text(now)}{where}", "warn" if where else "")], *draw(curves, frame)]


def curves_of(record: DeviceRecord, measure: Measure, axis: TimeAxis) -> list[Curve]:
    """Lines of one attempt: broken where nothing was recorded, dim where a later attempt did the steps again."""
    longest, before = gap_seconds(record.samples), None
    parts: list[tuple[bool, list[Sample]]] = []
    for use in record.samples:
        value = measure.value(use)
        if value is None:
            before = None
            continue
        x = axis.x(record.attempt, use.time)
        dim = not axis.by_time and axis.steps.superseded(record.attempt, x)
        if axis.ends is not None and not axis.ends[0] <= x <= axis.ends[1]:
            continue
        if before is None or use.time - before > longest or parts[-1][0] != dim:
            parts.append((dim, []))
        parts[-1][1].append(Sample(x, value, value, value))
        before = use.time
    return [Curve(samples, dim=dim) for dim, samples in parts if samples]
