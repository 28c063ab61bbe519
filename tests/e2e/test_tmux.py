"""As a person in tmux: launch from the screen, watch the chart move, leave, see the run go on, come back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import mmtui
from tests.e2e.terminals import (
    ENDLESS,
    PROGRAM,
    chart_of,
    kinds_of,
    progress,
    screens_of,
    wait_for_moving_chart,
    wait_for_words,
)
from tests.waiting import PATIENCE, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
SIZES = {"160x48": (160, 48), "80x24": (80, 24)}


class Tmux:
    """One tmux server of its own, without anybody's settings, with one pane in which a shell runs."""

    def __init__(self, home: Home, columns: int, rows: int) -> None:
        self._socket = str(home.root.parent / "tmux")
        # Sizes that a shell or a library has left behind are wrong here: the window itself counts.
        shell = f"COLUMNS=80 LINES=24 MMTUI_HOME={home.root} LC_ALL=C.UTF-8 PS1='shell> ' exec sh"
        self("-u", "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), shell)
        self.wait_for("shell>")

    def __call__(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def look_of(self, words: str) -> list[str]:
        """The rows that have these words, with colours: they change when the focus comes or goes."""
        return [line for line in self("capture-pane", "-e", "-p").splitlines() if words in line]

    def wait_for(self, words: str) -> None:
        wait_for_words(self.screen, words)

    def wait_for_moving_chart(self) -> None:
        wait_for_moving_chart(self.screen)

    def launch(self) -> None:
        """From the shell to a run that is queued from the screen."""
        self.type(f"{PROGRAM}\n")
        self.wait_for("no runs yet")
        self.keys("n")
        self.wait_for("New run")
        self.wait_for("ok: match")
        unfocused = self.look_of("overrides")
        self.keys("Enter")
        until(lambda: self.look_of("overrides") != unfocused, "the focus on the overrides")
        self.type(" ".join(ENDLESS))
        self.wait_for("ok: match 20 steps, segment 1000000 steps")
        self.keys("Enter")


@pytest.fixture
def tmux(short_home: Home, request: pytest.FixtureRequest) -> Iterator[Tmux]:
    session = Tmux(short_home, *request.param)
    yield session
    session("kill-server")


@pytest.mark.parametrize("tmux", [SIZES["80x24"]], indirect=True, ids=["80x24"])
def test_tmux_run_launched_from_the_screen_goes_on_without_it(tmux: Tmux, short_home: Home) -> None:
    tmux.launch()
    tmux.wait_for_moving_chart()
    assert "running" in tmux.screen()

    tmux.keys("q")
    tmux.wait_for("shell>")
    until(lambda: screens_of(short_home) == [], "the screen's process ending")
    assert chart_of(tmux.screen()) == [], "the shell has its own screen back"
    tmux.type(f"{PROGRAM} ls\n")
    tmux.wait_for("running")
    (listed,) = json.loads(mmtui(short_home, "ls", "--json").stdout)["runs"]
    assert (listed["id"], listed["state"]) == ("1", "running")
    left_at = progress(short_home)
    until(lambda: progress(short_home) > left_at, "the run going on without a screen")
    assert kinds_of(short_home) == ["supervisor", "trainer"]

    tmux.type(f"{PROGRAM}\n")
    tmux.wait_for_moving_chart()
    tmux.keys("x")
    tmux.wait_for("Cancel run 1")
    tmux.keys("X")
    tmux.wait_for("cancelled")
    until(lambda: kinds_of(short_home).count("trainer") == 0, "the trainer ending")


@pytest.mark.parametrize("tmux", [SIZES["160x48"]], indirect=True, ids=["160x48"])
def test_tmux_window_shrinks_grows_and_dies_while_a_run_is_shown(tmux: Tmux, short_home: Home) -> None:
    tmux.launch()
    tmux.wait_for_moving_chart()
    for columns, rows in ((80, 24), (59, 14), (200, 50)):
        tmux("resize-window", "-x", str(columns), "-y", str(rows))
        if columns < 60:
            tmux.wait_for("too small")
        else:
            tmux.wait_for_moving_chart()
            lines = tmux.screen().splitlines()
            assert len(lines) == rows and max(map(len, lines)) > columns - 20, "it uses the window that it has"
    (screen,) = screens_of(short_home)

    tmux("kill-server")  # the terminal is gone at once, as when its machine goes down
    until(lambda: screen not in screens_of(short_home), "the screen ending")
    left_at = progress(short_home)
    until(lambda: progress(short_home) > left_at, "the run going on")
    assert kinds_of(short_home) == ["supervisor", "trainer"]
    assert runs.get_run(short_home, "1").row.attempt == 1, "the same process trains on"
