"""How the screen starts: what it reads first begins before Textual is loaded, and waits for no device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmtui.devices import driver
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import live
from mmtui.store.db import Database
from mmtui.tui.app import MmtuiApp
from mmtui.tui.feed import Feed, first_wanted
from mmtui.tui.widgets.chart import ChartPanel
from tests.tui.seed import seed_run
from tests.waiting import until, until_async

NOW = 1_790_000_000.0
HANGS = Path(__file__).parents[1] / "unit" / "devices" / "recordings" / "hangs.json"


def test_feed_is_loaded_without_textual_and_rich() -> None:
    code = "import sys, mmtui.cli.screen, mmtui.tui.feed; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {"textual", "rich"}


def test_screens_that_are_not_shown_first_are_not_loaded() -> None:
    code = "import sys, mmtui.tui.app; print([m for m in sys.modules if m.startswith(('mmtui.tui', 'PIL', 'sqlm'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("screens.run'", "screens.queue", "screens.new_run", "screens.dialogs", "pages", "PIL", "sqlmodel"):
        assert name not in done.stdout, name


def test_what_queues_runs_is_not_loaded_before_a_run_is_queued() -> None:
    code = "import sys, mmtui.tui.app, mmtui.tui.screens.run, mmtui.tui.screens.queue; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "mmtui.tui.screens.deeds" in loaded
    ours = ("mmtui.tui.screens.queueing", "mmtui.services.submit", "engine.config.schema")
    assert not loaded & {*ours, "pydantic", "sqlmodel", "sqlalchemy", "yaml"}


@pytest.mark.parametrize("size", [(80, 24), (110, 30), (160, 48), (250, 70)])
async def test_first_read_is_the_one_the_screen_asks_for(home: Home, size: tuple[int, int]) -> None:
    seed_run(home, "one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    feed = Feed(home, first_wanted(*size, None))
    feed.start()
    await until_async(lambda: feed.latest.series is not None)
    app = MmtuiApp(home, feed=feed)
    async with app.run_test(size=size) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        await until_async(lambda: app.feed.latest.detail is not None)
        await pilot.pause()
        assert app.runs_screen.wanted.buckets == first_wanted(*size, None).buckets
        assert app.runs_screen.query_one(ChartPanel).plain_text().count("┤")


def test_feed_tells_who_comes_late(home: Home) -> None:
    seed_run(home, "one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    told: list[int] = []
    feed = Feed(home)
    feed.tell(lambda: told.append(1))
    assert told == [], "there is nothing yet"
    feed.start()
    until(lambda: bool(told))
    late: list[int] = []
    feed.tell(lambda: late.append(1))
    assert late == [1]
    feed.stop()


def test_picture_does_not_wait_for_a_driver_that_hangs(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_run(home, "one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    recording = tmp_path / "hangs.json"
    recording.write_text(HANGS.read_text().replace('"seconds": 1.0', '"seconds": 5.0'))
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(recording))
    assert driver.gpu_answer().gpus, "the first look is quick, the second hangs for seconds"
    feed = Feed(home)
    seen: list[bool] = []
    feed.tell(lambda: seen.append(feed.latest.devices is not None))
    feed.start()
    until(lambda: feed.latest.detail is not None)
    assert seen[0] is False, "the first picture has no devices"
    until(lambda: feed.latest.devices is not None)
    feed.stop()


def test_database_of_another_version_is_not_read_ahead(home: Home) -> None:
    assert not live.is_current(home), "none yet"
    database = Database(home)
    assert live.is_current(home)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0000_old'")
    database.close()
    assert not live.is_current(home)
    home.database.write_bytes(b"no database" * 1000)
    assert not live.is_current(home)
