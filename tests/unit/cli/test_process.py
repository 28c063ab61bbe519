"""The command line as a process: imports, signals, pipes, terminals."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
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
    maps = Path(f"/proc/{process.pid}/maps")
    until(lambda: "_sqlite3" in maps.read_text(), "a verb that has begun")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_ended_by_a_signal_while_it_is_queued_leaves_nothing(
    populated: Home, number: signal.Signals
) -> None:
    before = rows_and_folders(populated)
    process = subprocess.Popen(
        [*MMTUI, "run", "shapes_smoke", "seed=0..1500", "--hold"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: rows_and_folders(populated)[0] > before[0], "the first rows, which are hidden")
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130 if number == signal.SIGINT else -number, b"")
    assert rows_and_folders(populated) == before


def rows_and_folders(home: Home) -> tuple[int, list[str]]:
    """How many runs the database holds, seen or hidden, and what lies among their folders."""
    with closing(sqlite3.connect(home.database)) as database:
        (count,) = database.execute("SELECT count(*) FROM runs").fetchone()
    return count, sorted(path.name for path in home.runs.iterdir())


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


@pytest.mark.parametrize(
    "command",
    [[*MMTUI, "ls", "--json"], [sys.executable, "-m", "engine", "check-recipe", "--recipe", "shapes_smoke"]],
    ids=["mmtui", "engine"],
)
def test_stdout_that_was_left_without_waiting_is_waited_for(populated: Home, command: list[str]) -> None:
    """Python's own streams lose what does not fit, and exit with 0."""
    wanted = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b"#" * 4096)
    process = subprocess.Popen(command, stdout=writer)
    until(lambda: os.get_blocking(writer) or process.poll() is not None, "a stream that waits, or the end")
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read()[filled:] == wanted
    assert process.wait(PATIENCE) == 0


def test_terminal_without_full_screen_is_told_what_to_use_instead(home: Home) -> None:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "dumb"}
    process = subprocess.Popen(MMTUI, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    assert process.wait(timeout=PATIENCE) == 2
    said = b""
    with suppress(OSError):  # the other end is closed: everything was read
        while True:
            said += os.read(controller, 4096)
    os.close(controller)
    assert b"mmtui watch" in said
    assert b"\x1b" not in said
