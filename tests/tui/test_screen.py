"""The program driven by Textual's Pilot on a real store."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from engine.events.records import Graph
from mmtui.domain.states import RunEvent
from mmtui.domain.views import GraphStats
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.app import MmtuiApp
from mmtui.tui.layout import PANELS, arrange, is_tiny
from mmtui.tui.screens.dialogs import CancelDialog
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.chart import ChartPanel
from mmtui.tui.widgets.lines import LinesPanel
from mmtui.tui.widgets.runs_table import RunsTable
from tests.tui.seed import HOSTILE_NAMES, seed_run
from tests.waiting import until_async

NOW = 1_790_000_000.0


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)
    return home


def text(app: MmtuiApp, name: str) -> str:
    return app.runs_screen.query_one(f"#{name}", LinesPanel).plain_text()


async def ready(app: MmtuiApp) -> None:
    await until_async(lambda: app.runs_screen.is_mounted and "state" in text(app, "runs"))
    await until_async(lambda: app.feed.latest.detail is not None)
    await until_async(lambda: "│" in text(app, "chart") or "|" in text(app, "chart"))


async def test_wide_screen_shows_every_panel(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)):
        await ready(app)
        assert "training one" in text(app, "runs")
        assert "match" in text(app, "stages")
        assert "one component per class" in text(app, "graph")
        assert "starved: absent (25 steps)" in text(app, "graph")
        assert "mIoU" in text(app, "classes")
        assert "over 8/9 classes" in text(app, "classes")
        assert "absent" in text(app, "classes")
        assert "line 29" in text(app, "log")
        await until_async(lambda: "CPU" in text(app, "devices"))
        assert all(app.runs_screen.query_one(f"#{name}").display for name in PANELS)


async def test_small_screen_says_beside_the_chart_why_a_run_failed(home: Home) -> None:
    seed_run(home, "broken", until=330, seed=1, end=RunEvent.EXIT_ERROR, now=NOW, reason="no room on the disk")
    app = MmtuiApp(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app)
        await until_async(lambda: "no room on the disk" in text(app, "chart"))
        assert text(app, "chart").splitlines()[0].startswith("✗ failed")
        await pilot.resize_terminal(160, 48)
        await until_async(lambda: "no room on the disk" in text(app, "stages"))
        await until_async(lambda: "no room" not in text(app, "chart"))


@pytest.mark.parametrize("reason", ["word " * 80, "没有足够的内存" * 30, "x" * 400, "", "short"])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_reason_fits_its_lines_and_says_where_it_was_cut(home: Home, reason: str, ascii_only: bool) -> None:
    run_id = seed_run(home, "broken", until=330, seed=1, end=RunEvent.EXIT_ERROR, now=NOW, reason=reason)
    detail = runs.get_run(home, run_id)
    for width in (30, 60, 87):
        lines = ["".join(part for part, _ in line) for line in panels.standing(detail, width, ascii_only)]
        assert len(lines) <= 3 and max(map(cell_len, lines)) <= width
        assert lines[0].split(" ", 1)[1].startswith("failed")
        assert lines[-1].endswith(".." if ascii_only else "…") is (len(reason) > 100)


def test_name_is_cut_in_its_middle() -> None:
    assert panels.fit_inside("voc_vgg16_colorization_mixmatch seed=0", 20) == "voc_vgg16_…ch seed=0"
    for width in range(1, 40):
        assert cell_len(panels.fit_inside("中文名字" * 9 + " seed=1", width)) == width
        assert cell_len(panels.fit_inside("a" * 30 + " seed=1", width, ascii_only=True)) == width


async def test_empty_store_says_how_to_begin(home: Home) -> None:
    home.create()
    app = MmtuiApp(home)
    async with app.run_test(size=(80, 24)):
        await until_async(lambda: app.runs_screen.is_mounted and "press n" in text(app, "runs"))
        assert "mmtui demo" in text(app, "runs")


@pytest.mark.parametrize("width", [100, 48])
def test_graph_panel_tells_purity_where_the_trainer_does(width: int) -> None:
    values = {"patch_size_min": 48, "patch_size_max": 160, "padding_share": 0.2}
    old = GraphStats("1", 20, NOW, Graph({**values, "overlap_rejections": 1200, "topped_up": 3}))
    new = GraphStats("1", 20, NOW, Graph({**old.graph.values, "purity_mean": 0.517}))
    for stats, told in ((old, False), (new, True)):
        lines = ["".join(part for part, _ in line) for line in panels.graph(stats, ["a"], width, 20, False)]
        assert any("purity 52%  overlap dropped 1200, back 3" in line for line in lines) is told
        assert any("overlap dropped 1200, back 3" in line for line in lines)
        assert max(len(line) for line in lines if "back 3" in line) <= width


async def test_small_screen_shows_one_panel_at_a_time(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app)
        for name in (*PANELS, PANELS[0]):
            assert [n for n in PANELS if app.runs_screen.query_one(f"#{n}").display] == [name]
            await pilot.press("right_square_bracket")


async def test_cursor_selects_the_other_run(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app)
        assert app.feed.latest.detail is not None
        assert app.feed.latest.detail.row.id == "2"
        await pilot.press("j")
        await until_async(lambda: app.feed.latest.detail is not None and app.feed.latest.detail.row.id == "1")
        await until_async(lambda: "finished" in app.runs_screen.query_one("#stages", LinesPanel).title_text)


async def test_metric_axis_and_smoothing_keys_change_the_chart(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)) as pilot:
        await ready(app)
        chart = app.runs_screen.query_one(ChartPanel)
        before = text(app, "chart")
        await pilot.press("L")
        assert text(app, "chart") != before
        assert "log" in chart.title_text
        await pilot.press("plus")
        assert "smoothed 0.6" in chart.title_text
        await pilot.press("0", "m")
        await until_async(lambda: chart.title_text.startswith("miou"))


async def test_chart_moves_when_the_run_goes_on(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(160, 48)):
        await ready(app)
        before = text(app, "chart")
        new = seed_run(seeded, "newer", until=40, seed=3, end=None, now=NOW)
        await until_async(lambda: "newer" in text(app, "runs"))
        assert text(app, "chart") == before
        assert new == "3"


async def test_cancel_asks_and_leaves_a_wish(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app)
        await pilot.press("x")
        assert isinstance(app.screen, CancelDialog)
        await pilot.press("escape")
        assert not isinstance(app.screen, CancelDialog)
        assert runs.get_run(seeded, "2").row.state == "running"


async def test_cancel_of_a_finished_run_is_refused_in_words(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(100, 30)) as pilot:
        await until_async(lambda: app.feed.latest.detail is not None and app.feed.latest.detail.row.id == "1")
        await pilot.press("x")
        assert "nothing to cancel" in app.runs_screen.said


async def test_quit_leaves_the_run_alone(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app)
        await pilot.press("q")
    assert app.return_value == 0
    assert runs.get_run(seeded, "2").row.state == "running"


async def test_hostile_names_are_shown_and_break_nothing(home: Home) -> None:
    for number, name in enumerate(HOSTILE_NAMES):
        seed_run(home, name, until=20, seed=number, end=RunEvent.EXIT_OK, now=NOW)
    app = MmtuiApp(home)
    async with app.run_test(size=(160, 48)):
        await ready(app)
        shown = text(app, "runs")
        assert "[bold red]" in shown
        assert "\x1b" not in shown
        assert "\\x07" in shown
        assert "中文" in shown
        table = app.runs_screen.query_one(RunsTable)
        widths = {table.render_line(y).cell_length for y in range(8)}
        assert len(widths) == 1


async def test_ascii_screen_has_no_other_characters(seeded: Home) -> None:
    app = MmtuiApp(seeded, ascii_only=True)
    async with app.run_test(size=(160, 48)):
        await ready(app)
        for name in ("runs", *PANELS):
            panel = app.runs_screen.query_one(f"#{name}", LinesPanel)
            for y in range(panel.size.height):
                assert panel.render_line(y).text.isascii(), f"{name} line {y}: {panel.render_line(y).text}"


async def test_damaged_database_is_said_on_screen_and_keeps_trying(home: Home) -> None:
    home.create()
    home.database.write_bytes(b"this is no database, whatever its name says" * 100)
    app = MmtuiApp(home)
    async with app.run_test(size=(120, 30)):
        await until_async(lambda: bool(app.feed.latest.problem))
        assert "mmtui.db is damaged" in app.feed.latest.problem
        home.database.unlink()
        await until_async(lambda: not app.feed.latest.problem)


async def test_tiny_terminal_says_so(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(40, 10)):
        await until_async(lambda: app.runs_screen.is_mounted)
        assert app.runs_screen.has_class("tiny")
        assert app.runs_screen.query_one("#message").display


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (110, 30), (120, 40), (160, 48), (250, 70)])
@pytest.mark.parametrize("zoomed", [False, True])
def test_arrange_covers_without_overlap(size: tuple[int, int], zoomed: bool) -> None:
    width, height = size[0], size[1] - 2
    for panel in PANELS:
        boxes = arrange(width, height, panel, zoomed)
        cells: set[tuple[int, int]] = set()
        for box in boxes.values():
            assert box.width > 0
            assert box.height > 1
            mine = {(x, y) for x in range(box.x, box.x + box.width) for y in range(box.y, box.y + box.height)}
            assert not cells & mine
            cells |= mine
        assert max(x for x, _ in cells) == width - 1
        assert max(y for _, y in cells) == height - 1
    assert not is_tiny(*size)
