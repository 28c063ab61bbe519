"""The full-screen pages, driven by Textual's Pilot on a real store."""

from __future__ import annotations

import threading

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, Static

from mmtui.domain.states import RunEvent
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import queue, runs
from mmtui.tui import actions
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import charts, classes, compare, compose, facts, graph
from mmtui.tui.screens.commands import CommandDialog, FilterDialog
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.output import OutputScreen
from mmtui.tui.screens.page import PageScreen
from mmtui.tui.screens.queue import QueueScreen
from mmtui.tui.screens.run import CompareScreen, DevicesScreen
from mmtui.tui.screens.runs import RunsScreen
from mmtui.tui.screens.views import SortDialog
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.panels import Line
from mmtui.tui.widgets.runs_table import RunsTable
from tests.tui.seed import CLASSES, HOSTILE_NAMES, seed_run
from tests.waiting import PATIENCE, until_async

NOW = 1_790_000_000.0


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)
    return home


def plain(lines: list[Line]) -> str:
    return "\n".join("".join(text for text, _ in line) for line in lines)


def page(app: MmtuiApp) -> PageScreen:
    assert isinstance(app.screen, PageScreen)
    return app.screen


def shown(app: MmtuiApp) -> str:
    """Header, tabs and lines of the page that is open."""
    if not isinstance(app.screen, PageScreen):
        return ""
    panel = app.screen.query_one("#page", LinesPanel)
    header = getattr(app.screen.query_one("#header", Static), "shown_text", "")
    return f"{header}\n{panel.title_text}\n{panel.plain_text()}"


async def ready(app: MmtuiApp, pilot: Pilot[int]) -> None:
    await until_async(lambda: app.feed.latest.detail is not None)
    await pilot.pause()


TABS = {
    "charts": "loss",
    "graph": "rejective edges between classes",
    "classes": "over 8/9 classes",
    "predictions": "no predictions yet",
    "log": "line 29",
    "devices": "nothing was recorded",
    "config": "recipe shapes_mixmatch",
    "history": "attempts",
}


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 48)])
@pytest.mark.parametrize("ascii_only", [False, True])
async def test_every_tab_of_a_run_is_shown_within_the_screen(
    seeded: Home, size: tuple[int, int], ascii_only: bool
) -> None:
    app = MmtuiApp(seeded, ascii_only=ascii_only)
    async with app.run_test(size=size) as pilot:
        await ready(app, pilot)
        await pilot.press("2")
        for tab, words in TABS.items():
            await until_async(lambda tab=tab: f"[{tab}]" in shown(app))
            await until_async(lambda words=words: words in plain(page(app).body))
            text = shown(app)
            assert all(len(line) <= size[0] for line in text.splitlines()), tab
            assert text.isascii() or not ascii_only, tab
            await pilot.press("tab")
        await until_async(lambda: "[charts]" in shown(app))
        await pilot.press("q")
        await until_async(lambda: app.screen is app.runs_screen)


async def test_charts_have_a_cursor_zoom_axis_and_overlays(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("space", "j", "space")
        await pilot.press("2")
        await until_async(lambda: "run 2 training one" in shown(app) and "run 1" in shown(app))
        before = shown(app)
        await pilot.press("left", "left", "left")
        await until_async(lambda: " at " in shown(app) and "as of step" in shown(app))
        await pilot.press("i")
        await until_async(lambda: "zoom " in shown(app))
        await pilot.press("w")
        await until_async(lambda: "epochs, all stages added up" in shown(app) and "epoch" in shown(app))
        await pilot.press("0")
        await until_async(lambda: shown(app) == before)


async def test_one_chart_fills_the_screen_and_goes_back(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    assert charts.metrics(seeded, "1")[:3] == ["loss", "miou", "lr"]
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("2")
        await until_async(lambda: "loss" in shown(app) and "lr " in shown(app))
        all_of_them = shown(app)
        await pilot.press("enter")
        await until_async(lambda: "lr " not in shown(app) and len(shown(app).splitlines()) >= 36)
        await pilot.press("m")
        await until_async(lambda: "miou " in shown(app) and "loss" not in shown(app))
        # Round to the first one again, then all of them.
        await pilot.press(*["m"] * (len(charts.metrics(seeded, "1")) - 1), "enter")
        await until_async(lambda: shown(app) == all_of_them)


def test_value_at_the_cursor_is_that_of_the_last_point_before_it(seeded: Home) -> None:
    points = runs.points(seeded, "1", "loss")
    for moment in (points[0].global_step, 141, 233, 450):
        last = [p for p in points if p.global_step <= moment][-1]
        lines = charts.charts(seeded, ["1"], 240, 40, False, charts.View(moment=moment)).lines
        assert f"loss {last.value:.5g} at step {last.global_step}" in plain(lines)


async def test_slider_takes_every_tab_back_to_the_same_step(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab")
        await until_async(lambda: "newest graph" in shown(app))
        newest = shown(app)
        await pilot.press(*["comma"] * 40)
        await until_async(lambda: "as of step 90 of 450" in shown(app) and "match" in shown(app).splitlines()[0])
        graphs = [event for event in runs.events(seeded, "1", "graph") if event.global_step <= 90]
        await until_async(lambda: f"step {graphs[-1].step}  nodes {graphs[-1].record.values['nodes']} " in shown(app))
        await pilot.press("tab")
        await until_async(lambda: "no evaluation yet" in shown(app))
        await pilot.press(*["full_stop"] * 20)
        await until_async(lambda: "as of step 270 of 450" in shown(app) and "mIoU" in shown(app))
        table = runs.class_table(seeded, "1", until=270)
        last = runs.class_table(seeded, "1")
        assert table is not None and last is not None and table.miou is not None and table.step < last.step
        assert f"mIoU {100 * table.miou:.2f}" in shown(app)
        assert table == runs.class_table(seeded, "1", table.step) or table.stage != last.stage
        await pilot.press("0", "shift+tab")
        await until_async(lambda: shown(app) == newest)


async def test_classes_are_sorted_and_compared_with_a_marked_run(seeded: Home) -> None:
    rows = runs.class_table(seeded, "2")
    base = runs.class_table(seeded, "1")
    assert rows is not None and base is not None
    worst = min((row for row in rows.classes if row.iou is not None), key=lambda row: row.iou or 0)
    lines = classes.classes(seeded, "2", (120, 40), False, classes.View(sort=1)).lines
    assert worst.name in plain([lines[3]])
    gains = {r.name: (r.iou or 0) - (b.iou or 0) for r, b in zip(rows.classes, base.classes, strict=True) if r.iou}
    best = max(gains, key=lambda name: gains[name])
    told = plain([classes.classes(seeded, "2", (120, 40), False, classes.View(2, "1")).lines[3]])
    assert best in told and f"{100 * gains[best]:+.1f}" in told
    text = plain(classes.classes(seeded, "2", (120, 40), False, classes.View(0, "1")).lines)
    assert f"run 1: {100 * (base.miou or 0):.2f}" in text
    assert text.count("absent") >= 1 and "→" in text


def test_most_confused_classes_are_the_largest_shares(seeded: Home) -> None:
    found = runs.class_table(seeded, "1")
    assert found is not None
    shares = [
        (count / sum(row), truth, other)
        for truth, row in enumerate(found.confusion)
        for other, count in enumerate(row)
        if truth != other and sum(row)
    ]
    share, truth, other = max(shares)
    text = plain(classes.classes(seeded, "1", (120, 40), False).lines)
    first = next(line for line in text.splitlines() if "→" in line)
    assert f"{100 * share:.1f}%" in first and CLASSES[truth] in first and first.rstrip().endswith(CLASSES[other])


async def test_two_marked_runs_are_compared(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app, pilot)
        await pilot.press("3")
        await until_async(lambda: "mark two runs" in shown(app))
        await pilot.press("q", "space", "j", "space")
        assert list(app.runs_screen.query_one(RunsTable).marked) == ["2", "1"]
        await pilot.press("c")
        await until_async(lambda: isinstance(app.screen, CompareScreen) and "seed" in shown(app))
        assert "why, most telling first" in plain(page(app).body)
        assert "classes, IoU %" in plain(page(app).body)


async def test_queue_is_reordered_prioritised_and_undone(home: Home) -> None:
    for name in ("one", "two", "three"):
        queue.enqueue(home, "shapes_baseline", ["segment.steps=2"], name=name, hold=True)
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("4")
        await until_async(lambda: "three" in shown(app))
        await pilot.press("j")
        await until_async(lambda: page(app).cursor == "2")  # type: ignore[attr-defined]
        await pilot.press("J")
        await until_async(lambda: runs.queue_order(home) == ["1", "3", "2"])
        await until_async(lambda: shown(app).index("three") < shown(app).index("two"))
        await pilot.press("K", "K")
        await until_async(lambda: runs.queue_order(home)[0] in ("2", "1"))
        await pilot.press("u")
        await until_async(lambda: runs.values(home, ["2"], ["priority"])["2"] == (1,))
        await until_async(lambda: "priority 1" in page(app).said)
        await pilot.press("z")
        await until_async(lambda: runs.values(home, ["2"], ["priority"])["2"] == (0,))
        await pilot.press("D")
        await until_async(lambda: runs.queue_settings(home).get("closed", "") != "")
        await until_async(lambda: "closed" in shown(app))
        await pilot.press("z")
        await until_async(lambda: not runs.queue_settings(home).get("closed"))
        assert isinstance(app.screen, QueueScreen)


async def test_run_that_has_ended_cannot_be_moved_and_it_is_said(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("4")
        await until_async(lambda: "training one" in shown(app))
        await pilot.press("J")
        await until_async(lambda: "only runs that wait" in page(app).said)


async def test_devices_page_shows_now_and_says_when_there_is_no_history(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("5")
        await until_async(lambda: "CPU" in shown(app) and "history: last" in shown(app))
        assert isinstance(app.screen, DevicesScreen)


async def test_filter_counts_while_one_types_and_says_what_is_wrong(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("slash")
        await until_async(lambda: isinstance(app.screen, FilterDialog))
        field, told = app.screen.query_one(Input), app.screen.query_one("#found", Static)
        field.value = "state = succeeded"
        await until_async(lambda: "1 run" in str(told.render()))
        field.value = "state = = 3"
        await until_async(lambda: "!" in str(told.render()))
        await pilot.press("enter")
        assert isinstance(app.screen, FilterDialog), "a wrong filter does not close it"
        field.value = "state = succeeded"
        await pilot.press("enter")
        table = app.runs_screen.query_one(RunsTable)
        await until_async(lambda: table.total == 1 and "finished one" in table.plain_text())
        assert "filter: state = succeeded" in table.title_text
        await pilot.press("slash")
        await until_async(lambda: isinstance(app.screen, FilterDialog))
        app.screen.query_one(Input).value = "state = failed"
        await pilot.press("enter")
        await until_async(lambda: "no run fits the filter" in table.plain_text())


async def test_order_of_runs_is_chosen_by_words_or_columns(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        table = app.runs_screen.query_one(RunsTable)
        best = max(("1", "2"), key=lambda run_id: runs.get_run(seeded, run_id).row.metrics["miou"] or 0)
        await pilot.press("s")
        await until_async(lambda: isinstance(app.screen, SortDialog))
        await pilot.press("down", "enter")
        await until_async(lambda: "best mIoU first" in table.title_text and table.rows[0].run.id == best)
        await pilot.press("s")
        await until_async(lambda: isinstance(app.screen, SortDialog))
        field = app.screen.query_one(Input)
        field.focus()
        field.value = "-nonsense"
        await until_async(lambda: "nonsense" in str(app.screen.query_one("#found", Static).render()))
        await pilot.press("enter")
        assert isinstance(app.screen, SortDialog), "a wrong column does not close it"
        field.value = "id"
        await pilot.press("enter")
        await until_async(lambda: "by id" in table.title_text and table.rows[0].run.id == "1")


async def test_any_command_is_run_completed_and_shown(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("colon")
        await until_async(lambda: isinstance(app.screen, CommandDialog))
        field = app.screen.query_one(Input)
        field.value = "sho"
        await pilot.press("tab")
        await until_async(lambda: field.value == "show ")
        field.value = "ls --json"
        await pilot.press("enter")
        await until_async(lambda: isinstance(app.screen, OutputScreen) and "schema_version" in shown(app))
        await pilot.press("q", "colon")
        await until_async(lambda: isinstance(app.screen, CommandDialog))
        app.screen.query_one(Input).value = "show 99"
        await pilot.press("enter")
        await until_async(lambda: "exit code 4" in shown(app))


async def test_hostile_names_do_no_harm_on_any_page(home: Home) -> None:
    for name in HOSTILE_NAMES:
        seed_run(home, name, until=330, seed=1, end=None, now=NOW)
    for run_id in map(str, range(1, len(HOSTILE_NAMES) + 1)):
        for lines in (
            charts.charts(home, [run_id, "1"], 100, 30, False).lines,
            graph.graph(home, run_id, (100, 30), False).lines,
            compare.compare(home, [run_id, "1"], (100, 30), False).lines,
            classes.classes(home, run_id, (100, 30), False).lines,
            facts.config(home, run_id, 100, False),
            facts.history(home, run_id, 100, False),
        ):
            assert "\x1b" not in plain(lines) and "\x07" not in plain(lines)


# ---- blocks --------------------------------------------------------------------------------------------------------


def test_blocks_beside_each_other_keep_their_widths() -> None:
    left: list[Line] = [[("中文", "")], [("abcdefgh", "dim")]]
    lines = compose.beside([left, [[("right", "")]]], 5, gap=1)
    assert plain(lines).splitlines() == ["中文  right", "abcde      "]


# ---- launching and keys --------------------------------------------------------------------------------------------


async def test_sweep_is_counted_priced_and_queued_with_options(home: Home) -> None:
    app = MmtuiApp(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        await pilot.press("n")
        await until_async(lambda: isinstance(app.screen, NewRunDialog))
        app.screen.query_one("#overrides", Input).value = "segment.steps=2 seed=0..2"
        told = app.screen.query_one("#verdict", Static)
        await until_async(lambda: "ok: 3 runs, each" in str(told.render()))
        app.screen.query_one("#options", Input).value = "--hold --tag mine"
        app.screen.query_one("#options", Input).focus()
        await pilot.press("enter")
        await until_async(lambda: len(runs.list_runs(home)) == 3)
        await until_async(lambda: "queued 3 runs, 1 to 3" in app.runs_screen.said)
        rows = runs.list_runs(home)
        assert {row.state for row in rows} == {"held"} and {row.tags for row in rows} == {("mine",)}
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog))
        assert "segment.steps=2" in app.screen.query_one("#overrides", Input).value
        app.screen.query_one("#options", Input).value = "--gpuss 2"
        app.screen.query_one("#options", Input).focus()
        await pilot.press("enter")
        await until_async(lambda: "--gpuss" in app.runs_screen.said)
        assert len(runs.list_runs(home)) == 3


async def test_chosen_keys_work_and_old_ones_do_not(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "KEYMAP", {})
    app = MmtuiApp(seeded)
    app.set_keymap(actions.choose_keys(["queue=Q,f4", "filter=?", "help=f1"]))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("4")
        assert app.screen is app.runs_screen
        await pilot.press("Q")
        await until_async(lambda: isinstance(app.screen, QueueScreen))
        await pilot.press("q", "question_mark")
        await until_async(lambda: isinstance(app.screen, FilterDialog))
    assert "f1 help" in actions.footer_text("runs", 200)
    assert actions.action_of("runs", "Q") is not None and actions.action_of("runs", "4") is None


@pytest.mark.parametrize(("word", "words"), [("qeue=Q", "no action 'qeue'"), ("queue=x", "both")])
def test_key_for_no_action_or_for_two_is_refused(monkeypatch: pytest.MonkeyPatch, word: str, words: str) -> None:
    monkeypatch.setattr(actions, "KEYMAP", {})
    with pytest.raises(UsageError, match=words):
        actions.choose_keys([word])


async def test_keys_of_a_page_act_while_it_is_being_read(seeded: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        try:
            monkeypatch.setattr(QueueScreen, "lines_of", lambda *_: [[(str(held.wait(PATIENCE)), "")]])
            app.open_page(4)
            await until_async(lambda: isinstance(app.screen, QueueScreen) and app.screen.reading)
            for key in ("m", "q"):
                app.post_message(Key(key, key))
            await until_async(lambda: isinstance(app.screen, RunsScreen))
            assert not held.is_set()
        finally:
            held.set()
