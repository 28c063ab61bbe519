"""The real program in a real pseudo-terminal: what it sends, and how it leaves the terminal behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, cast

import pexpect
import pyte
import pytest
from textual.drivers._writer_thread import WriterThread

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.tui.link import QUESTION
from mmtui.tui.terminal import Output
from tests.tui.seed import seed_run

NOW = 1_790_000_000.0
Start = Callable[..., "Terminal"]


class Terminal:
    """The program in a pty, with a screen that understands what it sends."""

    def __init__(self, home: Home, columns: int, rows: int, **environment: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.received = b""
        env = {**os.environ, "MMTUI_HOME": str(home.root), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environment}
        self.child = pexpect.spawn(
            sys.executable, ["-m", "mmtui"], env=env, dimensions=(rows, columns), timeout=20, encoding=None
        )

    def read(self, seconds: float) -> bytes:
        """Everything the program sends within a time."""
        got, deadline = b"", time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                got += self.child.read_nonblocking(65536, timeout=left)
            except pexpect.TIMEOUT:
                break
            except pexpect.EOF:
                break
        self.received += got
        self.stream.feed(got)
        for _ in range(got.count(QUESTION.encode())):
            with suppress(OSError):  # it may just have left
                self.child.send(b"\x1b[2;2R")
        return got

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def wait_for(self, words: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert time.monotonic() < deadline, f"{words!r} never came:\n{self.text()}"
            self.read(0.2)


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    seed_run(home, "seeded run", until=330, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    started: list[Terminal] = []

    def begin(columns: int = 100, rows: int = 30, **environment: str) -> Terminal:
        started.append(Terminal(home, columns, rows, **environment))
        return started[-1]

    yield begin
    for terminal in started:
        terminal.child.close(force=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_after_a_polite_kill(start: Start, number: signal.Signals) -> None:
    terminal = start()
    terminal.wait_for("seeded run")
    assert b"\x1b[?1049h" in terminal.received
    os.kill(terminal.child.pid, number)
    terminal.read(5)
    for left_behind in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
        assert left_behind in terminal.received
    terminal.child.wait()
    assert terminal.child.exitstatus == 128 + number


def test_terminal_old_mouse_bytes_do_not_end_the_program(start: Start) -> None:
    terminal = start(160, 48)
    terminal.wait_for("seeded run")
    terminal.child.send(b"\x1b[M \xff\xfe")
    terminal.read(1.0)
    terminal.child.send(b"]")
    terminal.read(1.0)
    assert terminal.child.isalive()
    terminal.child.send(b"q")
    terminal.read(5)
    terminal.child.wait()
    assert terminal.child.exitstatus == 0


@pytest.mark.parametrize(("key", "words"), [("5", "[devices]"), ("n", "New run"), ("4", "[queue]")])
def test_terminal_escape_and_a_key_in_one_piece_are_two_keys(start: Start, key: str, words: str) -> None:
    terminal = start()
    terminal.wait_for("seeded run")
    terminal.child.send(b"?")
    terminal.wait_for("type to search")
    terminal.child.send(b"\x1b" + key.encode())
    terminal.wait_for(words)
    assert "type to search, enter" not in terminal.text()


def test_terminal_keys_behind_such_an_escape_stay_in_order(start: Start) -> None:
    terminal = start()
    terminal.wait_for("seeded run")
    terminal.child.send(b"?")
    terminal.wait_for("type to search")
    terminal.child.send(b"\x1b q")  # closes the help, marks, leaves
    terminal.read(5)
    terminal.child.wait()
    assert terminal.child.exitstatus == 0


def test_terminal_idle_screen_sends_nothing(start: Start) -> None:
    terminal = start(160, 48)
    terminal.wait_for("CPU")
    terminal.read(2.0)
    assert terminal.read(4.0) == b""


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (160, 48)])
def test_terminal_shows_the_run_at_every_size(start: Start, columns: int, rows: int) -> None:
    terminal = start(columns, rows)
    terminal.wait_for("seeded run")
    terminal.wait_for("┤")
    assert "q quit" in terminal.text()


def test_terminal_without_unicode_gets_ascii(start: Start) -> None:
    terminal = start(160, 48, LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    terminal.wait_for("seeded run")
    terminal.wait_for("CPU")
    assert terminal.text().isascii()
    assert "*" in terminal.text()


def test_terminal_without_colour_shows_states_by_glyph_and_word(start: Start) -> None:
    terminal = start(160, 48, NO_COLOR="1")
    terminal.wait_for("✓ succeeded")
    terminal.read(1)
    colours = {cell.fg for line in terminal.screen.buffer.values() for cell in line.values()}
    assert not colours & {"red", "green", "cyan", "yellow"}


def test_terminal_keeps_its_mouse_when_the_settings_say_so(start: Start, home: Home) -> None:
    (home.root / "config.toml").write_text("mouse = false\n")
    terminal = start()
    terminal.wait_for("seeded run")
    assert b"\x1b[?1000h" not in terminal.received
    (home.root / "config.toml").write_text("")
    terminal = start()
    terminal.wait_for("seeded run")
    assert b"\x1b[?1000h" in terminal.received


def test_terminal_dumb_is_refused_with_a_hint(start: Start) -> None:
    terminal = start(80, 24, TERM="dumb")
    terminal.wait_for("mmtui watch")
    terminal.child.wait()
    assert terminal.child.exitstatus == 2


def test_writing_to_a_terminal_that_was_hung_up_neither_fails_nor_waits() -> None:
    far, near = os.openpty()
    with os.fdopen(near, "w") as file:
        output = Output(file)
        thread = WriterThread(cast("IO[str]", output))
        thread.start()
        thread.write("seen")
        assert os.read(far, 100) == b"seen"
        os.close(far)

        def leave() -> None:
            for _ in range(100):  # more than the queue takes
                thread.write("x" * 100)
            thread.stop()

        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(10)
        assert not leaving.is_alive(), "it waits for room in a queue that nobody empties"
        assert output.gone
        with suppress(OSError):  # what was not sent is sent once more when the file is closed
            file.close()


def test_terminal_that_somebody_left_without_waiting_is_waited_for() -> None:
    far, near = os.openpty()
    with os.fdopen(near, "w") as file:
        output = Output(cast("IO[str]", file))
        os.set_blocking(near, False)
        for _ in range(2000):  # more than the terminal takes at once
            output.write("x" * 100)
            if os.get_blocking(near):
                break
        assert os.get_blocking(near) and not output.gone
        os.set_blocking(far, False)
        with suppress(BlockingIOError):
            while os.read(far, 65536):
                pass
        output.write("seen")
        output.flush()
        assert os.read(far, 65536).endswith(b"seen") and not output.gone
    os.close(far)


BUSY = """
import sys
from pathlib import Path
from mmtui.paths import Home
from mmtui.tui.app import MmtuiApp

class Busy(MmtuiApp):
    def exit(self, *answer):
        for _ in range(40):
            self._driver.write("as many pictures as a slow machine still draws")
        super().exit(*answer)

Busy(Home(Path(sys.argv[1]))).run()
"""


def test_program_ends_with_its_terminal_however_much_waits_to_be_written(home: Home) -> None:
    pid, far = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", BUSY, str(home.root)])
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    got, deadline = b"", time.monotonic() + 30
    while b"q quit" not in got:
        assert select.select([far], [], [], max(deadline - time.monotonic(), 0))[0], got
        got += os.read(far, 65536)
    os.close(far)
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            assert time.monotonic() < deadline, "it outlives its terminal"
            time.sleep(0.05)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
