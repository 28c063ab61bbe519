"""Draw docs/screen-runs.svg and docs/screens/: the real program on seeded data. Run: python docs/make_screens.py"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mmtui.domain.states import RunEvent  # noqa: E402
from mmtui.paths import Home  # noqa: E402
from mmtui.supervisor.lock import SupervisorLock  # noqa: E402
from mmtui.tui.app import MmtuiApp  # noqa: E402
from tests.tui import visit  # noqa: E402
from tests.tui.seed import seed_run  # noqa: E402


async def draw(home: Home, target: Path, size: tuple[int, int]) -> None:
    """One screenshot, once everything is on the screen."""
    app = MmtuiApp(home)
    async with app.run_test(size=size) as pilot:
        for _ in range(100):
            await pilot.pause(0.1)
            if app.feed.latest.detail is not None and app.feed.latest.devices is not None:
                break
        await pilot.pause(0.5)
        target.write_text(app.export_screenshot(title="mmtui"))


def main() -> None:
    """Seed a directory, draw it, throw it away."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "mmtui")
        now = time.time()
        seed_run(home, "shapes_baseline", until=450, seed=1, end=RunEvent.EXIT_OK, now=now - 300)
        seed_run(home, "shapes_mixmatch, margin 1.0", until=60, seed=2, end=RunEvent.EXIT_ERROR, now=now - 200)
        seed_run(home, "shapes_mixmatch", until=330, seed=3, end=None, now=now)
        # Shown as it looks while a supervisor serves the directory.
        lock = SupervisorLock(home)
        asyncio.run(draw(home, ROOT / "docs" / "screen-runs.svg", (160, 46)))
        lock.release()


def write_texts() -> None:
    """docs/screens/NAME-SIZE.txt: every screen as a terminal shows it; tests/tui/test_looks.py compares."""
    for columns, rows in visit.SIZES:
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder) / "mmtui")
            visit.seed(home)
            for name, text in visit.walk(home, columns, rows):
                target = ROOT / "docs" / "screens" / f"{name}-{columns}x{rows}.txt"
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
    write_texts()
