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
from mmtui.tui.terminal.driver import Output
from mmtui.tui.terminal.link import QUESTION
from tests.ptys import Program
from tests.tui.seed import seed_run
from tests.waiting import PATIENCE, until

NOW = 1_790_000_000.0
Start = Callable[..., "Terminal"]


class Terminal:
    """The program in a pty, with a screen that understands what it sends."""

    def __init__(self, home: Home, columns: int, rows: int, **environment: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.received, self.silent, self.ended = b"", False, False
        self._heard, self._owed = b"", 0
        env = {**os.environ, "MMTUI_HOME": str(home.root), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environment}
        self.child = Program(sys.executable, ["-m", "mmtui"], columns, rows, env=env, encoding=None)

    def read(self, seconds: float) -> bytes:
        """Everything the program sends within a time."""
        got, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                piece = self.child.read_nonblocking(65536, timeout=left)
            except pexpect.TIMEOUT:
                break
            except pexpect.EOF:
                self.ended = True
                break
            self._answer(piece)
            got += piece
        self.received += got
        self.stream.feed(got)
        return got

    def _answer(self, piece: bytes) -> None:
        """Where the cursor is: at once, since a terminal that is late is sent fewer pictures; not while ``silent``."""
        self._heard += piece
        asked = self._heard.split(QUESTION.encode())
        self._heard, self._owed = asked[-1][-len(QUESTION) :], self._owed + len(asked) - 1
        while self._owed and not self.silent:
            self._owed -= 1
            with suppress(OSError):  # it may just have left
                self.child.send(b"\x1b[2;2R")

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def until(self, there: Callable[[], object], what: str) -> None:
        """Read until something holds of what was sent."""
        until(there, what, self.text, lambda: self.read(0.2))

    def wait_for(self, words: str) -> None:
        self.until(lambda: words in self.text(), repr(words))

    def settle(self, seconds: float = 1.0) -> None:
        """Read until nothing has come for so long: what is on the screen stands."""
        until(lambda: not self.read(seconds), f"{seconds:g} s in which nothing is sent", self.text, str)

    def leave(self, key: bytes = b"") -> int | None:
        """Press a key, if any, and read until the program has left; its exit status."""
        if key:
            self.child.send(key)
        self.until(lambda: self.ended, "all that the program sends to its end")
        return self.child.until_ended()


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    seed_run(home, "seeded run", until=330, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    started: list[Terminal] = []

    def begin(columns: int = 100, rows: int = 30, **environment: str) -> Terminal:
        started.append(Terminal(home, columns, rows, **environment))
        return started[-1]

    yield begin
    for terminal in started:
        terminal.child.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_after_a_polite_kill(start: Start, number: signal.Signals) -> None:
    terminal = start()
    terminal.wait_for("seeded run")
    assert b"\x1b[?1049h" in terminal.received
    os.kill(terminal.child.pid, number)
    assert terminal.leave() == 128 + number
    for left_behind in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
        assert left_behind in terminal.received


def test_terminal_old_mouse_bytes_do_not_end_the_program(start: Start) -> None:
    terminal = start(160, 48)
    terminal.wait_for("seeded run")
    terminal.child.send(b"\x1b[M \xff\xfe")
    terminal.settle()
    terminal.child.send(b"]")
    terminal.settle()
    terminal.child.send(b"?")
    terminal.wait_for("type to search")
    terminal.child.send(b"\x1b")
    terminal.until(lambda: "type to search" not in terminal.text(), "the help closed")
    assert terminal.leave(b"q") == 0


@pytest.mark.parametrize(("key", "words"), [("5", "[devices]"), ("n", "New run"), ("4", "[queue]")])
def test_terminal_escape_and_a_key_in_one_piece_are_two_keys(start: Start, key: str, words: str) -> None:
    terminal = start()
    terminal.wait_for("seeded run")
    terminal.child.send(b"?")
    terminal.wait_for("type to search")
    terminal.child.send(b"\x1b" + key.encode())
    terminal.wait_for(words)
    assert "type to search, enter" not in terminal.text()


@pytest.mark.parametrize("answer", [b"", b"\x1b[24;80R"])
def test_terminal_keys_behind_such_an_escape_stay_in_order(start: Start, answer: bytes) -> None:
    """Also where the terminal says between them where its cursor is, as it is asked on slow links."""
    terminal = start()
    terminal.wait_for("seeded run")
    terminal.child.send(b"?")
    terminal.wait_for("type to search")
    assert terminal.leave(b"\x1b " + answer + b"q") == 0, "it closes the help, marks, leaves"


def test_terminal_idle_screen_sends_nothing(start: Start) -> None:
    terminal = start(160, 48)
    terminal.wait_for("CPU")
    # What a screen sends by itself it sends with a clock of seconds: it would not be quiet for four of them.
    terminal.settle(4.0)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (160, 48)])
def test_terminal_shows_the_run_at_every_size(start: Start, columns: int, rows: int) -> None:
    terminal = start(columns, rows)
    terminal.wait_for("seeded run")
    terminal.wait_for("┤")
    terminal.wait_for("q quit")


def test_terminal_without_unicode_gets_ascii(start: Start) -> None:
    terminal = start(160, 48, LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    terminal.wait_for("seeded run")
    terminal.wait_for("CPU")
    assert terminal.text().isascii()
    assert "*" in terminal.text()


def test_terminal_without_colour_shows_states_by_glyph_and_word(start: Start) -> None:
    terminal = start(160, 48, NO_COLOR="1")
    terminal.wait_for("✓ succeeded")
    terminal.settle()
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
    assert terminal.leave() == 2
    assert "mmtui watch" in terminal.text()


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
        leaving.join(PATIENCE)
        assert not leaving.is_alive(), "it waits for room in a queue that nobody empties"
        assert output.gone


def test_terminal_that_somebody_left_without_waiting_is_waited_for_and_loses_nothing() -> None:
    far, near = os.openpty()
    wanted, got = 100_000 * b"x" + b"seen", bytearray()  # more than the terminal takes at once

    def show() -> None:
        # The system hands over what is under way in pieces: that nothing is there yet does not say that nothing comes.
        while not got.endswith(b"seen"):
            got.extend(os.read(far, 65536))

    def send() -> None:
        for _ in range(1000):
            output.write("x" * 100)
        output.write("seen")
        output.flush()

    with os.fdopen(near, "w") as file:
        output = Output(file)
        os.set_blocking(near, False)
        both = [threading.Thread(target=work, daemon=True) for work in (send, show)]
        both[0].start()
        until(lambda: os.get_blocking(near), "a terminal that is full", lambda: len(got))
        both[1].start()
        for thread in both:
            thread.join(PATIENCE)
        assert bytes(got) == wanted
        assert not output.gone
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
    got = b""
    while b"q quit" not in got:
        assert select.select([far], [], [], PATIENCE)[0], got
        got += os.read(far, 65536)
    os.close(far)
    try:
        until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "its end without its terminal")
    finally:
        os.kill(pid, signal.SIGKILL)  # nothing to a zombie
        os.waitpid(pid, 0)
