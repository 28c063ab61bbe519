"""Charts and the panels of pages: what they say against what is stored, and their keys by Pilot."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import run_history, runs
from mmtui.services.exchange.importing import take_in
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import begin_attempt, transition
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import charts, graph
from mmtui.tui.pages.axes import Axis, axis_of
from mmtui.tui.pages.panes import Focus, Pane, lay
from mmtui.tui.screens.run import RunScreen
from mmtui.tui.widgets.panels import Line
from tests.tui.seed import NOW, Trace, seed_run, seed_three
from tests.tui.test_pages import page, plain, ready, shown
from tests.waiting import until_async


@pytest.fixture
def seeded(home: Home) -> Home:
    return seed_three(home)


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


def test_chart_of_a_run_that_tells_of_no_stage_goes_to_its_last_step(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    frame = {"v": 1, "kind": "metrics", "stage": "segment"}
    events = [
        {**frame, "seq": n + 1, "t": NOW + n, "step": n, "global_step": n, "values": {"loss": 0.5}} for n in range(90)
    ]
    events[7]["values"] = {"loss": 1.5}
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    run_id = take_in(home, file).runs[0].run_id
    text = plain(charts.charts(home, [run_id], 100, 30, False, charts.View(), Focus("loss", True)).lines)
    axis = text.splitlines()[-1]
    assert "80" in axis.split(), text


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
        await until_async(lambda: "▸ newest graph" in shown(app))
        for name in ("one class", "embeddings", "rejective edges", "distances over time"):
            await pilot.press("m")
            await until_async(lambda name=name: f"▸ {name}" in shown(app))
        await pilot.press("m")
        await until_async(lambda: "▸ newest graph" in shown(app))
        await pilot.press("m", "m", "m", "m", "enter")
        await until_async(lambda: "▸ distances over time" in shown(app) and "[graph] " in shown(app).replace("  ", " "))
        await until_async(lambda: len(page(app).body) <= 21)
        await pilot.press("tab", "m", "m")
        await until_async(lambda: "▸ confusion" in shown(app))
        await pilot.press("shift+tab")
        await until_async(lambda: "▸ distances over time" in shown(app) and len(page(app).body) <= 21)
        await pilot.press("enter")
        await until_async(lambda: len(page(app).body) > 21)


async def test_axis_zoom_pan_follow_and_top_by_keys(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("space", "2")
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await until_async(lambda: "x: steps" in shown(app))
        for words in ("epochs, all stages", "time of day", "time since start", "x: steps"):
            await pilot.press("a")
            await until_async(lambda words=words: words in shown(app))
        await pilot.press("greater_than_sign")
        await until_async(lambda: "zoom in" in screen.said)
        await pilot.press("i", "i")
        await until_async(lambda: screen.view.window == (168.75, 281.25))
        await pilot.press("greater_than_sign")
        await until_async(lambda: screen.view.window == (196.875, 309.375))
        await pilot.press(*["less_than_sign"] * 20)
        await until_async(lambda: screen.view.window == (0.0, 112.5))
        await pilot.press("left")  # the cursor begins at the newest: what is drawn follows it
        await until_async(lambda: screen.view.moment == 448 and screen.view.window == (335.5, 448.0))
        await pilot.press("less_than_sign")
        low, high = screen.view.window or (0, 0)
        assert low <= (screen.view.moment or 0) <= high, "the cursor stays in view"
        await pilot.press("f")
        await until_async(lambda: screen.view.moment is None and "following" in shown(app))
        await pilot.press("O")
        await until_async(lambda: "one run alone" in screen.said)
        await pilot.press("0")
        await until_async(lambda: screen.view == charts.ALL)


def test_following_window_ends_at_the_newest_step(home: Home) -> None:
    seed_run(home, "growing", until=100, seed=1, end=None, now=NOW)
    view = charts.View(window=(20.0, 60.0), follow=True)
    text = plain(charts.charts(home, ["1"], 100, 30, False, view).lines)
    low, high = map(float, re.findall(r"zoom (\S+) to ([\d.]+), following", text)[0])
    assert high - low == 40 and 100 <= high <= 113


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
