"""Processes that a test has left end with it: also a supervisor that has not yet taken the lock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mmtui.paths import Home
from tests.waiting import until

WAITS = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def left() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What the test leaves; of a module, as it is to look when all that belongs to the test has been torn down."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    try:
        until(lambda: all(process.poll() is not None for process in processes), "they have ended")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_supervisor_without_a_lock_ends_with_its_test(home: Home, left: list[subprocess.Popen[bytes]]) -> None:
    home.create()
    variables = {**os.environ, "MMTUI_HOME": str(home.root)}
    command = [sys.executable, "-c", WAITS, "mmtui.supervisor"]
    left.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables))
    assert left[0].stdout is not None
    # It runs: in the middle of its execve a process has no command and no environment yet by which it could be found.
    assert left[0].stdout.readline() == b"\n" and left[0].poll() is None
