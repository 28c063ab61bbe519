"""Slow links: the reckoning with a clock of its own, and the real program behind 2 KiB a second."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable

import pexpect
import pyte
import pytest

from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.tui.terminal.link import PATIENCE_SECONDS, QUESTION, UNKNOWN_SECONDS, Link
from tests.ptys import Program
from tests.tui.seed import seed_run
from tests.waiting import until


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


RATE = 2048


class SlowTerminal:
    """A terminal behind a line of so many bytes a second, whose sending side takes everything at once, as TCP does."""

    def __init__(self, home: Home, rate: int, columns: int, rows: int) -> None:
        self.rate, self.pending, self.sent, self.backlog = rate, b"", 0, 0
        self.tail, self.asked = b"", 0
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        env = {**os.environ, "MMTUI_HOME": str(home.root), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        self.child = Program(sys.executable, ["-m", "mmtui"], columns, rows, env=env, encoding=None)

    def run(self, seconds: float) -> None:
        """Carry bytes for so long; notes the longest backlog."""
        before = time.monotonic()
        end = before + seconds
        while time.monotonic() < end:
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

    def until(self, there: Callable[[], object], what: str) -> None:
        """Carry bytes until something holds."""
        until(there, what, self.text, lambda: self.run(0.05))

    def bytes_to_answer(self, key: str) -> int:
        """Press a key and wait for what it changes; how many bytes came before that was seen."""
        before, sent = self.answer(), self.sent
        self.child.send(key.encode())
        self.until(lambda: self.answer() != before, f"an answer to {key!r}")
        came = self.sent - sent
        self.run(2.5)  # pictures come between two keys
        return came

    def answer(self) -> tuple[str, bool]:
        """Where the slider is, and whether the axis is logarithmic."""
        step = re.search(r"as of step \d+", self.screen.display[0])
        return step[0] if step else "", re.search(r"\d  log ", self.text()) is not None


@pytest.mark.parametrize(("columns", "rows", "screen"), [(160, 48, "2")])
def test_line_of_2_kib_a_second_gets_no_backlog_answers_keys_and_is_told_of(
    home: Home, columns: int, rows: int, screen: str
) -> None:
    run_id = seed_run(home, "training one", until=155, seed=2, end=None, now=time.time())
    terminal = SlowTerminal(home, RATE, columns, rows)
    stop = threading.Event()
    thread = threading.Thread(target=train, args=(home, run_id, stop))
    thread.start()
    try:
        terminal.until(lambda: "training one" in terminal.text(), "the runs")
        terminal.until(lambda: terminal.asked > 2, "a link that is known")  # the first picture alone takes some seconds
        terminal.child.send(screen.encode())
        terminal.until(lambda: "[charts]" in terminal.text(), "the charts")
        terminal.until(lambda: not terminal.pending, "a picture that has come whole")
        terminal.backlog, asked = 0, terminal.asked
        terminal.until(lambda: "slow link" in terminal.screen.display[0], "how old the data are")
        terminal.until(lambda: terminal.asked > asked + 8, "some parts of pictures")
        assert terminal.backlog < 1.2 * RATE, "never more on its way than a second's worth"
        came = [terminal.bytes_to_answer(",") for _ in range(4)]
        assert statistics.median(came) < 2 * RATE, came
        terminal.child.send(b"q")
        terminal.until(lambda: "training one" in terminal.text(), "the runs again")
    finally:
        stop.set()
        thread.join()
        terminal.child.close()


def train(home: Home, run_id: str, stop: threading.Event) -> None:
    """Ten steps a second, as far as the screen is concerned."""
    path, step = home.run(run_id).events(1), 155
    offset, database = path.stat().st_size, Database(home)
    while not stop.wait(0.1):
        step += 1
        values = {"loss": 1.0 + (step * 37 % 100) / 100, "lr": 0.01, "a": step % 13, "b": step % 17, "c": step % 5}
        event = {"v": 1, "seq": 10_000 + step, "t": time.time(), "kind": "metrics", "stage": "segment"}
        with path.open("a") as file:
            file.write(json.dumps({**event, "step": step - 150, "global_step": step, "values": values}) + "\n")
        offset = ingest_file(database, path, int(run_id), 1, offset)
    database.close()


def test_width_of_a_link_is_learned_and_what_is_on_its_way_is_bounded() -> None:
    link, now = Link(), 0.0
    assert link.room(now) is None and not link.narrow, "nothing is known yet"
    for size in (6600, 900, 1200, 700):
        assert link.drawn(now)
        link.sent(size)
        link.asked()
        assert link.room(now + 0.01) == (0 if link.narrow else None)
        now += 0.05 + size / 2048
        link.answered(now)
        assert link.narrow and link.rate == pytest.approx(2048, rel=0.15)
        room = link.room(now)
        assert room is not None and 0.4 * 2048 < room < 0.8 * 2048
    assert link.drawn(now)
    assert link.room(now + PATIENCE_SECONDS - 1) == 0
    assert link.room(now + PATIENCE_SECONDS + 1) != 0, "a terminal that falls silent gets pictures again"


def test_link_that_is_far_but_wide_gets_whole_pictures() -> None:
    link, now = Link(), 0.0
    for size in (6600, 40, 900, 7000, 900):
        link.drawn(now)
        link.sent(size)
        link.asked()
        now += 0.6 + size / 1e6
        link.answered(now)
        assert not link.narrow and link.room(now) is None


def test_link_that_gets_wide_again_is_found_out() -> None:
    link, now = Link(), 0.0
    for rate in (2048,) * 4 + (1e6,) * 4:
        link.drawn(now)
        link.sent(1200)
        link.asked()
        now += 0.02 + 1200 / rate
        link.answered(now)
    assert not link.narrow


def test_delay_is_that_of_all_parts_of_a_picture() -> None:
    link = Link()
    for number in range(4):
        link.drawn(float(number))
        link.answered(number + 0.9, whole=number == 3)
        assert link.delay == (3.9 if number == 3 else 0.0)
    assert link.slow and "4 s late" in link.words()
