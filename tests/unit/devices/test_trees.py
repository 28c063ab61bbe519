"""What trees of processes take, beside psutil's account of the same processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mmtui.devices.trees import TreeMeter
from tests.waiting import PATIENCE, until

BUSY = "while True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.fixture
def tree() -> Iterator[psutil.Process]:
    """A process that waits for a child that keeps a core busy."""
    child = subprocess.Popen([sys.executable, "-c", PARENT])
    found = psutil.Process(child.pid)
    until(lambda: any(p.cpu_times().user > 0.05 for p in found.children()), "a child that runs")
    yield found
    with suppress(psutil.NoSuchProcess):
        for process in [*found.children(recursive=True), found]:
            process.kill()
    child.wait()


def seconds(tree: psutil.Process) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in [tree, *tree.children(recursive=True)])


def test_look_agrees_with_psutil(tree: psutil.Process) -> None:
    meter = TreeMeter()
    least_began, before = time.monotonic(), seconds(tree)
    first = meter.look([tree.pid])[tree.pid]
    most_began, after = time.monotonic(), seconds(tree)
    assert first.cpu_percent is None
    until(lambda: seconds(tree) > after + 0.5, "half a second of work")
    least = 100 * (seconds(tree) - after) / (time.monotonic() - least_began)
    second = meter.look([tree.pid])[tree.pid]
    most = 100 * (seconds(tree) - before) / (time.monotonic() - most_began)
    # Between what psutil saw just before and just after, to the grain of the kernel's clock.
    assert second.cpu_percent is not None and 0.9 * least - 3 < second.cpu_percent < 1.1 * most + 3
    assert second.cpu_percent > 0
    assert second.processes == 2 and second.threads == 2
    resident = sum(p.memory_info().rss for p in [tree, *tree.children(recursive=True)])
    assert second.memory == pytest.approx(resident, rel=0.1)


def test_child_that_has_ended_takes_nothing_away(tree: psutil.Process) -> None:
    meter = TreeMeter()
    own = os.getpid()
    meter.look([own])
    for child in tree.children():
        child.kill()
    tree.wait(PATIENCE)
    time.sleep(0.05)  # an interval, however long
    after = meter.look([own])[own]
    assert after.cpu_percent is not None and after.cpu_percent >= 0


def test_processes_that_are_gone_are_left_out(tree: psutil.Process) -> None:
    meter = TreeMeter()
    assert set(meter.look([tree.pid, 2**22 + 1])) == {tree.pid}
    for child in tree.children():
        child.kill()
    until(lambda: tree.status() == psutil.STATUS_ZOMBIE)
    assert meter.look([tree.pid]) == {}, "a zombie uses nothing"


def test_name_that_is_cut_inside_a_character_and_a_member_that_was_missed(tree: psutil.Process) -> None:
    (child,) = tree.children()
    meter = TreeMeter()
    meter.look([tree.pid])
    before, seconds_of = meter._then[tree.pid]
    seconds_of.pop(child.pid)  # as if the first look had not seen it
    time.sleep(0.3)  # an interval, however long
    share = meter.look([tree.pid])[tree.pid].cpu_percent
    assert share is not None and share <= 201, "one thread each of two processes"
    assert before < time.monotonic()
    rename = "import ctypes, time; ctypes.CDLL(None).prctl(15, 'abcdefghijklmn\u00e9'.encode()[:15]); time.sleep(600)"
    odd = subprocess.Popen([sys.executable, "-c", rename])
    try:
        until(lambda: b"abcdefghijklmn" in Path(f"/proc/{odd.pid}/comm").read_bytes())
        assert meter.look([odd.pid])[odd.pid].processes == 1
    finally:
        odd.kill()
        odd.wait()
