"""Processes that a test has left end with it: also a supervisor that has not yet taken the lock."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mmtui.paths import Home
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("leftovers")  # one after the other, in one process
WAITS = "import sys; sys.stdin.read()"
_left: list[subprocess.Popen[bytes]] = []


def test_leaves_a_supervisor_without_a_lock(home: Home) -> None:
    home.create()
    variables = {**os.environ, "MMTUI_HOME": str(home.root)}
    command = [sys.executable, "-c", WAITS, "mmtui.supervisor"]
    _left.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=variables))
    assert _left[0].poll() is None


def test_that_is_gone_with_its_test() -> None:
    until(lambda: _left[0].poll() is not None, "it has ended")
