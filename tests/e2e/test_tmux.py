"""As a person in tmux: launch from the screen, watch the chart move, leave, see the run go on, come back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import TINY, kill_everything, mmtui, wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


class Tmux:
    """One tmux server of its own with one pane."""

    def __init__(self, home: Home, columns: int, rows: int) -> None:
        self.socket = str(home.root / "tmux")
        home.create()
        shell = f"MMTUI_HOME={home.root} LC_ALL=C.UTF-8 exec sh"
        self("-u", "new-session", "-d", "-x", str(columns), "-y", str(rows), shell)

    def __call__(self, *words: str) -> str:
        command = ["tmux", "-S", self.socket, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)
        time.sleep(0.3)

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)
        time.sleep(0.3)

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def wait_for(self, words: str, seconds: float = 20) -> None:
        wait_until(lambda: words in self.screen(), seconds, f"{words!r} on the screen")


@pytest.fixture
def tmux(home: Home, request: pytest.FixtureRequest) -> Iterator[Tmux]:
    session = Tmux(home, *request.param)
    yield session
    session("kill-server")
    kill_everything(home)


@pytest.mark.parametrize("tmux", [(160, 48), (80, 24)], indirect=True, ids=["160x48", "80x24"])
def test_tmux_run_launched_from_the_screen_outlives_it(tmux: Tmux, home: Home) -> None:
    tmux.type(f"{sys.executable} -m mmtui\n")
    tmux.wait_for("no runs yet")
    tmux.keys("n")
    tmux.wait_for("New run")
    tmux.keys("End", "Enter")
    names = [line for line in tmux.screen().splitlines() if "shapes_mixmatch" in line]
    assert names, tmux.screen()
    tmux.keys("Escape")
    # The recipe is chosen by name on the command line's terms: the dialog keeps the list in order.
    tmux.keys("n")
    tmux.wait_for("New run")
    position = sorted(view.name for view in _recipes()).index("shapes_mixmatch")
    for _ in range(position):
        tmux.keys("Down")
    tmux.keys("Enter")
    tmux.type(" ".join([*TINY, "segment.steps=700", "segment.eval_every=100"]))
    tmux.wait_for("ok: match 20 steps, segment 700 steps")
    tmux.keys("Enter")
    tmux.wait_for("running", 30)
    tmux.wait_for("┤", 30)
    before = runs.get_run(home, "1").row.progress
    first = tmux.screen()
    wait_until(lambda: tmux.screen() != first, 15, "the chart moving")
    tmux.keys("q")
    wait_until(lambda: "New run" not in tmux.screen() and "┤" not in tmux.screen(), 10, "leaving the screen")
    listed = mmtui(home, "ls")
    assert "shapes_mixmatch" in listed.stdout
    wait_until(lambda: runs.get_run(home, "1").row.progress > before, 20, "the run going on")
    tmux.type(f"{sys.executable} -m mmtui\n")
    tmux.wait_for("shapes_mixmatch")
    assert mmtui(home, "wait", "1", "--timeout", "90", timeout=100).returncode == 0
    tmux.wait_for("succeeded", 10)


def _recipes() -> list:  # type: ignore[type-arg]
    from mmtui.services import recipes

    return recipes.list_recipes()
