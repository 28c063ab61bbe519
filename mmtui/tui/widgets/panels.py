"""What the panels of a run say, as lines of spans. Pure functions over view records."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from engine.events.records import Graph
from mmtui.domain.look import COLORS, glyph
from mmtui.domain.states import ACTIVE_STATES
from mmtui.domain.text import duration, fixed, in_ascii, number, printable, size
from mmtui.domain.views import (
    ClassTable,
    DeviceSnapshot,
    GpuView,
    GraphStats,
    RunDetail,
    RunRow,
    StageView,
    doubted,
    doubtful,
)
from mmtui.services.grouping import Group
from mmtui.tui.widgets.plot import Span, bar, spark

Line = list[Span]
FARTHEST = 4.0
"""Squared distance of opposite unit vectors."""


def fit(text: str, width: int, ascii_only: bool = False) -> str:
    """Text from outside in exactly ``width`` cells, cut with an ellipsis."""
    text = printable(text)
    if ascii_only:
        text = in_ascii(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    mark = "~" if ascii_only else "…"
    return set_cell_size(text, max(width - 1, 0)) + mark if width > 0 else ""


def fit_inside(text: str, width: int, ascii_only: bool = False) -> str:
    """A name in exactly ``width`` cells, cut in its middle: its end tells runs of a sweep apart."""
    text = printable(text)
    if ascii_only:
        text = in_ascii(text)
    if cell_len(text) <= width or width < LEAST_NAME:
        return fit(text, width, ascii_only)
    tail = (width - 1) // 2
    end = text[-tail:]
    while cell_len(end) > tail:
        end = end[1:]
    head = set_cell_size(text, width - 1 - cell_len(end))
    return f"{head}{'~' if ascii_only else '…'}{end}"


def fit_right(text: str, width: int, ascii_only: bool = False) -> str:
    """Text from outside flush right in exactly ``width`` cells."""
    short = fit(text, width, ascii_only).rstrip()
    return " " * (width - cell_len(short)) + short


ID_WIDTH, STATE_WIDTH, LEAST_NAME, MIOU_WIDTH = 5, 12, 10, 5
LEAST_WRAP = 30
"""Cells of a line that is wrapped; a state and its attempt go into one."""
_CONSOLE = Console(width=80, file=io.StringIO())
"""Rich wraps by a console's rules; nothing is written to it."""


def run_tail(row: RunRow, narrow: bool) -> str:
    """What stands behind the name unless columns are chosen."""
    if narrow:
        return f" {100 * row.progress:3.0f}% {_miou(row):>5}"
    loss = number(row.metrics.get("loss"), 3)
    return f" {fit(row.stage, 8)} {100 * row.progress:3.0f}% {loss:>6} {_miou(row):>5}"


def header_tail(narrow: bool) -> str:
    """Names above ``run_tail``."""
    return f" {'done':>4} {'mIoU':>5}" if narrow else f" {'stage':8} {'done':>4} {'loss':>6} {'mIoU':>5}"


def is_narrow(width: int) -> bool:
    """Whether the columns that can be missed are left out."""
    return width - ID_WIDTH - STATE_WIDTH - len(header_tail(False)) < LEAST_NAME


def run_line(row: RunRow, width: int, ascii_only: bool, mark: Span = (" ", ""), tail: str = "", depth: int = 0) -> Line:
    """One run in the table of runs, ``tail`` behind its name."""
    state = f"{glyph(row.state, ascii_only)} {row.state}"
    name = f"{'  ' * depth}{f'seed {row.seed}  ' if depth else ''}{row.name}"
    return [
        (f"{row.id:>4}", ""),
        mark,
        (f"{state:12}"[:12], COLORS.get(row.state, "")),
        (fit_inside(name, max(width - ID_WIDTH - STATE_WIDTH - len(tail), 4), ascii_only), ""),
        (tail, ""),
    ]


def run_header(width: int, tail: str) -> str:
    """Column names that stand above ``run_line``."""
    name_width = max(width - ID_WIDTH - STATE_WIDTH - len(tail), 4)
    return f"{'id':>4} {'state':12}{'name'[:name_width]:{name_width}}{tail}"


def group_line(found: Group, width: int, ascii_only: bool, opened: bool) -> Line:
    """Several runs as one line: how many, in which states, mean IoU with its spread."""
    arrow = ("v" if opened else ">") if ascii_only else ("▾" if opened else "▸")
    states = " ".join(f"{count}{glyph(state, ascii_only)}" for state, count in found.states.items())
    miou = found.miou
    spread = "" if miou is None or miou.sd is None else f"{'+-' if ascii_only else '±'}{fixed(miou.sd, 1)}"
    mean = "" if miou is None else f" {doubted(fixed(miou.mean, 1), found.doubts)}{spread} n={miou.n}"
    tail = f" {100 * found.progress:3.0f}%{mean:>16}"
    return [
        (f"{arrow}{len(found.rows):>3} ", "title"),
        (f"{states:12}"[:12], ""),
        (fit(found.title, max(width - ID_WIDTH - STATE_WIDTH - len(tail), 4), ascii_only), "title"),
        (tail, ""),
    ]


def _miou(row: RunRow) -> str:
    """In at most five cells; marked where something makes it doubtful."""
    miou = row.metrics.get("miou")
    shown = doubted(fixed(miou, 1), row.doubts)
    return shown if len(shown) <= MIOU_WIDTH else doubted(fixed(miou, 0), row.doubts)


def trouble(text: str, width: int, ascii_only: bool) -> list[Line]:
    """A sentence in the place of what cannot be shown."""
    text = printable(text)
    return wrapped(f"! {in_ascii(text) if ascii_only else text}", width, "bad")


def wrapped(text: str, width: int, style: str) -> list[Line]:
    """A sentence, whole, on as many lines as it takes."""
    lines = Text(printable(text)).wrap(_CONSOLE, max(width, LEAST_WRAP))
    return [[(line.plain.rstrip(), style)] for line in lines]


def stages(detail: RunDetail, width: int, ascii_only: bool) -> list[Line]:
    """Progress of every stage, and why the run is where it is."""
    lines: list[Line] = []
    marks = {"finished": ("✓", "+"), "running": ("●", ">"), "pending": ("○", "."), "stopped": ("■", "x")}
    room = max(width - 46, 6)
    alive = detail.row.state in ACTIVE_STATES
    for stage in detail.stages:
        status = "stopped" if stage.status == "running" and not alive else stage.status
        mark = marks.get(status, ("?", "?"))[1 if ascii_only else 0]
        share = stage.step / stage.total_steps if stage.total_steps else 0.0
        style = {"finished": "good", "running": "cyan"}.get(status, "dim")
        text = f"{mark} {fit(stage.name, 9)}{stage.step:>7}/{stage.total_steps:<7}"
        lines.append([(text, style), (f"{bar(share, room, ascii_only)} ", style), (_stage_time(stage, alive), "")])
    return [*lines, *standing(detail, width, ascii_only)]


def why(detail: RunDetail) -> str:
    """Why the run is where it is, "" if there is nothing to say."""
    return "; ".join(printable(text) for text in (detail.row.remark, detail.progress_note) if text)


def standing(detail: RunDetail, width: int, ascii_only: bool, most: int = 3) -> list[Line]:
    """State of a run and the reason for it, in at most so many lines."""
    row = detail.row
    word = f"{glyph(row.state, ascii_only)} {row.state}"
    if row.attempt > 1:
        word += f", attempt {row.attempt}"
    lines = [line.plain.rstrip() for line in Text(f"{word}  {why(detail)}").wrap(_CONSOLE, max(width, LEAST_WRAP))]
    if len(lines) > most:  # a reason may be long enough to hide what stands below it
        cut = " .." if ascii_only else " …"
        lines[most - 1] = set_cell_size(lines[most - 1], max(width, LEAST_WRAP) - len(cut)).rstrip() + cut
    return [[(word, COLORS.get(row.state, "")), (lines[0][len(word) :], "")], *([(p, "")] for p in lines[1:most])]


def _stage_time(stage: StageView, alive: bool) -> str:
    if alive and stage.status == "running" and stage.eta_seconds is not None:
        return f"{duration(stage.eta_seconds)} left"
    if stage.started_at and stage.ended_at:
        return f"took {duration(stage.ended_at - stage.started_at)}"
    return ""


GLYPHS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLASS_STYLES = ("cyan", "green", "yellow", "red", "magenta", "")


def glyph_of(index: int) -> str:
    """The letter that stands for a class, the same in every drawing."""
    return GLYPHS[index % len(GLYPHS)]


def style_of(index: int) -> str:
    """A colour beside the letter: never instead of it."""
    return CLASS_STYLES[index % len(CLASS_STYLES)]


def graph(
    stats: GraphStats | None,
    names: Sequence[str],
    width: int,
    height: int,
    ascii_only: bool,
    strategy: str = "graph",
    letters: bool = False,
) -> list[Line]:
    """The graph-sampling panel.

    Args:
        strategy: how its triplets were drawn; all but ``random`` promise one component per class.
        letters: put the letter of each class before its name.
    """
    if stats is None:
        return [[("no match graph yet: only the match stage samples one", "dim")]]
    v = stats.graph
    reach = f"  0-{histogram_reach(v):g}"
    lines: list[Line] = [
        [(f"step {stats.step}  {_nodes(v)}  classes {_told(v.classes_present)}/{len(names) or '?'}", "")],
        [
            ("attractive ", "dim"),
            (f"{_told(v.attractive_edges)}  ", "good"),
            ("rejective ", "dim"),
            (f"{_told(v.rejective_edges)}  ", "red"),
            (f"degree {number(v.degree_mean, 3)} max {_told(v.degree_max)}", "dim"),
        ],
        components(v, names, ascii_only, strategy),
        [
            (f"active triplets {_share(v.active_triplets)}  ", ""),
            (f"d+ {number(v.d_pos_mean, 3)}  d- {number(v.d_neg_mean, 3)}", ""),
        ],
        [("d+ ", "good"), (spark(v.d_pos_hist or [], ascii_only), "good"), (reach, "dim")],
        [("d- ", "red"), (spark(v.d_neg_hist or [], ascii_only), "red"), (reach, "dim")],
        *_patches(v, width),
        _starved(v, names),
    ]
    return lines + _nodes_per_class(v, names, width, max(height - len(lines), 0), ascii_only, letters)


def histogram_reach(v: Graph) -> float:
    """The distance at which the last bin ends; trainers that did not tell it counted up to 4."""
    told = v.d_hist_max
    return float(told) if told is not None and 0 < told <= FARTHEST else FARTHEST


def _told(value: float | None) -> str:
    """A count or a size, ``-`` where the trainer told none, or one that was no number and is left out."""
    return "-" if value is None else str(value)


def _nodes(v: Graph) -> str:
    of_several = f" in {v.graphs} graphs" if v.graphs is not None and v.graphs > 1 else ""
    return f"nodes {_told(v.nodes)}{of_several}"


def _patches(v: Graph, width: int) -> list[Line]:
    """Sizes, purity and overlap of patches; in two lines where one is too short."""
    least, most = _told(v.patch_size_min), _told(v.patch_size_max)
    sizes = f"patches {least}-{most} px  padding {_share(v.padding_share)}"
    overlaps = f"overlap dropped {_told(v.overlap_rejections)}, back {_told(v.topped_up)}"
    if "purity_mean" in v.values:  # trainers before it existed do not tell it
        overlaps = f"purity {_share(v.purity_mean)}  {overlaps}"
    if len(sizes) + len(overlaps) + 2 <= width:
        return [[(f"{sizes}  {overlaps}", "dim")]]
    return [[(sizes, "dim")], [(overlaps, "dim")]]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _name(names: Sequence[str], index: str) -> str:
    return names[int(index)] if index.isdecimal() and int(index) < len(names) else f"class {index}"


def strategy_of(detail: RunDetail) -> str:
    """How the run draws its triplets."""
    return str(detail.section("match").get("strategy", "graph"))


def components(v: Graph, names: Sequence[str], ascii_only: bool, strategy: str = "graph") -> Line:
    """Whether every class is one connected component: an alarm where the strategy promises it, else information."""
    told = v.components_per_class
    if told is None:
        return [("components per class: not told", "dim")]
    several = {c: n for c, n in told.items() if n != 1}
    if not several:
        return [("+ " if ascii_only else "✓ ", "good"), ("one component per class", "")]
    worst = ", ".join(f"{_name(names, c)} {n}" for c, n in sorted(several.items(), key=lambda item: -item[1])[:2])
    count = f"{len(several)} {'class' if len(several) == 1 else 'classes'}"
    if strategy == "random":  # the ablation: nothing ties a class together
        return [(f"random: {count} not connected, {worst}", "dim")]
    return [("! ALARM ", "bad"), (f"{count} not connected: {worst}", "warn")]


def _starved(v: Graph, names: Sequence[str]) -> Line:
    starved = v.starved
    if starved is None:
        return [("starved classes: not told", "dim")]
    if not starved:
        return [("no class is starved", "dim")]
    worst = sorted(starved.items(), key=lambda item: -item[1])[:4]
    words = ", ".join(f"{_name(names, c)} ({n} steps)" for c, n in worst)
    return [("! starved: ", "bad"), (words, "warn")]


def _nodes_per_class(
    v: Graph, names: Sequence[str], width: int, height: int, ascii_only: bool, letters: bool
) -> list[Line]:
    """A bar for each class; in two columns where one is too short for all."""
    told = v.nodes_per_class
    if told is None:
        return [[("nodes per class: not told", "dim")]][:height]
    counts = {int(c): n for c, n in told.items()}
    total = max(len(names), max(counts, default=-1) + 1)
    largest = max(counts.values(), default=1)
    double = total > height > 0 and width >= 44
    each = (width - 2) // 2 if double else width
    name_width = max(min(max((len(name) for name in names), default=15), 15, each - 14), 6)
    room = max(each - name_width - 7 - (2 if letters else 0), 4)
    rows = [
        f"{f'{glyph_of(c)} ' if letters else ''}{fit(_name(names, str(c)), name_width, ascii_only)} "
        f"{counts.get(c, 0):>4} {bar(counts.get(c, 0) / largest, room, ascii_only) if counts.get(c) else ''}"
        for c in range(total)
    ]
    if double:
        half = -(-total // 2)
        rows = [
            f"{set_cell_size(left, each)}  {right}".rstrip()
            for left, right in zip(rows[:half], [*rows[half:], ""], strict=False)
        ]
    if len(rows) > height > 0:
        rows = [*rows[: height - 1], f"and {total - (height - 1) * (2 if double else 1)} more classes"]
    return [[(text, "")] for text in rows[:height]]


def classes(found: ClassTable | None, width: int, height: int, ascii_only: bool) -> list[Line]:
    """Per-class IoU with bar and history."""
    if found is None:
        return [[("no evaluation yet", "dim")]]
    present = f"{found.num_present}/{len(found.classes)} classes"
    mean = doubted("-" if found.miou is None else fixed(100 * found.miou, 1), found.doubts)
    lines: list[Line] = [[(f"mIoU {mean} over {present}", "title"), (f"  {printable(found.stage)}", "dim")]]
    if found.doubts:
        lines += _doubt(found.doubts, width, max(height - 2, 1), ascii_only)
    name_width = min(max((len(c.name) for c in found.classes), default=8), 16)
    history = 8 if width >= 50 else 0
    room = max(width - name_width - 8 - (history + 1 if history else 0), 4)
    for c in found.classes:
        iou = "-" if c.iou is None else f"{100 * c.iou:.1f}"
        past = list(c.history)[-history:] if history else []
        shown = spark(past, ascii_only, top=1.0).rjust(history) if history else ""
        drawn = bar(c.iou or 0.0, room, ascii_only)
        lines.append([(f"{fit(c.name, name_width, ascii_only)} {iou:>5} ", ""), (drawn, "cyan"), (f" {shown}", "dim")])
    return _clip(lines, height, "classes")


def _doubt(doubts: Sequence[str], width: int, height: int, ascii_only: bool) -> list[Line]:
    """What makes a score doubtful, whole where there is room."""
    lines = wrapped(doubtful(doubts), width, "warn")
    return lines if len(lines) <= height else [[(fit(doubtful(doubts), width, ascii_only).rstrip(), "warn")]]


def _clip(lines: list[Line], height: int, what: str) -> list[Line]:
    if len(lines) <= height or height < 2:
        return lines[: max(height, 0)]
    hidden = len(lines) - height + 1
    return [*lines[: height - 1], [(f"and {hidden} more {what}", "dim")]]


def devices(found: DeviceSnapshot | None, width: int, height: int, ascii_only: bool) -> list[Line]:
    """GPUs with their processes, CPU and memory; words where there is no GPU; one line a GPU where room is short."""
    if found is None:
        return [[("no sample yet", "dim")]]
    room = max(min(width - 40, 30), 6)
    head: list[Line] = [[("SIMULATED: a recording plays the NVIDIA driver", "warn")]] if found.simulated else []
    gpus = [line for gpu in found.gpus for line in _gpu(gpu, room, ascii_only)]
    tail: list[Line] = [[(fit(found.gpu_note, width, ascii_only).rstrip(), "dim")]] if found.gpu_note else []
    share = found.memory_used / max(found.memory_total, 1)
    cpu = f"{found.cpu_percent:3.0f}% of {found.cpu_count} cores, load {found.load1:.1f}"
    tail.append([("CPU ", "dim"), (bar(found.cpu_percent / 100, room, ascii_only), "cyan"), (f" {cpu}", "")])
    memory = f"{size(found.memory_used)} of {size(found.memory_total)}"
    tail.append([("mem ", "dim"), (bar(share, room, ascii_only), "cyan"), (f" {memory}", "")])
    style = "bad" if found.disk_free < 2 * 2**30 else "dim"
    tail.append([(f"disk {size(found.disk_free)} free of {size(found.disk_total)}", style)])
    left = height - len(head) - len(tail)
    if len(gpus) > left:
        gpus = _clip([_gpu_line(gpu, ascii_only) for gpu in found.gpus], max(left, 2), "GPUs: press 5")
    return [*head, *gpus, *tail][: max(height, 0)]


def _gpu_line(gpu: GpuView, ascii_only: bool) -> Line:
    """One GPU in one line."""
    name = f"{'MIG' if gpu.parent else 'GPU'} {gpu.index} "
    if gpu.lost:
        return [(f"{name}LOST: the driver does not reach it", "bad")]
    use = "n/a" if gpu.utilisation is None else f"{gpu.utilisation:.0f}%"
    runs = sorted({process.run for process in gpu.processes if process.run})
    others = sum(not process.run for process in gpu.processes)
    whose = [*(f"run {run}" for run in runs), *([f"{others} other{'' if others == 1 else 's'}"] if others else [])]
    memory = f"{size(gpu.memory_used)} of {size(gpu.memory_total)}"
    text = f" {use:>4}  {memory:21}  {', '.join(whose)}"
    return [(name, "dim"), (bar((gpu.utilisation or 0) / 100, 8, ascii_only), "cyan"), (text.rstrip(), "")]


def _gpu(gpu: GpuView, room: int, ascii_only: bool) -> list[Line]:
    name = f"{'MIG' if gpu.parent else 'GPU'} {gpu.index} "
    if gpu.lost:
        return [[(f"{name}{gpu.name} LOST: the driver does not reach it", "bad")]]
    use = "n/a" if gpu.utilisation is None else f"{gpu.utilisation:.0f}%"
    heat = "" if gpu.temperature is None else f" {gpu.temperature:.0f}C"
    power = "" if gpu.power_watts is None else f" {gpu.power_watts:.0f}W"
    share = (gpu.memory_used or 0) / gpu.memory_total if gpu.memory_total else 0.0
    lines: list[Line] = [
        [
            (name, "dim"),
            (bar((gpu.utilisation or 0) / 100, room, ascii_only), "cyan"),
            (f" {use}{heat}{power} {gpu.name}", ""),
        ],
        [
            ("  mem ", "dim"),
            (bar(share, room, ascii_only), "cyan"),
            (f" {size(gpu.memory_used)} of {size(gpu.memory_total)}", ""),
        ],
    ]
    for process in gpu.processes[:3]:
        whose = f"run {process.run}" if process.run else printable(process.user)
        lines.append([(f"  pid {process.pid} {whose} {size(process.memory)}", "dim")])
    more = len(gpu.processes) - 3
    if more > 0:
        lines.append([(f"  and {more} more process{'' if more == 1 else 'es'}", "dim")])
    return lines


def log(lines: Sequence[str], height: int, ascii_only: bool) -> list[Line]:
    """The newest lines of the trainer's output."""
    if not lines:
        return [[("nothing printed yet", "dim")]]
    tail = lines[-height:] if height > 0 else []
    return [[(in_ascii(text) if ascii_only else text, "")] for text in tail]
