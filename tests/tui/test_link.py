"""Slow links: the reckoning with a clock of its own, and the real program behind 2 KiB a second."""

from __future__ import annotations

import os
import sys
import threading
import time

import pexpect
import pyte

from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.tui.link import PATIENCE_SECONDS, QUESTION, UNKNOWN_SECONDS, Link
from tests.tui.seed import seed_run


def test_picture_waits_for_the_answer_to_the_one_before() -> None:
    link = Link()
    assert link.may_draw(0.0) and link.drawn(0.0)
    link.answered(0.1)
    assert link.may_draw(1.0) and link.drawn(1.0) and not link.slow
    assert not link.may_draw(1.5), "still on its way"
    link.answered(3.0)
    assert link.slow and link.delay == 2.0
    assert not link.may_draw(4.9), "half of the time is left for keys"
    assert link.may_draw(5.0)


def test_terminal_that_never_answers_is_asked_once_and_gets_every_picture_after_a_while() -> None:
    link = Link()
    assert link.drawn(0.0)
    assert not link.may_draw(UNKNOWN_SECONDS - 1)
    for second in range(1, 4):
        now = UNKNOWN_SECONDS + second
        assert link.may_draw(now) and not link.drawn(now) and not link.slow


def test_first_answer_may_be_late() -> None:
    link = Link()
    link.drawn(0.0)
    link.drawn(UNKNOWN_SECONDS + 1)
    link.answered(6.0)
    assert link.slow and link.delay == 6.0 and not link.may_draw(7.0)


def test_terminal_that_falls_silent_gets_pictures_again() -> None:
    link = Link()
    link.drawn(0.0)
    link.answered(0.2)
    link.drawn(1.0)
    assert not link.may_draw(1.0 + PATIENCE_SECONDS - 1)
    assert link.may_draw(1.0 + PATIENCE_SECONDS + 1)


class SlowTerminal:
    """A terminal behind a line of so many bytes a second, whose sending side takes everything at once, as TCP does."""

    def __init__(self, home: Home, rate: int, columns: int, rows: int) -> None:
        self.rate, self.pending, self.sent, self.backlog = rate, b"", 0, 0
        self.tail, self.asked = b"", 0
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        env = {**os.environ, "MMTUI_HOME": str(home.root), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        self.child = pexpect.spawn(
            sys.executable, ["-m", "mmtui"], env=env, dimensions=(rows, columns), timeout=20, encoding=None
        )

    def run(self, seconds: float) -> None:
        """Carry bytes for so long; notes the longest backlog."""
        deadline, before = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < deadline:
            try:
                self.pending += self.child.read_nonblocking(65536, timeout=0.05)
            except (pexpect.TIMEOUT, pexpect.EOF):
                time.sleep(0.02)
            now = time.monotonic()
            share, before = int(self.rate * (now - before)), now
            arrived, self.pending = self.pending[:share], self.pending[share:]
            self.sent += len(arrived)
            self.backlog = max(self.backlog, len(self.pending))
            self.stream.feed(arrived)
            self.tail += arrived
            for _ in range(self.tail.count(QUESTION.encode())):
                self.asked += 1
                self.child.send(b"\x1b[2;2R")
            # A question may arrive in two parts.
            self.tail = b"" if self.tail.endswith(QUESTION.encode()) else self.tail[-len(QUESTION) + 1 :]

    def text(self) -> str:
        return "\n".join(self.screen.display)


def test_line_of_2_kib_a_second_gets_no_backlog_and_is_told_of(home: Home) -> None:
    run_id = seed_run(home, "training one", until=155, seed=2, end=None, now=time.time())
    terminal = SlowTerminal(home, 2048, 80, 24)
    stop = threading.Event()

    def train() -> None:
        """Ten steps a second, as far as the screen is concerned."""
        import json

        path, step = home.run(run_id).events(1), 155
        offset, database = path.stat().st_size, Database(home)
        while not stop.wait(0.1):
            step += 1
            values = {"loss": 1.0 + (step * 37 % 100) / 100, "lr": 0.01, "seconds_per_step": 0.1}
            event = {"v": 1, "seq": 10_000 + step, "t": time.time(), "kind": "metrics", "stage": "segment"}
            with path.open("a") as file:
                file.write(json.dumps({**event, "step": step - 150, "global_step": step, "values": values}) + "\n")
            offset = ingest_file(database, path, int(run_id), 1, offset)
        database.close()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        terminal.run(10)  # the first picture alone takes some seconds
        terminal.backlog = len(terminal.pending)
        terminal.run(10)
        print(terminal.asked, terminal.sent, terminal.backlog)
        assert terminal.asked > 2 and terminal.backlog < 2 * 2048, "never further behind than a picture"
        terminal.child.send(b"?")
        began = time.monotonic()
        while "type to search" not in terminal.text():
            terminal.run(0.2)
            assert time.monotonic() - began < 8, "keys are still heard"
    finally:
        stop.set()
        thread.join()
        terminal.child.close(force=True)
