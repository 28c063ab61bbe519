"""Devices now, with what they did lately and whose processes they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mmtui.domain.device_use import trainer_words
from mmtui.domain.text import printable, size
from mmtui.domain.views import DeviceSnapshot, DeviceUse, GpuProcess, GpuView, TrainerView
from mmtui.paths import Home
from mmtui.services.device_history import DISK, HOST, recent, uses_now
from mmtui.tui.pages.compose import column_width, columns
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import bar, spark

TEN_MINUTES, HOUR, DAY = 600.0, 3600.0, 86_400.0
TOLD = {TEN_MINUTES: "last ten minutes", HOUR: "last hour", DAY: "last day"}
LEAST_WIDTH = 52
NAME_WIDTH, BAR_WIDTH, TEXT_WIDTH = 6, 8, 18
LEAST_SPARK = 8
PROCESSES = 6
"""Processes of one GPU that are shown; the others are counted."""
LOW_DISK = 2 * 2**30

History = Mapping[str, Mapping[int, DeviceUse]]
Value = Callable[[DeviceUse], float | None]


def devices(
    home: Home,
    now: DeviceSnapshot,
    width: int,
    ascii_only: bool,
    seen: Sequence[DeviceSnapshot] = (),
    trainers: Sequence[TrainerView] = (),
) -> list[Line]:
    """A block for each device.

    Args:
        seen: earlier snapshots of this session: what the supervisor does not record while nothing runs.
        trainers: what trainers take of the host.
    """
    each = column_width(width, LEAST_WIDTH, len(now.gpus) + 1)
    room = max(each - NAME_WIDTH - BAR_WIDTH - TEXT_WIDTH - 2, LEAST_SPARK)
    past, span = _past(home, [*seen, now], room)
    lines: list[Line] = []
    if now.simulated:
        lines.append([("SIMULATED: a recording plays the NVIDIA driver", "warn")])
    if now.gpu_note:
        lines.append([(fit(now.gpu_note, width, ascii_only).rstrip(), "warn" if now.gpus else "dim")])
    blocks = [_gpu(gpu, past, each, room, ascii_only) for gpu in now.gpus]
    blocks.append([*_host(now, past, each, room, ascii_only), *_trainers(trainers, each, ascii_only)])
    caption = f"history: {TOLD[span]}, newest at the right; blank where nothing was recorded"
    return [*lines, *columns(blocks, width, LEAST_WIDTH), [], [(fit(caption, width, ascii_only).rstrip(), "dim")]]


def _past(home: Home, seen: Sequence[DeviceSnapshot], room: int) -> tuple[History, float]:
    """Samples in ``room`` shares of the time, and how long that is: as long as there is something to show for it."""
    newest = seen[-1].time
    span = DAY
    for shorter in (HOUR, TEN_MINUTES):
        known = [use.time for uses in recent(home, span, room).values() for use in uses.values()]
        known += [snapshot.time for snapshot in seen]
        if any(newest - time > shorter for time in known) and any(newest - time <= span for time in known[:-1]):
            break
        span = shorter
    found = recent(home, span, room)
    session: dict[str, dict[int, DeviceUse]] = {}
    for snapshot in seen:
        place = min(int((snapshot.time - newest + span) / span * room), room - 1)
        for device, use in uses_now(snapshot).items() if place >= 0 else ():
            session.setdefault(device, {})[place] = use
    return {name: {**session.get(name, {}), **found.get(name, {})} for name in {*session, *found}}, span


def _row(
    name: str,
    share: float | None,
    text: str,
    value: Value,
    top: float | None,
    past: Mapping[int, DeviceUse],
    room: int,
    ascii_only: bool,
) -> Line:
    """Name, gauge (where there is a whole to be a part of), words, history."""
    gauge = " " * BAR_WIDTH if share is None else bar(share, BAR_WIDTH, ascii_only)
    values = [value(past[place]) if place in past else None for place in range(room)]
    drawn = spark(values, ascii_only, top=top)
    return [(f"{name:{NAME_WIDTH}}", "dim"), (gauge, "cyan"), (f" {text:{TEXT_WIDTH}}", ""), (f" {drawn}", "curve")]


def _gpu(gpu: GpuView, history: History, width: int, room: int, ascii_only: bool) -> list[Line]:
    past = history.get(gpu.uuid, {})
    lines: list[Line] = [[(fit(_title(gpu), width, ascii_only).rstrip(), "bad" if gpu.lost else "title")]]
    if gpu.lost:
        lines.append([("LOST: the driver does not reach it any more", "bad")])
    elif gpu.mig:
        lines.append([("split into MIG devices, which follow", "dim")])
    share = None if gpu.utilisation is None else gpu.utilisation / 100
    memory = None if gpu.memory_used is None or not gpu.memory_total else gpu.memory_used / gpu.memory_total
    total = float(gpu.memory_total) if gpu.memory_total else None
    for name, part, text, value, top in (
        ("use", share, _words(gpu.utilisation, "%"), lambda use: use.utilisation, 100.0),
        ("mem", memory, _parts(gpu.memory_used, gpu.memory_total), lambda use: use.memory_used, total),
        ("power", None, _words(gpu.power_watts, " W"), lambda use: use.power_watts, None),
        ("heat", None, _words(gpu.temperature, " C"), lambda use: use.temperature, 100.0),
    ):
        lines.append(_row(name, part, text, value, top, past, room, ascii_only))
    lines += [[(fit(_process(p), width, ascii_only).rstrip(), "")] for p in gpu.processes[:PROCESSES]]
    more = len(gpu.processes) - PROCESSES
    if more > 0:
        lines.append([(f"  and {more} more process{'' if more == 1 else 'es'}: mmtui gpu", "warn")])
    return lines


def _title(gpu: GpuView) -> str:
    runs = sorted({process.run for process in gpu.processes if process.run}, key=lambda run: (len(run), run))
    whose = f"  run {', '.join(runs)}" if runs else ""
    if gpu.parent:
        return f"GPU {gpu.index} MIG  {gpu.name}{whose}"
    return f"GPU {gpu.index}  {gpu.name}{whose}"


def _process(process: GpuProcess) -> str:
    whose = f"run {process.run}" if process.run else printable(process.user)
    kind = "" if process.kind == "compute" else f"  {process.kind}"
    return f"  pid {process.pid}  {whose}  {size(process.memory)}{kind}"


def _words(value: float | None, unit: str) -> str:
    return "n/a" if value is None else f"{value:.0f}{unit}"


def _parts(used: int | None, total: int | None) -> str:
    """Used and whole in one unit: ``45.2 of 80.0 GiB``."""
    if used is None or total is None:
        return f"{size(used)} of {size(total)}"
    return f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"


def _host(now: DeviceSnapshot, history: History, width: int, room: int, ascii_only: bool) -> list[Line]:
    past, disk = history.get(HOST, {}), history.get(DISK, {})
    total, space = float(now.memory_total), float(now.disk_total)
    used = now.disk_total - now.disk_free
    rows: list[Line] = [
        [(fit(f"host  {now.cpu_count} cores  load {now.load1:.2f}", width, ascii_only).rstrip(), "title")]
    ]
    for name, share, text, value, top, samples in (
        ("CPU", now.cpu_percent / 100, f"{now.cpu_percent:.0f}%", lambda use: use.utilisation, 100.0, past),
        ("mem", now.memory_used / max(total, 1), _parts(now.memory_used, now.memory_total), _memory, total, past),
        ("disk", used / max(space, 1), _parts(used, now.disk_total), _memory, space, disk),
    ):
        rows.append(_row(name, share, text, value, top, samples, room, ascii_only))
    rows.append([(f"      {size(now.disk_free)} free", "bad" if now.disk_free < LOW_DISK else "dim")])
    return rows


def _trainers(trainers: Sequence[TrainerView], width: int, ascii_only: bool) -> list[Line]:
    """A line for each run; CPU use of one core is 100%."""
    lines: list[Line] = [[(fit(trainer_words(one), width, ascii_only).rstrip(), "")] for one in trainers[:PROCESSES]]
    more = len(trainers) - PROCESSES
    return [*lines, *([[(f"  and {more} more: mmtui gpu", "warn")]] if more > 0 else [])]


def _memory(use: DeviceUse) -> float | None:
    return use.memory_used
