"""Whatever the events and rows of one run hold: each view is drawn, and the other runs are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pytest
from rich.cells import cell_len

from mmtui.domain.text import printable
from mmtui.paths import Home
from mmtui.services import comparing, device_history, foreign, moments, run_history, runs
from mmtui.services.exchange.importing import take_in
from mmtui.tui.app import MmtuiApp
from mmtui.tui.feed import Feed
from mmtui.tui.model import Wanted
from mmtui.tui.pages import charts, classes, compare, facts, graph, log, predictions, queue, run_devices
from mmtui.tui.pages.panes import Focus, Laid
from mmtui.tui.pages.raster import Look
from mmtui.tui.widgets import panels
from tests.hostile import damage, tell
from tests.inputs import FUZZ
from tests.waiting import until_async

VICTIM, OTHER = "3", "1"
SEEDS = range(int(12 * FUZZ))
SIZES = ((80, 24), (160, 48), (30, 6))
LINE = (
    '{"v":1,"seq":1,"t":1764000000,"kind":"stage_finished","stage":"match","step":1,"global_step":1,'
    '"values":{"seconds":1,"replayed":"x"}}\n'
)
"""Of the report: it took the whole screen down, at each start."""


@pytest.fixture
def home(seeded_copy: Home) -> Home:
    return seeded_copy


def views(home: Home, run_id: str) -> dict[str, Callable[[], Any]]:
    """Everything that the screens show of a run, by name."""
    found: dict[str, Callable[[], Any]] = {
        "list": partial(runs.list_runs, home),
        "detail": partial(runs.get_run, home, run_id),
        "events": lambda: json.dumps([one.record.values for one in runs.events(home, run_id)], allow_nan=False),
        "points": lambda: [runs.points(home, run_id, name) for name in runs.metric_names(home, run_id)],
        "moments": partial(run_history.images, home, run_id),
        "differences": partial(comparing.differences, home, run_id, OTHER),
        "devices": partial(device_history.history, home, run_id),
        "queue": lambda: queue.lines(queue.look(home), VICTIM, 80, False),
        "described": lambda: [foreign.describe(event) for event in runs.events(home, run_id)],
        "classes of graph": partial(graph.classes_of, home, run_id),
        "baselines": partial(run_history.baselines, home, run_id, ()),
        "evaluations": partial(predictions.moments, home, run_id),
        "feed": lambda: Feed(home)._read(Wanted(run_id=run_id)),
        "steps": partial(moments.steps, home, run_id),
        "time": partial(moments.time_at, home, run_id, 100),
    }
    for width, height in SIZES:
        size = (width, height)
        for ascii_only in (False, True):
            add = {
                "graph": partial(graph.graph, home, run_id, size, ascii_only, None, None),
                "classes": partial(classes.classes, home, run_id, size, ascii_only, classes.View(2, OTHER), Focus()),
                "config": partial(facts.config, home, run_id, width, ascii_only),
                "history": partial(facts.history, home, run_id, width, ascii_only),
                "run devices": partial(run_devices.run_devices, home, run_id, width, height, ascii_only, charts.View()),
                "log": partial(log.log, home, run_id, width, ascii_only, 100, ""),
                "predictions": partial(predictions.predictions, home, run_id, width, height, Look(ascii_only)),
                "compare": partial(
                    compare.compare, home, [run_id, OTHER], size, ascii_only, charts.View(axis="relative"), Focus()
                ),
            }
            for axis in ("step", "epoch", "clock", "relative"):
                view = charts.View(log=ascii_only, axis=axis, weight=0.6)
                add[f"charts by {axis}"] = partial(
                    charts.charts, home, [run_id, OTHER], width, height, ascii_only, view, Focus()
                )
            found |= {f"{name} at {width}x{height}, ascii {ascii_only}": view for name, view in add.items()}
    return found


def look(home: Home, run_id: str) -> None:
    """Draw every view; all that fail are named."""
    faults = {}
    for name, view in views(home, run_id).items():
        try:
            found = view()
            if isinstance(found, Laid):
                told = "\n".join("".join(text for text, _ in line) for line in found.lines)
                assert "a fault of mmtui" not in told, told
        except Exception as error:
            frames = [
                f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})"
                for frame in extract_tb(error.__traceback__)
            ]
            faults[f"{type(error).__name__}: {error} in {' > '.join(frames[-4:])}"] = name
    if faults:
        pytest.fail("\n".join(f"{name}: {fault}" for fault, name in faults.items()))
    assert OTHER in [row.id for row in runs.list_runs(home)]


@pytest.mark.parametrize("seed", SEEDS)
def test_views_are_drawn_whatever_a_trainer_tells(home: Home, seed: int) -> None:
    tell(home, int(VICTIM), seed)
    look(home, VICTIM)


@pytest.mark.parametrize("seed", SEEDS)
def test_views_are_drawn_whatever_the_rows_hold(home: Home, seed: int) -> None:
    damage(home, int(VICTIM), seed)
    look(home, VICTIM)


@pytest.mark.parametrize("seed", range(int(3 * FUZZ)))
async def test_screen_goes_through_a_hostile_run_and_to_another(home: Home, seed: int) -> None:
    tell(home, int(VICTIM), seed)
    damage(home, int(VICTIM), seed)
    app = MmtuiApp(home, select=VICTIM)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.feed.latest.rows, "the runs")
        await pilot.press("2", *["tab"] * 8, "q", "3", "q", "4", "q", "home")
        await until_async(lambda: app.feed.latest.detail is not None, "a run's details")
        await pilot.press("q")


async def test_event_that_took_the_screen_down_is_told_and_left_out(home: Home, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(LINE)
    run_id = take_in(home, tmp_path / "events.jsonl").runs[0].run_id
    app = MmtuiApp(home, select=run_id)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.feed.latest.detail is not None, "the run")
        await pilot.press("2", "tab", "tab")
    (warning,) = runs.get_run(home, run_id).warnings
    assert "left out of its 'stage_finished': 'replayed'" in warning


def test_panels_stay_within_their_width_whatever_is_told(home: Home) -> None:
    tell(home, int(VICTIM), 5)
    found = runs.graph_stats(home, VICTIM)
    for line in panels.graph(found, ("a", "b"), 60, 20, False):
        text = "".join(part for part, _ in line)
        assert text == printable(text)
        assert cell_len(text) < 400
