"""The match graph of a run: statistics, one class's edges, embeddings, class pairs, distances over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from rich.cells import cell_len, set_cell_size

from engine.events.records import Graph
from mmtui.domain.views import Embeddings, GraphStats, RunDetail
from mmtui.paths import Home
from mmtui.services import run_history, runs
from mmtui.tui.pages.compose import joined, wrapped
from mmtui.tui.pages.panes import FIRST_PANE, Drawer, Focus, Laid, Pane, lay
from mmtui.tui.widgets.forest import ROOT, draw_forest, forest
from mmtui.tui.widgets.panels import FARTHEST, Line, fit, glyph_of, histogram_reach, strategy_of, style_of
from mmtui.tui.widgets.panels import graph as panel
from mmtui.tui.widgets.plot import spark

LEAST_WIDTH = 50
PANES = ("numbers", "one class", "embeddings", "class pairs", "distances")
SHADES = (" ░▒▓█", " .:+#")
SHARES = (0.0, 0.05, 0.15, 0.3)
"""A shade of ``SHADES`` for more than each of these shares."""
QUARTERS = (0.0, 0.25, 0.5, 0.75)
LEGEND_LINES = 3
LEAST, MOST = 14, 21


def graph(
    home: Home,
    run_id: str,
    size: tuple[int, int],
    ascii_only: bool,
    until: int | None = None,
    chosen: int | None = None,
    focus: Focus = FIRST_PANE,
) -> Laid:
    """Everything about the newest match graph, or the newest up to a global step.

    Args:
        chosen: the class whose edges are drawn, None: the one with most nodes.
    """
    detail = runs.get_run(home, run_id)
    names, strategy = detail.classes, strategy_of(detail)
    history = runs.graph_history(home, run_id, 1, until=until)
    if not history:
        return Laid(panel(None, names, *size, ascii_only))
    stats, found = history[-1], run_history.projection(home, run_id, until=until)

    def numbers(width: int, height: int) -> list[Line]:
        room = height if focus.alone else max(min(height, MOST), 10 + -(-max(len(names), 1) // 2))
        return [[("newest graph", "title")], *panel(stats, names, width, room - 1, ascii_only, strategy, letters=True)]

    drawers: tuple[Drawer, ...] = (
        numbers,
        partial(_one_class, found, names, strategy, chosen, ascii_only, focus.alone),
        partial(scatter, found, names, ascii_only, focus.alone),
        partial(class_pairs, stats.graph, names, ascii_only),
        partial(_distances, home, detail, until, ascii_only),
    )
    panes = [Pane(name, drawer) for name, drawer in zip(PANES, drawers, strict=True)]
    return lay(panes, size, LEAST_WIDTH, focus, ascii_only, home)


def _rows(height: int, alone: bool) -> int:
    """Lines of a panel: what there is for it, within reason."""
    return height if alone else min(max(height, LEAST), MOST)


# ---- one class -----------------------------------------------------------------------------------------------------


def classes_of(home: Home, run_id: str, until: int | None = None) -> dict[int, int]:
    """{class: nodes} of the graph whose edges are known; {} where none are."""
    found = run_history.projection(home, run_id, until=until)
    return dict(Counter(found.nodes.label)) if found is not None and found.nodes.positive else {}


def chosen_class(found: Mapping[int, int], chosen: int | None) -> int:
    """The class that was chosen if it has nodes, else the one with most."""
    return chosen if chosen is not None and chosen in found else max(found, key=lambda index: (found[index], -index))


def _one_class(
    projection: Embeddings | None,
    names: Sequence[str],
    strategy: str,
    chosen: int | None,
    ascii_only: bool,
    alone: bool,
    width: int,
    height: int,
) -> list[Line]:
    """The attractive edges of one class, as trees."""
    title: Line = [("one class", "title")]
    if projection is None or not projection.nodes.label:
        return [[*title, ("  none yet", "dim")]]
    found, labels = projection.nodes, projection.nodes.label
    if not found.positive:
        return [[*title, ("  its edges were not told (old trainer)", "dim")]]
    index = chosen_class(Counter(labels), chosen)
    nodes = [node for node, label in enumerate(labels) if label == index]
    trees = forest(nodes, dict(enumerate(found.positive)), found.order or range(len(labels)))
    deep = max(tree.height for tree in trees)
    name = fit(_name(names, index), 16, ascii_only).strip()
    title += [(f"  {glyph_of(index)} ", style_of(index)), (name, "title")]
    told = f"  step {projection.step}, {len(nodes)} nodes"
    title.append((f"{told}, depth {deep}" if width >= 28 + cell_len(name + told) else told, "dim"))
    drawn = draw_forest(trees, width, max(_rows(height, alone) - 4, 6), style_of(index) or "title", ascii_only)
    first: Line = [
        (f"{ROOT[1 if ascii_only else 0]} placed first  ", "title"),
        *_state(len(trees), strategy, ascii_only),
    ]
    return [title, *drawn, first, _pushed(labels, found.negative or (), nodes, names, width, ascii_only)]


def _state(count: int, strategy: str, ascii_only: bool) -> Line:
    """Whether the class is connected, and whether it should be."""
    if count == 1:
        return [("+ " if ascii_only else "✓ ", "good"), ("one component", "")]
    if strategy == "random":
        return [(f"{count} components", ""), (" (random triplets)", "dim")]
    return [(f"! ALARM {count} components", "bad")]


def _pushed(
    labels: Sequence[int],
    negative: Sequence[int],
    nodes: Sequence[int],
    names: Sequence[str],
    width: int,
    ascii_only: bool,
) -> Line:
    """The classes that the nodes' rejective edges lead to."""
    ends = [negative[node] for node in nodes if node < len(negative)]
    found = Counter(labels[end] for end in ends if 0 <= end < len(labels))
    words = ", ".join(
        f"{glyph_of(index)} {fit(_name(names, index), 10, ascii_only).strip()} {count}"
        for index, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )
    return [("pushed away from ", "dim"), (fit(words or "nothing", width - 19, ascii_only).rstrip(), "dim")]


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


# ---- embeddings ----------------------------------------------------------------------------------------------------


def scatter(
    found: Embeddings | None, names: Sequence[str], ascii_only: bool, alone: bool, width: int, height: int
) -> list[Line]:
    """Embeddings in two dimensions, a letter for each class."""
    if found is None:
        return [[("embeddings", "title"), ("  none yet", "dim")]]
    nodes, width = found.nodes, max(width - 2, 1)
    points = [
        (float(x), float(y), label)
        for x, y, label in zip(nodes.x or (), nodes.y or (), nodes.label or (), strict=False)
        if x is not None and y is not None
    ]
    title: Line = [("embeddings", "title"), (f"  step {found.step}, {len(points)} nodes, by PCA", "dim")]
    if not points:
        return [title]
    legend = _legend(sorted({label for _, _, label in points}), names, width, ascii_only)
    rows = max(_rows(height, alone) - 2 - len(legend), 8)
    low_x, high_x = min(p[0] for p in points), max(p[0] for p in points)
    low_y, high_y = min(p[1] for p in points), max(p[1] for p in points)
    grid = [[(" ", "")] * width for _ in range(rows)]
    for x, y, label in points:
        column = round(_way(low_x, high_x, x) * (width - 1))
        row = round(_way(high_y, low_y, y) * (rows - 1))
        grid[row][column] = (glyph_of(label), style_of(label))
    return [title, *[joined(cells) for cells in grid], *legend]


def _way(first: float, last: float, value: float) -> float:
    """How much of the way from the first to the last lies behind a value; of quarters, whose differences are finite."""
    return (value / 4 - first / 4) / ((last / 4 - first / 4) or 1.0)


def _legend(labels: Sequence[int], names: Sequence[str], width: int, ascii_only: bool) -> list[Line]:
    """Letter and name of each class; names as long as a few lines have room for."""
    told = [fit(_name(names, i), 40, ascii_only).rstrip() for i in labels]
    for longest in (14, 8, 6, 5, 4, 3, 2):
        spans = [
            (f"{glyph_of(i)} {set_cell_size(name, min(longest, cell_len(name)))}", style_of(i))
            for i, name in zip(labels, told, strict=True)
        ]
        lines = wrapped(spans, width, gap=1)
        if len(lines) <= LEGEND_LINES:
            return lines
    return lines[:LEGEND_LINES]


# ---- heat maps -----------------------------------------------------------------------------------------------------


def heat_map(
    cells: Sequence[Sequence[float]], names: Sequence[str], width: int, limits: Sequence[float], ascii_only: bool
) -> tuple[list[Line], int]:
    """Shares 0-1 by class and class; returns the lines and how many classes had room (the first ones).

    Args:
        limits: shares above which a cell is one shade darker.
    """
    shades, count = SHADES[1 if ascii_only else 0], len(cells)
    wide = 2 if 2 * count + 9 <= width else 1
    count = min(count, max(width - 9, 1))
    name_width = min(max(width - 3 - wide * count, 4), max((len(name) for name in names), default=4), 18)
    lines: list[Line] = [[(" " * (name_width + 3) + "".join(f"{glyph_of(c):{wide}}" for c in range(count)), "dim")]]
    for row in range(count):
        drawn = "".join(shades[sum(share > limit for limit in limits)] * wide for share in cells[row][:count])
        head = f"{glyph_of(row)} {fit(_name(names, row), name_width, ascii_only)} "
        lines.append([(head, "dim"), (drawn.rstrip(), "")])
    return lines, count


def class_pairs(graph: Graph, names: Sequence[str], ascii_only: bool, width: int, height: int) -> list[Line]:
    """How many rejective edges run between each two classes."""
    pairs = {(first, second): edges for first, second, edges in graph.class_pairs or ()}
    title: Line = [("rejective edges between classes", "title")]
    if not pairs:
        return [title, [("none", "dim")]]
    count, largest = max(len(names), 1 + max(max(pair) for pair in pairs)), max(*pairs.values(), 1)
    room = range(min(count, max(width, 1)))  # there is one cell for a class at most
    cells = [
        [
            (pairs.get((row, column), 0) + (pairs.get((column, row), 0) if row != column else 0)) / largest
            for column in room
        ]
        for row in room
    ]
    lines, shown = heat_map(cells, names, width, QUARTERS, ascii_only)
    worst = sorted(pairs.items(), key=lambda item: -item[1])[:3]
    words = ", ".join(f"{glyph_of(a)}-{glyph_of(b)} {n}" for (a, b), n in worst)
    left = f"  ({count - shown} classes have no room)" if shown < count else ""
    return [title, *lines, [(f"most: {words}{left}", "dim")]]


# ---- distances -----------------------------------------------------------------------------------------------------


def _distances(
    home: Home, detail: RunDetail, until: int | None, ascii_only: bool, width: int, height: int
) -> list[Line]:
    """Shares of d+ and d- by distance (down) and step (across), and the share of active triplets.

    The axis is the whole stage from the beginning, so that columns stay where they are while it goes on.
    """
    total = next((stage.total_steps for stage in detail.stages if stage.name == "match"), 0)
    room = max(width - 8, 8)
    found = run_history.graphs_over_time(home, detail.row.id, max(-(-(total + 1) // room), 1), until=until)
    total = max([total, *(stats.step for stats in found)])
    every = max(-(-(total + 1) // room), found[1].step - found[0].step if len(found) > 1 else 1)
    by_column = {stats.step // every: stats for stats in found}
    # As wide as there is room: a cell shows the column that lies there.
    count = total // every + 1
    columns = [by_column.get(cell * count // room) for cell in range(room)]
    bins = 16 if height >= 40 else 8
    lines: list[Line] = [[("distances over time", "title"), ("  ", "dim"), *_key(ascii_only)]]
    reach = farthest_reach(columns)
    graphs = [stats.graph if stats is not None else Graph() for stats in columns]
    hists = (("d+", [g.d_pos_hist for g in graphs], "good"), ("d-", [g.d_neg_hist for g in graphs], "red"))
    for name, counts, style in hists:
        shares = [rebinned(own, bins, reach, histogram_reach(g)) for own, g in zip(counts, graphs, strict=True)]
        lines += distance_map(name, shares, reach, style, ascii_only)
    active = [_active(stats) for stats in columns]
    lines.append([("activ ", "dim"), (spark(active, ascii_only, top=1.0).rstrip(), "cyan")])
    return [*lines, [(f"step  0{'share of active triplets':^{room - 7}}{total:>6}", "dim")]]


def _key(ascii_only: bool) -> Line:
    shades = SHADES[1 if ascii_only else 0]
    limits = ("some", *(f"{100 * share:.0f}%" for share in SHARES[1:]))
    return [(" ".join(f"{shade} {limit}" for shade, limit in zip(shades[1:], limits, strict=True)), "dim")]


def _active(stats: GraphStats | None) -> float | None:
    return stats.graph.active_triplets if stats is not None else None


def farthest_reach(columns: Sequence[GraphStats | None]) -> float:
    """How far the map goes: as far as the widest of its histograms."""
    return max((histogram_reach(stats.graph) for stats in columns if stats is not None), default=FARTHEST)


def rebinned(counts: Sequence[int] | None, bins: int, reach: float, own_reach: float) -> list[float]:
    """A histogram as shares, in ``bins`` bins of [0, reach], no narrower than its own; [] where there is none.

    Args:
        own_reach: where the last bin of ``counts`` ends.
    """
    total = sum(counts or ())
    if not counts or not total:
        return []
    sums, width = [0.0] * bins, own_reach / len(counts)
    for number, count in enumerate(counts):
        sums[min(int((number + 0.5) * width / reach * bins), bins - 1)] += count
    return [share / total for share in sums]


def distance_map(
    name: str, columns: Sequence[Sequence[float]], reach: float, style: str, ascii_only: bool
) -> list[Line]:
    shades, bins = SHADES[1 if ascii_only else 0], max(map(len, columns), default=0)
    lines: list[Line] = []
    for row in reversed(range(bins)):
        at = {bins - 1: f"{reach:g}", bins // 2: f"{reach / 2:g}", 0: "0"}
        label = at.get(row, "")
        cells = "".join(
            shades[sum(column[row] > share for share in SHARES) if row < len(column) else 0] for column in columns
        )
        head = name if row == bins - 1 else ""
        lines.append([(f"{head:3}{label:>2} ", "dim"), (cells.rstrip(), style)])
    return lines
