"""``mmtui watch`` in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import sysconfig

import pyte
import pytest

from mmtui.cli import diagnostics, watching
from mmtui.domain.text import shorten
from mmtui.paths import Home
from mmtui.services import runs
from tests.ptys import Program
from tests.unit.cli.conftest import Invoke


def watched(home: Home, run: str, size: tuple[int, int], **more: str) -> tuple[list[str], int | None]:
    """What is left on the terminal, and the exit code."""
    rows, columns = size
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    env = {**os.environ, "MMTUI_HOME": str(home.root), "TERM": "xterm-256color", "PYTHONUTF8": "1", **more}
    program = f"{sysconfig.get_path('scripts')}/mmtui"
    child = Program(program, ["watch", run], columns, rows, env=env)
    stream.feed(child.read())
    status = child.until_ended()
    child.close()
    return [line.rstrip() for line in screen.display], status


@pytest.mark.parametrize("size", [(24, 80), (48, 160), (6, 40)])
def test_screen_of_a_run_that_succeeded_stays_on_the_terminal(populated: Home, size: tuple[int, int]) -> None:
    lines, code = watched(populated, "1", size)
    assert code == 0
    assert lines[0].startswith("run 1  good  succeeded")
    assert any("segment" in line and "4/4" in line for line in lines)
    assert not any("[31m" in line or "�" in line for line in lines)
    if size[0] > 6:
        assert any(line.startswith("loss  ") for line in lines) and "| first line" in lines


def test_run_that_failed_is_exit_1_and_its_name_cannot_harm_the_terminal(populated: Home) -> None:
    lines, code = watched(populated, "2", (24, 80))
    assert code == 1 and "failed" in lines[0]
    assert "evil" in lines[0] and "\x1b" not in "".join(lines)


def test_terminal_without_unicode_gets_ascii(populated: Home) -> None:
    lines, code = watched(populated, "1", (24, 80), LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0 and "".join(lines).isascii()


def test_who_waits_is_told_once_that_no_supervisor_runs(
    populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would ever happen, and nobody said so."""
    told = f"note: {diagnostics.UNSERVED}"
    found = mmtui_("wait", "3", "--timeout", "2")
    assert found.code == 124 and found.err.splitlines()[:-1] == [told]
    assert any(
        diagnostics.UNSERVED[:40] in line for line in watching.screen(populated, runs.get_run(populated, "3"), 120)
    )
    populated.lock.touch()
    held = os.open(populated.lock, os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert told not in mmtui_("wait", "3", "--timeout", "2").err
        lines = watching.screen(populated, runs.get_run(populated, "3"), 120)
        assert not any("no supervisor" in line for line in lines)
    finally:
        os.close(held)
    assert not any("no supervisor" in line for line in watching.screen(populated, runs.get_run(populated, "1"), 120))


def test_lines_are_never_wider_than_the_terminal(populated: Home) -> None:
    found = runs.get_run(populated, "2")
    for width in (20, 33, 80, 200):
        for line in watching.screen(populated, found, width):
            assert line == shorten(line, width)


def test_sparkline_has_eight_heights_and_leaves_gaps() -> None:
    assert watching.sparkline([0, 7, float("nan"), 3.5]) in ("▁█ ▄", "07 3")
    assert watching.sparkline([5.0, 5.0]) in ("▁▁", "00")
    assert watching.sparkline([float("nan")]) == ""
