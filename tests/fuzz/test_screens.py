"""Any keys on any page: the screen stays, draws, and ends when it is told to. Its log must not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtui.paths import Home
from mmtui.store.quick import put_setting
from mmtui.tui.app import MmtuiApp
from tests.fuzz.mutations import each, seeds
from tests.hostile import damage, tell
from tests.tui.conftest import acted, keys_have_acted, nothing_failed
from tests.waiting import until_async

__all__ = ["keys_have_acted", "nothing_failed"]
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


@pytest.mark.parametrize("part", range(2))
async def test_any_keys_leave_a_screen_that_answers(
    seeded_copy: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    put_setting(seeded_copy, "closed", "no run is to start in this test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", "true")
    for seed, chosen in each(seeds(2, part)):
        tell(seeded_copy, 3, seed)
        damage(seeded_copy, 3, seed)
        app = MmtuiApp(seeded_copy)
        async with app.run_test(size=chosen.choice(SIZES)) as pilot:
            await until_async(lambda app=app: app.feed.latest.rows, "the runs")
            for _ in range(40):
                await pilot.press(chosen.choice(KEYS))
                if not app.is_running:
                    break
            await acted(app)
        assert app.return_code in (0, None), seed
