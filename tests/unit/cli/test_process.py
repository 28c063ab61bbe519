"""The command line as a process: imports, signals, pipes, terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtui.paths import Home
from tests.waiting import PATIENCE, until

MMTUI = [sys.executable, "-m", "mmtui"]
HEAVY = ["torch", "numpy", "textual", "sqlmodel", "sqlalchemy", "rich", "typer", "pydantic", "yaml"]


def loaded(code: str) -> set[str]:
    """Which heavy modules a fresh interpreter holds after some code."""
    report = f"{code}\nimport sys\nprint('|', *[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("|")[2].split())


def test_importing_the_command_line_loads_no_heavy_module() -> None:
    assert not loaded("import mmtui.cli.app") & {"torch", "numpy", "textual", "sqlmodel", "sqlalchemy"}


@pytest.mark.parametrize(
    "argv", [["ls"], ["ls", "--json"], ["show", "1"], ["classes", "1"], ["metrics", "1"], ["queue"], [], ["logs", "1"]]
)
def test_reading_verbs_load_none_at_all(populated: Home, argv: list[str]) -> None:
    code = f"from mmtui.__main__ import dispatch\nassert dispatch({argv}) == 0"
    assert loaded(code) == set()


def test_help_and_version_without_a_home_directory(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "none")}
    for argv in (["--version"], ["--help"], ["ls", "--help"]):
        done = subprocess.run([*MMTUI, *argv], capture_output=True, text=True, env=environment, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_output_into_a_pipe_that_closes_is_quiet(populated: Home) -> None:
    recipe = populated.run("1").log(1)
    recipe.write_text("a line of a log that is long enough to fill a pipe\n" * 20_000)
    done = subprocess.run(
        f"{sys.executable} -m mmtui logs 1 -n 20000 | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_interrupt_exits_130_without_traceback(populated: Home) -> None:
    process = subprocess.Popen([*MMTUI, "wait", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: _catches(process.pid, signal.SIGINT), "a program that hears Ctrl-C")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has set a handler of its own for a signal."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1) and "python" in fields["Name"]


def test_ascii_locale_gets_ascii(populated: Home) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*MMTUI, "ls"], capture_output=True, env=environment, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"+ succeeded" in done.stdout


def test_closed_stdout_ends_without_traceback(populated: Home) -> None:
    done = subprocess.run(
        f"{sys.executable} -m mmtui ls >&-", shell=True, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert "Traceback" not in done.stderr


def test_full_stdout_is_an_error_in_one_sentence(populated: Home) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MMTUI, "ls"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_terminal_without_full_screen_is_told_what_to_use_instead(home: Home) -> None:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(MMTUI, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    assert process.wait(timeout=PATIENCE) == 2
    said = b""
    while select.select([controller], [], [], 0.2)[0]:
        try:
            said += os.read(controller, 4096)
        except OSError:  # the other end is closed: everything was read
            break
    os.close(controller)
    assert b"mmtui watch" in said
    assert b"\x1b" not in said


def test_ls_stays_quick_with_ten_thousand_runs(home: Home) -> None:
    """Against bare Python started as often, and in CPU time: neither a slow nor a busy machine matters."""
    from mmtui.store.db import Database
    from mmtui.store.runs import NewRun, insert_run

    database = Database(home.create())
    with database.write() as session:
        insert_run(session, NewRun("r", "r", 0, {}, (), {}, (("segment", 1),)))
        connection = session.connection()
        columns = [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(runs)") if row[1] != "id"]
        names = ", ".join(f'"{name}"' for name in columns)
        connection.exec_driver_sql(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            f" INSERT INTO runs ({names}) SELECT {names} FROM runs, n"
        )
    database.close()

    def seconds(command: list[str]) -> float:
        best = 1e9
        for _ in range(3):
            before = os.times()
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            best = min(best, used)
        return best

    assert seconds([*MMTUI, "ls"]) < 20 * seconds([sys.executable, "-c", "pass"])
