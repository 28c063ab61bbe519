"""Charts, graph, classes and comparison: what they say against what is stored, and their keys by Pilot."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import code, comparing, run_history, runs
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import begin_attempt, transition
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import charts, classes, compare, graph
from mmtui.tui.pages.axes import Axis, axis_of
from mmtui.tui.pages.panes import Focus, Pane, lay
from mmtui.tui.screens.baseline import BaselineDialog
from mmtui.tui.screens.run import CompareScreen, RunScreen
from mmtui.tui.widgets.panels import Line
from tests.tui.seed import CLASSES, Trace, components, seed_run
from tests.tui.test_pages import page, plain, ready, shown, until

NOW = 1_790_000_000.0
VOC = ("background", *(f"class_{number:02d}" for number in range(1, 20)), "absent")
PUBLISHED = {name: 50.0 + number for number, name in enumerate(VOC) if number}


@pytest.fixture
def seeded(home: Home) -> Home:
    reference = {"miou": 42.8, "per_class": {CLASSES[1]: 70.0, CLASSES[-1]: 60.0, "of no class": 1.0}}
    seed_run(home, "first", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW, config={"reference": reference})
    seed_run(home, "second", until=330, seed=2, end=None, now=NOW)
    seed_run(home, "third", until=450, seed=3, end=RunEvent.EXIT_OK, now=NOW, config={"match": {"strategy": "random"}})
    return home


def value_at(home: Home, run_id: str, metric: str, step: int) -> float:
    return [p.value for p in runs.points(home, run_id, metric) if p.global_step <= step][-1]


# ---- axes ----------------------------------------------------------------------------------------------------------


def test_epochs_are_added_up_over_stages_and_never_go_back(seeded: Home) -> None:
    detail = runs.get_run(seeded, "1")
    axis = axis_of(detail, "epoch", run_history.images(seeded, "1"))
    each = 10 / 240
    places = [axis.at(step) for step in range(452)]
    assert places == sorted(places)
    for step in (1, 75, 150, 151, 300, 450):
        assert places[step] == pytest.approx(step * each)
    assert places[451] == places[450], "evaluating is no epoch"
    reused = axis_of(detail, "epoch", {"segment": (20, 240)})
    assert reused.at(150) == 0 and reused.at(151) == pytest.approx(20 / 240), "what was not trained here has none"


def test_times_between_points_lie_between_theirs() -> None:
    axis = Axis("relative", 100.0, track=((0.0, 100.0), (10.0, 120.0), (20.0, 160.0)))
    assert [axis.at(step) for step in (0, 5, 10, 15, 20, 30)] == pytest.approx([0, 10, 20, 40, 60, 100])
    assert Axis("clock", 7.0).at(3) == 7.0


@pytest.mark.parametrize("kind", ["step", "epoch", "clock", "relative"])
def test_a_place_leads_back_to_its_step(seeded: Home, kind: str) -> None:
    buckets = runs.series(seeded, "1", "loss", max_buckets=400).buckets
    axis = axis_of(runs.get_run(seeded, "1"), kind, run_history.images(seeded, "1"), buckets)
    for step in (0, 1, 5, 149, 150, 151, 300, 449, 450):
        assert axis.step_at(axis.at(step)) == step


def test_run_that_tells_no_epochs_is_drawn_over_steps(home: Home) -> None:
    seed_run(home, "old", until=100, seed=1, end=None, now=NOW)
    connection = sqlite3.connect(home.database)
    connection.execute("DELETE FROM events WHERE kind = 'stage_data'")
    connection.commit()
    connection.close()
    text = plain(charts.charts(home, ["1"], 160, 40, False, charts.View(axis="epoch")).lines)
    assert "x: steps" in text


# ---- charts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["step", "epoch"])
@pytest.mark.parametrize("moment", [40, 163, 255, 330])
def test_titles_tell_the_values_of_all_runs_at_the_cursor(seeded: Home, axis: str, moment: int) -> None:
    view = charts.View(axis=axis, moment=moment)
    text = plain(charts.charts(seeded, ["1", "2", "3"], 240, 40, False, view).lines)
    for metric in ("loss", "miou"):
        known = [p for p in runs.points(seeded, "1", metric) if p.global_step <= moment]
        if not known:
            assert re.search(rf"{metric}  A - B - C -", text)
            continue
        values = [f"{value_at(seeded, run_id, metric, moment):.5g}" for run_id in ("1", "2", "3")]
        assert f"{metric}  A {values[0]} B {values[1]} C {values[2]}" in text
    assert "published 42.8" in text and "A run 1 first" in text


@pytest.mark.parametrize("axis", ["step", "epoch", "clock", "relative"])
@pytest.mark.parametrize("window", [None, (100.0, 200.0)])
def test_cursor_stands_in_the_same_column_of_every_chart(
    seeded: Home, axis: str, window: tuple[float, float] | None
) -> None:
    view = charts.View(axis=axis, moment=170, window=window)
    lines = plain(charts.charts(seeded, ["1", "2"], 50, 60, False, view).lines).splitlines()
    columns = [line.index("│", 10) for line in lines if "│" in line[10:]]
    assert len(set(columns)) == 1 and len(columns) >= 2 * 6


def test_the_run_on_top_hides_the_others(seeded: Home) -> None:
    def styles(top: int) -> list[str]:
        lines = charts.charts(seeded, ["1", "2"], 100, 30, True, charts.View(top=top), Focus("lr", True)).lines
        return [style for line in lines for text, style in line if set(text.strip()) <= set("abAB") and text.strip()]

    first, second = styles(0), styles(1)
    assert first and second and set(first) != set(second), "equal curves: one is seen"


def test_three_points_stay_three_points_when_smoothed(seeded: Home) -> None:
    assert len(runs.points(seeded, "1", "miou")) == 3
    for weight in (0.0, 0.9):
        lines = charts.charts(seeded, ["1"], 120, 30, False, charts.View(weight=weight), Focus("miou", True)).lines
        assert plain(lines).count("•") == 3
    # Over a run with gaps, none appears where it has no points either.
    lines = charts.charts(seeded, ["1", "2"], 120, 30, True, charts.View(weight=0.9), Focus("miou", True)).lines
    assert plain(lines).count("o") - plain(lines[:3]).count("o") - plain(lines[-1:]).count("o") <= 4


def test_losses_of_two_stages_are_two_lines_and_two_means(seeded: Home) -> None:
    """The mean of the second stage begins with its first value."""
    view = charts.View(weight=0.98, window=(140.0, 170.0))
    lines = charts.charts(seeded, ["1"], 120, 30, False, view, Focus("loss", True)).lines
    rows = [
        number
        for number, line in enumerate(lines)
        for text, style in line
        if style not in ("axis", "dim", "title") and any("\u2801" <= c <= "\u28ff" for c in text)
    ]
    first = value_at(seeded, "1", "loss", 155)
    mean = sum(p.value for p in runs.points(seeded, "1", "loss") if p.global_step <= 150) / 30
    assert first > mean + 0.15
    assert max(rows) - min(rows) > 8, "a mean over both would hardly move"


def test_tails_done_again_are_dim_for_runs_that_lie_over_too(home: Home) -> None:
    for name in ("one", "two"):
        run_id = seed_run(home, name, until=100, seed=1, end=RunEvent.VANISHED, now=NOW)
        resume(home, int(run_id), 50, 140)
    lines = charts.charts(home, ["1", "2"], 160, 30, True, charts.ALL, Focus("loss", True)).lines
    body = [(text, style) for line in lines[3:] for text, style in line]
    assert any("." in text for text, style in body if style == "dim")
    assert {"a", "b"} & set("".join(text for text, style in body if style not in ("dim", "axis")))


def resume(home: Home, run_id: int, start: int, end: int) -> None:
    """A second attempt of a seeded run that goes on from step ``start`` with higher losses."""
    database = Database(home)
    try:
        with database.write() as session:
            transition(session, run_id, RunEvent.REQUEUE)
            number = begin_attempt(session, run_id, ["cpu:0"], "box")
        trace = Trace(home.run(str(run_id)).events(number), NOW - 40)
        trace.seq = 10_000
        values: dict[str, Any] = {"attempt": 2, "resumed_stage": "match", "resumed_step": start}
        trace.emit("run_started", "", 0, start, {**values, "resumed_global_step": start})
        for step in range(start + 5, end + 1, 5):
            trace.emit("metrics", "match", step, step, {"loss": 3.0 + step / 100})
        trace.save()
        ingest_file(database, trace.path, run_id, number, 0)
    finally:
        database.close()


def test_zoomed_chart_shows_every_point_of_a_long_series(home: Home) -> None:
    seed_run(home, "long", until=5, seed=1, end=None, now=NOW)
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE stages SET total_steps = 40000, step = 40000 WHERE run_id = 1 AND name = 'match'")
    connection.commit()
    connection.close()
    database = Database(home)
    trace = Trace(home.run("1").events(1), NOW)
    trace.seq = 1000
    for step in range(6, 20_001):
        trace.emit("metrics", "match", step, step, {"loss": 1000.0 if step == 12_345 else 1.0 + step % 7 / 10})
    offset = trace.path.stat().st_size
    with trace.path.open("a") as file:
        file.write("".join(trace.lines))
    ingest_file(database, trace.path, 1, 1, offset)
    database.close()
    view = charts.View(window=(12_300.0, 12_400.0), moment=12_345)
    text = plain(charts.charts(home, ["1"], 220, 30, False, view, Focus("loss", True)).lines)
    assert "loss 1000 at step 12345" in text
    view = charts.View(window=(12_300.0, 12_400.0), moment=12_344)
    text = plain(charts.charts(home, ["1"], 220, 30, False, view, Focus("loss", True)).lines)
    assert f"loss {1.0 + 12_344 % 7 / 10:.5g} at step 12344" in text


def test_what_never_changes_takes_a_line_and_can_be_seen_alone(seeded: Home) -> None:
    laid = charts.charts(seeded, ["1"], 160, 40, False, charts.ALL, Focus("lr"))
    text = plain(laid.lines)
    assert "never changes" in text and "▸ lr 0.02" in text
    assert "lr 0.02" in plain(laid.lines[laid.first : laid.behind])
    assert not any(line.startswith(("▸ lr", "  lr")) for line in text.splitlines())
    alone = charts.charts(seeded, ["1"], 160, 40, False, charts.ALL, Focus("lr", True)).lines
    assert plain(alone).splitlines()[1].startswith("▸ lr 0.02") and len(alone) == 40


# ---- panels --------------------------------------------------------------------------------------------------------


def test_marked_panel_is_where_it_is_said_to_be() -> None:
    def box(name: str) -> Pane:
        return Pane(name, lambda width, height: [[(name, "title")], *[[("." * width, "")] for _ in range(4)]])

    panes = [box(name) for name in ("one", "two", "three", "four", "five")]
    for width, least in ((80, 30), (160, 30), (40, 30)):
        for pane in panes:
            laid = lay(panes, (width, 20), least, Focus(pane.name), False)
            assert f"▸ {pane.name}" in plain(laid.lines[laid.first : laid.behind])
            assert plain(laid.lines).count("▸") == 1
            assert all(sum(len(text) for text, _ in line) <= width for line in laid.lines)
    alone = lay(panes, (80, 20), 30, Focus("three", True), True)
    assert plain(alone.lines).startswith("> three") and "one" not in plain(alone.lines)


async def test_m_moves_over_the_panels_and_enter_shows_one_alone(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab")
        await until(lambda: "▸ newest graph" in shown(app))
        for name in ("one class", "embeddings", "rejective edges", "distances over time"):
            await pilot.press("m")
            await until(lambda name=name: f"▸ {name}" in shown(app))
        await pilot.press("m")
        await until(lambda: "▸ newest graph" in shown(app))
        await pilot.press("m", "m", "m", "m", "enter")
        await until(lambda: "▸ distances over time" in shown(app) and "[graph] " in shown(app).replace("  ", " "))
        await until(lambda: len(page(app).body) <= 21)
        await pilot.press("tab", "m", "m")
        await until(lambda: "▸ confusion" in shown(app))
        await pilot.press("shift+tab")
        await until(lambda: "▸ distances over time" in shown(app) and len(page(app).body) <= 21)
        await pilot.press("enter")
        await until(lambda: len(page(app).body) > 21)


async def test_axis_zoom_pan_follow_and_top_by_keys(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("space", "2")
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await until(lambda: "x: steps" in shown(app))
        for words in ("epochs, all stages", "time of day", "time since start", "x: steps"):
            await pilot.press("a")
            await until(lambda words=words: words in shown(app))
        await pilot.press("greater_than_sign")
        await until(lambda: "zoom in" in screen.said)
        await pilot.press("i", "i")
        await until(lambda: screen.view.window == (168.75, 281.25))
        await pilot.press("greater_than_sign")
        await until(lambda: screen.view.window == (196.875, 309.375))
        await pilot.press(*["less_than_sign"] * 20)
        await until(lambda: screen.view.window == (0.0, 112.5))
        await pilot.press("left")  # the cursor begins at the newest: what is drawn follows it
        await until(lambda: screen.view.moment == 448 and screen.view.window == (335.5, 448.0))
        await pilot.press("less_than_sign")
        low, high = screen.view.window or (0, 0)
        assert low <= (screen.view.moment or 0) <= high, "the cursor stays in view"
        await pilot.press("f")
        await until(lambda: screen.view.moment is None and "following" in shown(app))
        await pilot.press("O")
        await until(lambda: "one run alone" in screen.said)
        await pilot.press("0")
        await until(lambda: screen.view == charts.ALL)


def test_following_window_ends_at_the_newest_step(home: Home) -> None:
    seed_run(home, "growing", until=100, seed=1, end=None, now=NOW)
    view = charts.View(window=(20.0, 60.0), follow=True)
    text = plain(charts.charts(home, ["1"], 100, 30, False, view).lines)
    low, high = map(float, re.findall(r"zoom (\S+) to ([\d.]+), following", text)[0])
    assert high - low == 40 and 100 <= high <= 113


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


def test_one_class_is_drawn_as_it_was_at_the_moment(seeded: Home) -> None:
    for run_id in ("1", "3"):
        for moment in (30, 90, None):
            event = run_history.projection(seeded, run_id, until=moment)
            assert event is not None
            values = event["values"]
            for label in (0, 4, 7):
                focus = Focus("one class", True)
                lines = graph.graph(seeded, run_id, (120, 40), False, moment, label, focus).lines
                text, count = plain(lines), components(values)[str(label)]
                nodes = values["label"].count(label)
                assert f"{CLASSES[label]}  step {event['step']}, {nodes} nodes" in text
                drawn = "\n".join(text.splitlines()[1:-2])
                assert (drawn.count("◉"), drawn.count("•")) == (count, nodes - count)
                words = f"{count} components (random triplets)" if count > 1 else "one component"
                assert words in text.splitlines()[-2]


async def test_n_goes_to_the_next_class_and_back(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab")
        await until(lambda: "one class" in shown(app))
        found = graph.classes_of(seeded, "1")
        first = graph.chosen_class(found, None)
        assert found[first] == max(found.values())

        def title(index: int) -> str:
            return f"one class  {graph.glyph_of(index)} {CLASSES[index]}"

        order = sorted(found)
        await until(lambda: title(first) in shown(app))
        await pilot.press("n")
        following = order[(order.index(first) + 1) % len(order)]
        await until(lambda: title(following) in shown(app))
        await pilot.press("N", "N")
        before = order[(order.index(first) - 1) % len(order)]
        await until(lambda: title(before) in shown(app))


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
    counts = stats.values["d_pos_hist"]
    shares = [(counts[2 * row] + counts[2 * row + 1]) / sum(counts) for row in range(8)]
    lines = plain(graph.graph(home, "1", (120, 30), False, None, None, Focus("distances", True)).lines).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("d+"))
    marks = [lines[first + 7 - row].ljust(118)[117] for row in range(8)]
    wanted = [" ░▒▓█"[sum(share > limit for limit in (0, 0.05, 0.15, 0.3))] for share in shares]
    assert marks == wanted


# ---- classes -------------------------------------------------------------------------------------------------------


def test_published_classes_stand_beside_the_measured_ones(seeded: Home) -> None:
    table = runs.class_table(seeded, "1")
    assert table is not None
    lines = plain(classes.classes(seeded, "1", (120, 40), False).lines).splitlines()
    row = next(line for line in lines if line.startswith("b disc"))
    iou = 100 * (table.classes[1].iou or 0)
    assert f"{iou:.1f}" in row and " 70.0 " in row and f"{iou - 70:+.1f}" in row
    absent = next(line for line in lines if f" {CLASSES[-1]} " in line)
    assert "█" not in absent and "░" not in absent and " 60.0 " in absent and absent.count(" - ") >= 3
    assert "over 8/9 classes" in lines[0] and "published: 42.8" in lines[1]
    assert "of no class" not in "".join(lines)
    # Without a run to compare with, gain is to what was published.
    told = plain(classes.classes(seeded, "1", (120, 40), False, classes.View(sort=3)).lines).splitlines()
    assert "loss first (to published)" in told[1] and told[3].startswith("b disc")


def test_recipes_of_table_2_name_classes_as_the_data_do() -> None:
    from engine.config import load_recipe
    from engine.data.registry import class_names

    for start, tuning in (("colorization", "mixmatch"), ("colorization", "baseline"), ("imagenet", "baseline")):
        recipe = load_recipe(Path("recipes") / f"voc_vgg16_{start}_{tuning}.yaml")
        names = class_names(recipe.data)
        assert set(recipe.reference.per_class) == set(names[1:]), "20 classes, no background"


async def test_baseline_is_chosen_from_a_list_and_kept(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab", "tab")
        await until(lambda: "mIoU" in shown(app) and "vs run" not in shown(app))
        await pilot.press("B")
        await until(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("j", "enter")
        other = runs.class_table(seeded, "3")
        assert other is not None
        await until(lambda: f"run 3: {100 * (other.miou or 0):.2f}" in shown(app) and "vs run 3" in shown(app))
        await pilot.press("tab", "shift+tab")
        await until(lambda: "vs run 3" in shown(app))
        await pilot.press("B")
        await until(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("k", "enter")
        await until(lambda: "[classes]" in shown(app) and "vs run" not in shown(app))
        await pilot.press("B")
        await until(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("escape")
        await until(lambda: "[classes]" in shown(app) and "vs run" not in shown(app))


# ---- comparison ----------------------------------------------------------------------------------------------------


def test_time_taken_is_told_of_running_runs_and_is_never_negative(seeded: Home) -> None:
    table = dict(comparing.table(seeded, ["1", "2", "3"]))
    assert table["took"][0] == pytest.approx(95)
    assert table["took"][1] == pytest.approx(time.time() - (runs.get_run(seeded, "2").row.started_at or 0), abs=5)
    connection = sqlite3.connect(seeded.database)
    connection.execute("UPDATE runs SET started_at = ended_at + 100 WHERE id = 1")
    connection.commit()
    connection.close()
    assert dict(comparing.table(seeded, ["1", "2"]))["took"][0] is None
    text = plain(compare.compare(seeded, ["3", "2"], (120, 40), False).lines)
    assert re.search(r"took +1m35s", text)


def test_reasons_of_several_runs_hold_all_values_and_agree_with_pairs(seeded: Home) -> None:
    found = comparing.reasons(seeded, ["1", "2", "3"])
    assert all(len(reason.values) == 3 for reason in found)
    told = {(reason.area, reason.name): reason.values for reason in found}
    assert told["seed", "seed"] == (1, 2, 3)
    assert told["recipe", "match.strategy"] == (None, None, "random")
    pairs = {(d.area, d.name) for other in ("2", "3") for d in comparing.differences(seeded, "1", other)}
    assert set(told) == pairs
    areas = [reason.area for reason in found]
    assert areas == sorted(areas, key=["outcome", "recipe", "data", "seed", "code", "environment", "device"].index)
    lines = plain(compare.compare(seeded, ["1", "2", "3"], (160, 48), False).lines)
    assert "why, most telling first to run 1" in lines and "1. recipe" in lines


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [80, 120, 160])
def test_four_runs_keep_their_columns(seeded: Home, width: int, ascii_only: bool) -> None:
    long = {"segment": {"optim": {"lr": 0.123456789}}, "name_of_a_very_long_section_indeed": {"x" * 60: "y" * 90}}
    seed_run(seeded, "n" * 200, until=450, seed=4, end=RunEvent.EXIT_OK, now=NOW, config=long)
    lines = compare.compare(seeded, ["1", "2", "3", "4"], (width, 40), ascii_only).lines
    assert all(sum(len(text) for text, _ in line) <= width for line in lines)
    assert plain(lines).isascii() or not ascii_only
    text = plain(
        compare.compare(
            seeded, ["1", "2", "3", "4"], (width, 40), ascii_only, charts.ALL, Focus("what differs", True)
        ).lines
    )
    heads = text.splitlines()[1]
    starts = [heads.index(f"{letter} run") for letter in "ABCD"]
    gaps = {after - before for before, after in pairwise(starts)}
    assert len(gaps) == 1 and gaps.pop() >= 9
    row = next(line for line in text.splitlines() if line.startswith("seed"))
    assert [row[start : start + 1] for start in starts] == ["1", "2", "3", "4"]


def test_lines_of_code_that_differ_are_shown(seeded: Home, tmp_path: Path) -> None:
    texts = {"a" * 16: "x = 1\ny = 2\n", "b" * 16: "x = 1\ny = 3\nz = 4\n"}
    for digest, text in texts.items():
        folder = seeded.code / digest / "engine"
        folder.mkdir(parents=True)
        (folder / "loop.py").write_text(text)
        (folder / "same.py").write_text("pass\n")
    (seeded.code / ("b" * 16) / "engine" / "new.py").write_text("new = True\x1b[31m\n")
    found = code.changes(seeded, "a" * 16, "b" * 16)
    assert found is not None
    assert [(change.path, change.added, change.removed) for change in found] == [("loop.py", 2, 1), ("new.py", 1, 0)]
    connection = sqlite3.connect(seeded.database)
    for run_id, digest in zip((1, 2, 3), ("a", "b", "c"), strict=True):
        connection.execute("UPDATE runs SET code = ? WHERE id = ?", [json.dumps({"digest": digest * 16}), run_id])
    connection.commit()
    connection.close()
    focus = Focus("code", True)
    text = plain(compare.compare(seeded, ["1", "2", "3"], (120, 40), False, charts.ALL, focus).lines)
    assert "run 1 to run 2: 2 files" in text and "-y = 2" in text and "+z = 4" in text and "loop.py +2 -1" in text
    assert "run 1 to run 3: a frozen copy is gone" in text and "\x1b" not in text and "same.py" not in text
    assert code.changes(seeded, "a" * 16, "../../etc") is None


async def test_comparison_has_panels_and_the_cursor_of_its_charts(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        app.call_later(lambda: app.push_screen(CompareScreen(["1", "2", "3"])))
        await until(lambda: "▸ what differs" in shown(app))
        await pilot.press(*["m"] * 4)
        await until(lambda: "▸ loss" in shown(app))
        await pilot.press("enter")
        await until(lambda: "what differs" not in shown(app) and "▸ loss  A " in shown(app))
        await pilot.press("left", "left")
        await until(lambda: "cursor at step 432" in shown(app))
        values = [f"{value_at(seeded, run_id, 'loss', 432):.5g}" for run_id in ("1", "2", "3")]
        await until(lambda: f"loss  A {values[0]} B {values[1]} C {values[2]}" in shown(app))
        await pilot.press("O")
        await until(lambda: "run 2 second (top)" in shown(app))


# ---- what a live screen sends --------------------------------------------------------------------------------------


def cells(lines: list[Line], width: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in lines:
        row = [(char, style) for text, style in line for char in text][:width]
        found += [*row, *[(" ", "")] * (width - len(row))]
    return found


@pytest.mark.parametrize("axis", ["step", "epoch", "relative", "clock"])
def test_a_further_point_changes_few_cells_of_the_charts(home: Home, tmp_path: Path, axis: str) -> None:
    pictures = []
    for folder, end in (("one", 325), ("two", 330)):
        there = Home(tmp_path / folder)
        there.create()
        seed_run(there, "growing", until=end, seed=1, end=None, now=NOW)
        lines = charts.charts(there, ["1"], 160, 45, False, charts.View(axis=axis)).lines
        pictures.append(cells(lines, 160))
    assert len(pictures[0]) == len(pictures[1])
    changed = [index for index, (old, new) in enumerate(zip(*pictures, strict=True)) if old != new]
    assert 0 < len(changed) < 40, "the newest value and the end of the line"


def test_the_graph_page_stays_while_no_graph_is_sampled(home: Home, tmp_path: Path) -> None:
    pictures = []
    for folder, end in (("one", 200), ("two", 290)):
        there = Home(tmp_path / folder)
        there.create()
        seed_run(there, "growing", until=end, seed=1, end=None, now=NOW)
        pictures.append(graph.graph(there, "1", (160, 45), False).lines)
    assert pictures[0] == pictures[1]
