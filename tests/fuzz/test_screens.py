"""Any keys on any page, with any names: the screen stays, draws nothing that a terminal acts on, and ends when told.

Its log must not exist.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from textual.widgets import Input

from mmtui.paths import Home
from mmtui.store.quick import put_setting
from mmtui.tui.app import MmtuiApp
from tests.e2e.support import kill_everything
from tests.fuzz.mutations import each, seeds
from tests.fuzz.names import named
from tests.hostile import damage, tell
from tests.tui.conftest import acted, keys_have_acted
from tests.unit.cli.test_hostile import harms
from tests.waiting import until_async

__all__ = ["keys_have_acted"]
KEYS = (
    *"1234567890abcdefghijklmnoprstuvwxyzABCDEFGHIJKLMNOPRSTUVWXYZ",
    *("space", "enter", "escape", "tab", "shift+tab", "up", "down", "left", "right", "home", "end", "pageup"),
    *(
        "pagedown",
        "slash",
        "colon",
        "question_mark",
        "at",
        "plus",
        "minus",
        "comma",
        "full_stop",
        "backspace",
        "delete",
    ),
    *("less_than_sign", "greater_than_sign", "left_square_bracket", "right_square_bracket", "ctrl+u", "ctrl+w", "f1"),
)
SIZES = ((80, 24), (120, 40), (160, 48), (40, 10), (20, 5))


def copy_of(seeded: Home, root: Path) -> Home:
    """A data directory of its own for one seed, as it would have alone; no run starts in it."""
    shutil.copytree(seeded.root, root)
    put_setting(Home(root), "closed", "no run is to start in this test")
    return Home(root)


@pytest.mark.parametrize("part", range(2))
async def test_any_keys_leave_a_screen_that_answers(
    seeded_once: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", "true")
    for seed, chosen in each(seeds(2, part), "screens, 40 keys each"):
        home = copy_of(seeded_once, tmp_path / str(seed))
        monkeypatch.setenv("MMTUI_HOME", str(home.root))
        tell(home, 3, seed)
        damage(home, 3, seed)
        damage(home, chosen.choice((4, 5, 6)), seed + 1)
        named(home, chosen)
        try:
            await press_any(home, chosen, seed)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            kill_everything(home)  # a key starts the supervisor
        if home.screen_log.exists():
            pytest.fail(f"seed {seed}: {home.screen_log.read_text()}")
        shutil.rmtree(home.root, ignore_errors=True)


async def press_any(home: Home, chosen: random.Random, seed: int) -> None:
    """Forty keys on a screen of any size; it goes on to draw, and ends."""
    app = MmtuiApp(home)
    async with app.run_test(size=chosen.choice(SIZES)) as pilot:
        await until_async(lambda app=app: app.feed.latest.rows, "the runs")
        for _ in range(40):
            await pilot.press(chosen.choice(KEYS))
            if not app.is_running:
                break
            if not app.screen.query(Input):  # which holds a text as it is stored: tests/tui/test_output.py
                shown = [strip.text for strip in app.screen._compositor.render_strips()]
                assert not [line for line in shown if harms(line)], seed
        await acted(app)
    assert app.return_code in (0, None), seed
