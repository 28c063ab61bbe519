"""Themes: every one is drawn, the colour-blind one can be told apart without red and green."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.settings import THEMES, SettingsError, load
from mmtui.tui import themes
from mmtui.tui.app import MmtuiApp
from mmtui.tui.widgets.lines import STYLES
from tests.tui.seed import seed_run
from tests.waiting import until_async

# Viénot, Brettel, Mollon 1999: what a deuteranope sees of linear RGB.
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    yield
    themes.use("ansi")


async def test_theme_key_goes_through_all_of_them_and_back(home: Home) -> None:
    seed_run(home, "one", until=330, seed=1, end=RunEvent.EXIT_OK, now=1_790_000_000.0)
    app, seen, good = MmtuiApp(home), [], set()
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.feed.latest.detail is not None)
        for _ in THEMES:
            seen.append(app.theme_name)
            good.add(str(STYLES["good"]))
            await pilot.press("t")
            await pilot.pause()
            assert "succeeded" in app.runs_screen.query_one("#runs").plain_text()  # type: ignore[attr-defined]
        assert seen == list(THEMES) and app.theme_name == "ansi"
        assert len(good) == 3  # the terminal's green, one for light, one for the colour-blind


def test_colorblind_colours_differ_for_who_sees_no_green() -> None:
    themes.use("colorblind")
    colours = {}
    for name in ("good", "bad", "warn", "magenta", "cyan"):
        color = STYLES[name].color
        assert color is not None
        linear = (np.array(color.get_truecolor()) / 255) ** 2.2
        colours[name] = (DEUTERANOPIA @ linear).clip(0, 1) ** (1 / 2.2)
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(colours[one] - colours[other]) > 0.15, (one, other)
    plain = {"good": (0, 128, 0), "bad": (128, 0, 0)}
    seen = [(DEUTERANOPIA @ (np.array(rgb) / 255) ** 2.2).clip(0, 1) ** (1 / 2.2) for rgb in plain.values()]
    ours = np.linalg.norm(colours["good"] - colours["bad"])
    assert ours > 2 * np.linalg.norm(seen[0] - seen[1])  # green and red are what one must not use


def test_unknown_theme_is_refused_with_the_list(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('theme = "pink"\n')
    with pytest.raises(SettingsError, match=r"theme = 'pink': write one of ansi, ansi-light, dark"):
        load(file)
