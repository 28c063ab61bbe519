"""A data directory on a medium that cannot be written: everything that only reads works there.

As root, permission bits prove nothing: the directory is mounted read-only, in a mount namespace of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtui.paths import Home

READING: tuple[tuple[str, ...], ...] = (
    ("ls",),
    ("ls", "--json"),
    ("show", "1"),
    ("metrics", "1"),
    ("classes", "1"),
    ("logs", "1"),
    ("compare", "1", "2"),
    ("diff", "1", "2"),
    ("report", "1"),
    ("best", "--max", "miou"),
    ("query", "SELECT id FROM runs"),
    ("queue",),
    ("news",),
    ("export", "1", "--to", "csv", "-o", "out.csv"),
    ("recipes",),
)
Ask = Callable[..., subprocess.CompletedProcess[str]]
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2>/dev/null && '


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """``ask(home, "ls")``: the verb with the home mounted read-only."""

    def asked(home: Home, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mmtui", *argv]
        environment = {**os.environ, "MMTUI_HOME": str(home.root)}
        call = ["unshare", "--mount", "sh", "-c", MOUNT + 'shift 0; exec "$@"', str(home.root), *command]
        return subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    probe = tmp_path / "probe"
    probe.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{MOUNT}true", str(probe)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode(errors='replace').strip()}")
    return asked


def test_reading_verbs_answer_on_a_read_only_home_as_on_any(populated: Home, tmp_path: Path, ask: Ask) -> None:
    for argv in READING:
        command = [sys.executable, "-m", "mmtui", *argv]
        environment = {**os.environ, "MMTUI_HOME": str(populated.root)}
        plain = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        found = ask(populated, *argv)
        assert found.returncode == plain.returncode, (argv, found.stderr)
        assert len(found.stdout.splitlines()) == len(plain.stdout.splitlines()), argv
        if argv == ("news",):
            assert "is not remembered" in found.stderr


def test_what_only_the_log_of_a_killed_writer_holds_is_read_too(populated: Home, tmp_path: Path, ask: Ask) -> None:
    connection = sqlite3.connect(populated.database)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("UPDATE runs SET note = 'in the log' WHERE id = 1")
    connection.commit()
    copy = Home(tmp_path / "copy")
    shutil.copytree(populated.root, copy.root, ignore=shutil.ignore_patterns("*-shm"))
    connection.close()
    assert Path(f"{copy.database}-wal").stat().st_size > 0
    before = {path: path.stat().st_mtime_ns for path in copy.root.iterdir()}
    found = ask(copy, "show", "1", "--json")
    assert json.loads(found.stdout)["note"] == "in the log", found.stderr
    assert {path: path.stat().st_mtime_ns for path in copy.root.iterdir()} == before


def test_supervisor_that_serves_the_home_is_seen_from_where_nothing_can_be_written(populated: Home, ask: Ask) -> None:
    populated.lock.write_text(json.dumps({"pid": os.getpid(), "started_at": 1.0, "ready": True}))
    held = os.open(populated.lock, os.O_RDWR)
    try:
        assert "not running" in ask(populated, "daemon", "status").stdout
        fcntl.flock(held, fcntl.LOCK_EX)
        found = ask(populated, "daemon", "status")
        assert found.stdout.startswith(f"running (pid {os.getpid()})") and found.returncode == 0
    finally:
        os.close(held)


def test_writing_verbs_say_that_the_home_is_read_only(populated: Home, ask: Ask) -> None:
    for argv in (("note", "1", "x"), ("tag", "1", "--add", "x"), ("rm", "1"), ("run", "shapes_smoke", "--hold")):
        found = ask(populated, *argv)
        assert found.returncode == 3, (argv, found)
        assert found.stderr.startswith("error: "), argv
        assert str(populated.root) in found.stderr
        assert "Traceback" not in found.stderr and "a fault of mmtui" not in found.stderr
