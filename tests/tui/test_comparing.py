"""Classes beside others, and the comparison of runs: against what is stored, and their keys by Pilot."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from itertools import pairwise
from pathlib import Path

import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import code, comparing, runs
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import charts, classes, compare
from mmtui.tui.pages.panes import Focus
from mmtui.tui.screens.baseline import BaselineDialog
from mmtui.tui.screens.run import CompareScreen
from tests.tui.seed import CLASSES, NOW, seed_run, seed_three
from tests.tui.test_pages import plain, ready, shown
from tests.waiting import until_async


@pytest.fixture
def seeded(home: Home) -> Home:
    return seed_three(home)


def value_at(home: Home, run_id: str, metric: str, step: int) -> float:
    return [p.value for p in runs.points(home, run_id, metric) if p.global_step <= step][-1]


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
    from engine.data.listings import class_names

    for start, tuning in (("colorization", "mixmatch"), ("colorization", "baseline"), ("imagenet", "baseline")):
        recipe = load_recipe(Path("recipes") / f"voc_vgg16_{start}_{tuning}.yaml")
        names = class_names(recipe.data)
        assert set(recipe.reference.per_class) == set(names[1:]), "20 classes, no background"


async def test_baseline_is_chosen_from_a_list_and_kept(seeded: Home) -> None:
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab", "tab")
        await until_async(lambda: "mIoU" in shown(app) and "vs run" not in shown(app))
        await pilot.press("B")
        await until_async(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("j", "enter")
        other = runs.class_table(seeded, "3")
        assert other is not None
        await until_async(lambda: f"run 3: {100 * (other.miou or 0):.2f}" in shown(app) and "vs run 3" in shown(app))
        await pilot.press("tab", "shift+tab")
        await until_async(lambda: "vs run 3" in shown(app))
        await pilot.press("B")
        await until_async(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("k", "enter")
        await until_async(lambda: "[classes]" in shown(app) and "vs run" not in shown(app))
        await pilot.press("B")
        await until_async(lambda: isinstance(app.screen, BaselineDialog))
        await pilot.press("escape")
        await until_async(lambda: "[classes]" in shown(app) and "vs run" not in shown(app))


# ---- comparison ----------------------------------------------------------------------------------------------------


def test_time_taken_is_told_of_running_runs_and_is_never_negative(
    seeded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + 600
    monkeypatch.setattr(time, "time", lambda: now)
    table = dict(comparing.table(seeded, ["1", "2", "3"]))
    assert table["took"][0] == pytest.approx(95)
    assert table["took"][1] == pytest.approx(now - (runs.get_run(seeded, "2").row.started_at or 0), abs=0.1)
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


def test_run_that_is_gone_is_named_and_the_others_are_compared(seeded: Home) -> None:
    laid = compare.compare(seeded, ["1", "99", "2"], (120, 40), False)
    text = plain(laid.lines)
    assert text.splitlines()[0].startswith("! run 99: no run 99")
    assert "run 1" in text and "run 2" in text and "classes, IoU %" in text
    assert plain(laid.lines[laid.first : laid.first + 1]).startswith("▸ what differs")
    text = plain(compare.compare(seeded, ["1", "99"], (120, 40), False).lines)
    assert "fewer than two runs" in text


@pytest.mark.parametrize("alone", [False, True])
def test_panel_that_fails_says_so_in_its_place(seeded: Home, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    def broken(home: Home, ids: object) -> None:
        raise ZeroDivisionError("no\x1b[31mthing")

    monkeypatch.setattr(comparing, "reasons", broken)
    text = plain(compare.compare(seeded, ["1", "2"], (160, 48), False, focus=Focus("why", alone)).lines)
    assert "▸ why" in text and "! a fault of mmtui: ZeroDivisionError: no\\x1b[31mthing" in text
    assert ("classes, IoU %" in text) is not alone
    assert "ZeroDivisionError" in seeded.screen_log.read_text()
    seeded.screen_log.unlink()  # that was meant


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
        await until_async(lambda: "▸ what differs" in shown(app))
        await pilot.press(*["m"] * 4)
        await until_async(lambda: "▸ loss" in shown(app))
        await pilot.press("enter")
        await until_async(lambda: "what differs" not in shown(app) and "▸ loss  A " in shown(app))
        await pilot.press("left", "left")
        await until_async(lambda: "cursor at step 432" in shown(app))
        values = [f"{value_at(seeded, run_id, 'loss', 432):.5g}" for run_id in ("1", "2", "3")]
        await until_async(lambda: f"loss  A {values[0]} B {values[1]} C {values[2]}" in shown(app))
        await pilot.press("O")
        await until_async(lambda: "run 2 second (top)" in shown(app))
