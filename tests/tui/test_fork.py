"""Forking on the screen: F at the slider, the dialog, the queued child, the family tree."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from mmtui.paths import Home
from mmtui.services import forks, queue, recipes, runs
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import facts
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.run import RunScreen
from tests.family import trained_parent
from tests.tui.test_pages import plain
from tests.waiting import until_async


@pytest.fixture(scope="module")
def parent_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return trained_parent(tmp_path_factory.mktemp("parent") / "mmtui")


@pytest.fixture
def family(home: Home, parent_once: Home) -> Home:
    shutil.copytree(parent_once.root, home.root)
    return home


def child_of(home: Home, place: str, *overrides: str) -> str:
    """A held child that begins at ``RUN@STEP``."""
    fork = forks.parse(home, place)
    return queue.enqueue_all(home, fork.recipe(home), [list(overrides)], queue.Terms(hold=True), fork)[0]


@pytest.mark.parametrize("size", [(160, 48), (80, 24)])
async def test_fork_at_the_slider_opens_the_dialog_with_its_checkpoint_and_queues_the_child(
    family: Home, size: tuple[int, int]
) -> None:
    app = MmtuiApp(family)
    async with app.run_test(size=size) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        screen = RunScreen("1")
        app.push_screen(screen)
        await until_async(lambda: screen.is_mounted and bool(screen.body))
        await pilot.press(*["left"] * 4)
        assert screen.view.moment == 10
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog))
        dialog = app.screen
        title = str(dialog.query_one(".title", Static).render())
        assert title.startswith("Fork run 1 at its checkpoint of step 9 (segment 2)")
        assert dialog.query_one("#options", Input).value == "--from 1@9"
        assert dialog.query_one("#overrides", Input).value == "runtime.keep_every=2 seed=1"
        told = dialog.query_one("#verdict", Static)
        await until_async(lambda: "segment goes on at step 2 of 6" in str(told.render()))
        dialog.query_one("#overrides", Input).value = "runtime.keep_every=2 seed=1 model.width=0.5"
        await until_async(lambda: "model.width is 0.5 here and 0.25 in run 1" in str(told.render()))
        dialog.query_one("#overrides", Input).value = "runtime.keep_every=2 seed=1 segment.optim.lr=0.2"
        dialog.query_one("#options", Input).value = "--from 1@9 --hold"
        dialog.query_one("#options", Input).focus()
        await pilot.press("enter")
        await until_async(lambda: len(runs.list_runs(family)) == 2)
        await until_async(lambda: screen.said == "queued run 2")
        parent = runs.get_run(family, "2").parent
        assert parent is not None and (parent.run, parent.global_step) == ("1", 9)


async def test_fork_without_the_slider_takes_the_newest_checkpoint(family: Home) -> None:
    app = MmtuiApp(family)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        app.push_screen(RunScreen("1", tab=6))
        await until_async(lambda: isinstance(app.screen, RunScreen))
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog))
        assert "step 13 (segment 6)" in str(app.screen.query_one(".title", Static).render())


async def test_fork_before_the_first_checkpoint_says_so_and_opens_nothing(family: Home) -> None:
    app = MmtuiApp(family)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        screen = RunScreen("1")
        app.push_screen(screen)
        await until_async(lambda: screen.is_mounted and bool(screen.body))
        await pilot.press(*["left"] * 13)
        await pilot.press("F")
        await until_async(lambda: "no checkpoint at or before step 1" in screen.said)
        assert app.screen is screen


async def test_fork_of_a_recipe_that_is_not_listed_takes_the_one_of_the_run(family: Home, tmp_path: Path) -> None:
    (family.root / "recipes" / "tiny.yaml").rename(tmp_path / "tiny.yaml")
    app = MmtuiApp(family)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        screen = RunScreen("1")
        app.push_screen(screen)
        await until_async(lambda: screen.is_mounted and bool(screen.body))
        await pilot.press("F")
        await until_async(lambda: isinstance(app.screen, NewRunDialog))
        told = app.screen.query_one("#verdict", Static)
        await until_async(lambda: "from run 1 at step 13" in str(told.render()))


@pytest.mark.parametrize("ascii_only", [False, True])
def test_history_shows_the_family_as_a_tree(family: Home, ascii_only: bool) -> None:
    assert "lineage" not in plain(facts.history(family, "1", 80, ascii_only))
    child_of(family, "1@9", "segment.optim.lr=0.2")
    child_of(family, "1@5")
    child_of(family, "2@11", "seed=3")
    text = plain(facts.history(family, "2", 100, ascii_only))
    branch, arrow = ("`- ", "<-") if ascii_only else ("└─ ", "←")
    tree = text.split("lineage\n")[1].split("\n\n")[0].splitlines()
    parent = runs.list_runs(family)[-1]
    assert tree == [
        f"1 tiny  held, mIoU {parent.metrics['miou']:.1f}",
        f"{branch}2 tiny  {arrow} this run  from step 9 (segment 2)  held  segment.optim.lr=0.2",
        f"   {branch}4 tiny  from step 9 (segment 2)  held  seed=3",
    ]
    assert not ascii_only or text.isascii()
    assert f"{branch}3 tiny  from step 5 (match 2)  held" in plain(facts.history(family, "1", 80, ascii_only))


def test_branches_of_a_tree() -> None:
    #  a, its children b (with c and d) and e
    assert facts.branches([0, 1, 2, 2, 1], False) == ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ "]
    assert facts.branches([0, 1, 2, 3], True) == ["", "`- ", "   `- ", "      `- "]


def test_history_of_a_child_whose_parent_is_gone(family: Home) -> None:
    from mmtui.services import trash

    child_of(family, "1@9")
    trash.remove(family, "1")
    trash.purge(family, really=True)
    text = plain(facts.history(family, "2", 80, False))
    assert "run 1, not here any more: forked at step 9 (segment 2)" in text


def test_names_of_runs_reach_the_tree_printable(family: Home) -> None:
    fork = forks.parse(family, "1@9")
    assert recipes.resolve(fork.recipe(family), (), family).name == "tiny"
    terms = queue.Terms(hold=True, name="[red]evil\x1b[31m")
    queue.enqueue_all(family, fork.recipe(family), [[]], terms, fork)
    text = plain(facts.history(family, "1", 100, False))
    assert "\x1b" not in text and "[red]evil" in text
