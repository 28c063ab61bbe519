"""The graph page: what it says against what is stored, and its keys by Pilot."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from engine.events.records import Graph
from mmtui.domain.states import RunEvent
from mmtui.domain.views import GraphStats
from mmtui.paths import Home
from mmtui.services import run_history, runs
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import graph
from mmtui.tui.pages.panes import Focus
from mmtui.tui.widgets.panels import graph as panel
from mmtui.tui.widgets.panels import histogram_reach
from tests.tui.seed import CLASSES, NOW, components, seed_run, seed_three
from tests.tui.test_pages import plain, ready, shown
from tests.waiting import until_async

VOC = ("background", *(f"class_{number:02d}" for number in range(1, 20)), "absent")


@pytest.fixture
def seeded(home: Home) -> Home:
    return seed_three(home)


# ---- graph ---------------------------------------------------------------------------------------------------------


def alarm(home: Home, run_id: str, several: dict[str, int]) -> str:
    connection = sqlite3.connect(home.database)
    row = connection.execute(
        "SELECT id, \"values\" FROM events WHERE run_id = ? AND kind = 'graph' ORDER BY id DESC LIMIT 1", [run_id]
    ).fetchone()
    values = {**json.loads(row[1]), "components_per_class": {**dict.fromkeys(map(str, range(8)), 1), **several}}
    connection.execute('UPDATE events SET "values" = ? WHERE id = ?', [json.dumps(values), row[0]])
    connection.commit()
    connection.close()
    return plain(graph.graph(home, run_id, (200, 45), False).lines)


def test_components_are_an_alarm_where_one_is_promised_and_news_under_random(seeded: Home) -> None:
    assert "one component per class" in alarm(seeded, "1", {})
    text = alarm(seeded, "1", {"2": 3, "5": 2})
    assert "! ALARM 2 classes not connected: ring 3, checker 2" in text
    text = alarm(seeded, "3", {"2": 3, "5": 2})
    assert "random: 2 classes not connected, ring 3, checker 2" in text and "ALARM" not in text


def test_nothing_is_said_of_what_a_trainer_has_not_told() -> None:
    text = plain(panel(GraphStats("1", 7, 0.0, Graph()), CLASSES, 120, 30, False))
    assert "None" not in text
    assert "one component per class" not in text and "no class is starved" not in text
    for words in ("components per class: not told", "starved classes: not told", "nodes per class: not told"):
        assert words in text


def test_one_class_is_drawn_as_it_was_at_the_moment(seeded: Home) -> None:
    for run_id in ("1", "3"):
        for moment in (30, 90, None):
            found = run_history.projection(seeded, run_id, until=moment)
            assert found is not None
            values = dict(found.nodes.values)
            for label in (0, 4, 7):
                focus = Focus("one class", True)
                lines = graph.graph(seeded, run_id, (120, 40), False, moment, label, focus).lines
                text, count = plain(lines), components(values)[str(label)]
                nodes = values["label"].count(label)
                assert f"{CLASSES[label]}  step {found.step}, {nodes} nodes" in text
                drawn = "\n".join(text.splitlines()[1:-2])
                assert (drawn.count("◉"), drawn.count("•")) == (count, nodes - count)
                words = f"{count} components (random triplets)" if count > 1 else "one component"
                assert words in text.splitlines()[-2]


async def test_n_goes_to_the_next_class_and_back(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab")
        await until_async(lambda: "one class" in shown(app))
        found = graph.classes_of(seeded, "1")
        first = graph.chosen_class(found, None)
        assert found[first] == max(found.values())

        def title(index: int) -> str:
            return f"one class  {graph.glyph_of(index)} {CLASSES[index]}"

        order = sorted(found)
        await until_async(lambda: title(first) in shown(app))
        await pilot.press("n")
        following = order[(order.index(first) + 1) % len(order)]
        await until_async(lambda: title(following) in shown(app))
        await pilot.press("N", "N")
        before = order[(order.index(first) - 1) % len(order)]
        await until_async(lambda: title(before) in shown(app))


def test_old_trainer_without_edges_is_said_to_be_one(seeded: Home) -> None:
    connection = sqlite3.connect(seeded.database)
    connection.execute(
        "UPDATE events SET \"values\" = json_remove(\"values\", '$.positive', '$.negative', '$.order')"
        " WHERE kind = 'projection'"
    )
    connection.commit()
    connection.close()
    text = plain(graph.graph(seeded, "1", (160, 45), False).lines)
    assert "edges were not told" in text and "embeddings" in text
    assert graph.classes_of(seeded, "1") == {}


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 48)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_twenty_one_classes_fit_every_panel(home: Home, size: tuple[int, int], ascii_only: bool) -> None:
    seed_run(home, "voc", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW, classes=VOC)
    for focus in (Focus(), *(Focus(name, True) for name in graph.PANES)):
        lines = graph.graph(home, "1", size, ascii_only, None, None, focus).lines
        assert all(sum(len(text) for text, _ in line) <= size[0] for line in lines if focus.alone or size[0] > 80)
        assert plain(lines).isascii() or not ascii_only
    pairs = plain(graph.graph(home, "1", size, ascii_only, None, None, Focus("class pairs", True)).lines)
    head = pairs.splitlines()[1].split()
    assert head == [graph.glyph_of(c) for c in range(21)] and "no room" not in pairs
    scatter = plain(graph.graph(home, "1", size, ascii_only, None, None, Focus("embeddings", True)).lines)
    legend = " ".join(scatter.splitlines()[-3:])
    assert all(f"{graph.glyph_of(c)} " in legend for c in range(20))


def test_distances_stay_where_they_are_while_the_stage_goes_on(home: Home) -> None:
    def shown_map(until: int) -> list[str]:
        lines = graph.graph(home, "1", (120, 40), False, until, None, Focus("distances", True)).lines
        return [line.ljust(120) for line in plain(lines).splitlines() if line[:3].strip() != "act"]

    seed_run(home, "one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    early, late = shown_map(50), shown_map(100)
    assert early != late
    for old, new in zip(early[1:], late[1:], strict=True):
        assert old[: 6 + 112 // 3].rstrip() == new[: 6 + 112 // 3].rstrip(), "what was drawn has not moved"


def test_distance_map_is_darkest_where_most_pairs_are(home: Home) -> None:
    seed_run(home, "one", until=150, seed=1, end=None, now=NOW)
    stats = runs.graph_history(home, "1", 1)[-1]
    counts = stats.graph.values["d_pos_hist"]
    shares = [(counts[2 * row] + counts[2 * row + 1]) / sum(counts) for row in range(8)]
    lines = plain(graph.graph(home, "1", (120, 30), False, None, None, Focus("distances", True)).lines).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("d+"))
    marks = [lines[first + 7 - row].ljust(118)[117] for row in range(8)]
    wanted = [" ░▒▓█"[sum(share > limit for limit in (0, 0.05, 0.15, 0.3))] for share in shares]
    assert marks == wanted


def told(reach: float | None, counts: list[int], step: int, **more: Any) -> GraphStats:
    values = {"d_pos_hist": counts, "d_neg_hist": counts, **more}
    return GraphStats("1", step, 0.0, Graph(values if reach is None else {**values, "d_hist_max": reach}))


@pytest.mark.parametrize(("reach", "words"), [(None, "0-4"), (2.0, "0-2"), (4.0, "0-4")])
def test_panel_says_how_far_the_histograms_reach(reach: float | None, words: str) -> None:
    lines = plain(panel(told(reach, [1] * 16, 5), ("a",), 60, 20, True)).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("d+ 9", "d- 9"))] == [words, words]


def test_panel_says_of_how_many_graphs_the_nodes_are() -> None:
    several, one, old = (
        plain(panel(told(2.0, [1] * 16, 5, nodes=32, **more), ("a",), 60, 20, True)).splitlines()[0]
        for more in ({"graphs": 4}, {"graphs": 1}, {})
    )
    assert "nodes 32 in 4 graphs  classes" in several
    assert "nodes 32  classes" in one and one == old


def shares(stats: GraphStats, bins: int, reach: float) -> list[float]:
    return graph.rebinned(stats.graph.d_pos_hist, bins, reach, histogram_reach(stats.graph))


def test_distance_map_reads_how_far_each_histogram_reaches() -> None:
    """A run that an older engine began and a newer one went on with: the same distances stand in the same row."""
    near = [0] * 16
    near[0] = 4  # 0 to 1/4, or 0 to 1/8
    old, new = told(None, near, 1), told(2.0, near, 2)
    far = [0] * 16
    far[7] = 1  # of [0, 4]: 1.75 to 2; of [0, 2]: 7/8 to 1
    assert shares(old, 8, 4.0) == shares(new, 8, 4.0) == [1.0, *[0.0] * 7]
    assert shares(told(None, far, 1), 8, 4.0).index(1.0) == 3
    assert shares(told(2.0, far, 1), 8, 4.0).index(1.0) == 1
    assert shares(told(2.0, far, 1), 16, 2.0).index(1.0) == 7
    assert (
        graph.farthest_reach([new, None]) == 2.0
        and graph.farthest_reach([old, new]) == 4.0
        and graph.farthest_reach([None]) == 4.0
    )
    labels = [line[0][0][3:].strip() for line in graph.distance_map("d+", [[0.0] * 8], 2.0, "good", False)]
    assert labels == ["2", "", "", "1", "", "", "", "0"]
