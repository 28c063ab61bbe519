"""The one table of keys: what it promises, help and palette made of it, and the list of command lines."""

from __future__ import annotations

from collections import defaultdict

import pytest
from textual.widgets import Input, OptionList

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.actions import actions_of, footer_text
from mmtui.tui.app import MmtuiApp
from mmtui.tui.keys import ACTIONS, PAGES, SCREENS
from mmtui.tui.screens.commands import CommandsDialog
from mmtui.tui.screens.dialogs import KeysDialog
from mmtui.tui.screens.output import OutputScreen
from mmtui.tui.screens.queue import QueueScreen
from mmtui.tui.screens.run import CompareScreen, DevicesScreen, RunScreen
from mmtui.tui.screens.runs import RunsScreen
from tests.tui.seed import seed_run
from tests.tui.test_pages import NOW, ready
from tests.waiting import until_async

CLASSES = {
    "runs": RunsScreen,
    "run": RunScreen,
    "compare": CompareScreen,
    "queue": QueueScreen,
    "devices": DevicesScreen,
    "output": OutputScreen,
}


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    seed_run(home, "training one", until=330, seed=2, end=None, now=NOW)
    return home


@pytest.mark.parametrize("screen", SCREENS)
def test_each_key_of_a_screen_does_one_thing_that_the_screen_can(screen: str) -> None:
    keys = [key for action in actions_of(screen) for key in action.keys.split(",")]
    assert len(set(keys)) == len(keys), sorted(key for key in keys if keys.count(key) > 1)
    for action in actions_of(screen):
        name = action.method.partition("(")[0]
        assert hasattr(CLASSES[screen], f"action_{name}"), action.id


def test_ids_are_distinct_and_screens_exist() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)
    assert {name for action in ACTIONS for name in action.screens.split()} == set(SCREENS)
    assert set(PAGES.split()) == set(SCREENS) - {"runs"}


def test_no_letter_means_things_of_different_weight() -> None:
    weights: dict[str, set[int]] = defaultdict(set)
    for action in ACTIONS:
        for key in action.keys.split(","):
            weights[key].add(action.weight)
    assert not {key: found for key, found in weights.items() if len(found) > 1}


def test_bindings_of_screens_come_from_the_table_alone() -> None:
    for name, screen in CLASSES.items():
        known = {action.id for action in actions_of(name)} | {"interrupt"}
        assert {binding.id for binding in screen.BINDINGS} == known  # type: ignore[union-attr]


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("width", [58, 78, 158])
def test_footer_fits_and_tells_how_to_leave_and_to_get_help(screen: str, width: int) -> None:
    text = footer_text(screen, width)
    assert len(text) <= width
    assert "? help" in text and ("q quit" if screen == "runs" else "q back") in text


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_help_lists_every_key_and_searches(seeded: Home, size: tuple[int, int]) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=size) as pilot:
        await ready(app, pilot)
        await pilot.press("question_mark")
        await until_async(lambda: isinstance(app.screen, KeysDialog))
        found = app.screen.query_one(OptionList)
        assert {option.id for option in found.options} == {action.id for action in ACTIONS}
        assert app.screen.query_one(".box").region.height <= size[1]
        await pilot.press(*"cancel")
        await until_async(lambda: [option.id for option in found.options][:1] == ["cancel"])
        await pilot.press(*" zzz")
        await until_async(lambda: found.options[0].disabled)
        await pilot.press("enter")
        assert isinstance(app.screen, KeysDialog), "there is nothing to do"


async def test_palette_does_what_is_chosen_on_every_screen(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("ctrl+p")
        await until_async(lambda: isinstance(app.screen, KeysDialog))
        ids = {option.id for option in app.screen.query_one(OptionList).options}
        assert ids == {action.id for action in actions_of("runs")}
        await pilot.press(*"forecast")
        await pilot.press("enter")
        await until_async(lambda: isinstance(app.screen, QueueScreen))
        await pilot.press("ctrl+p")
        await until_async(lambda: isinstance(app.screen, KeysDialog))
        await pilot.press(*"gpu", "enter")
        await until_async(lambda: isinstance(app.screen, DevicesScreen))


async def test_command_lines_of_keys_are_listed_newest_first_and_copied(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("m", "m", "4")
        await until_async(lambda: isinstance(app.screen, QueueScreen))
        await pilot.press("at")
        await until_async(lambda: isinstance(app.screen, CommandsDialog))
        texts = [str(option.prompt) for option in app.screen.query_one(OptionList).options]
        assert texts == ["mmtui queue", "mmtui metrics 2"]
        await pilot.press("down", "enter")
        await until_async(lambda: app.clipboard == "mmtui metrics 2")
        await pilot.press("Y")
        await until_async(lambda: app.clipboard == "mmtui queue")
        await pilot.press("y")
        await until_async(lambda: app.clipboard == "2")


async def test_any_command_can_be_typed_on_a_page(seeded: Home) -> None:
    app = MmtuiApp(seeded)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("2")
        await until_async(lambda: isinstance(app.screen, RunScreen))
        await pilot.press("colon")
        await until_async(lambda: bool(app.screen.query(Input)))
        app.screen.query_one(Input).value = "note 1 'kept for the paper'"
        await pilot.press("enter")
        await until_async(lambda: isinstance(app.screen, OutputScreen))
        await until_async(lambda: runs.get_run(seeded, "1").note == "kept for the paper")
