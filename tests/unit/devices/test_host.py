"""The host by psutil and /proc, against the real machine."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mmtui.devices.host import CpuMeter, host_snapshot, parent_of, process_identity, process_owner, session_of
from mmtui.services.launch import identity
from tests.waiting import until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with a child in the same session."""
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    yield process
    os.killpg(process.pid, 9)
    process.communicate()


def test_host_snapshot_agrees_with_the_kernel(tmp_path: Path) -> None:
    host = host_snapshot(tmp_path / "not" / "yet" / "there")
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    assert host.memory_total == int(lines["MemTotal"].split()[0]) * 1024
    assert 0 < host.memory_used < host.memory_total
    stat = os.statvfs(tmp_path)
    assert abs(host.disk_free - stat.f_bavail * stat.f_frsize) < 1 << 30
    assert host.disk_free < host.disk_total
    assert host.cpu_count == os.cpu_count()
    assert abs(host.load1 - os.getloadavg()[0]) < 1


def test_percent_busy_core_counts_and_first_reading_is_no_zero() -> None:
    stop = threading.Event()
    code = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(psutil.cpu_count() or 1)]
    try:
        until(lambda: CpuMeter().percent() > 60, "every core busy")
    finally:
        stop.set()
        for process in busy:
            process.kill()
            process.wait()


def test_percent_two_readers_by_turns_see_the_same_interval() -> None:
    meter = CpuMeter()
    first = meter.percent()
    assert meter.percent() == first, "an interval of microseconds says nothing, so the last value stays"
    time.sleep(0.15)  # an interval, however long
    assert 0 <= meter.percent() <= 100


def test_process_owner_real_process_is_us_and_unknown_number_a_question_mark() -> None:
    first = Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC
    assert process_owner(os.getpid()) == (psutil.Process().username() if first else "?")
    assert process_owner(2**22 + 7) == "?"
    assert process_owner(2**70) == "?"
    assert psutil.Process().username() in (getpass.getuser(), str(os.getuid()))


def test_process_identity_is_the_form_that_the_supervisor_stores(sleeper: subprocess.Popen[bytes]) -> None:
    assert process_identity(sleeper.pid) == identity(sleeper.pid) is not None
    assert process_identity(os.getpid()) != process_identity(sleeper.pid)


def test_process_identity_of_a_zombie_and_of_nobody_is_none() -> None:
    process = subprocess.Popen(["true"])
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert process_identity(process.pid) is None
    process.wait()
    assert process_identity(process.pid) is None


def test_session_and_parent_of_a_worker_lead_to_its_trainer(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.stdout is not None
    worker = int(sleeper.stdout.readline())
    assert (session_of(worker), parent_of(worker)) == (sleeper.pid, sleeper.pid)
    assert session_of(2**22 + 7) is None and parent_of(2**22 + 7) is None
    assert session_of(2**70) is None and parent_of(2**70) is None
