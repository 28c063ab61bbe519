"""What a test does to signals is taken back when it ends."""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.xdist_group("signals")  # one after the other, in one process


@pytest.fixture(scope="module")
def entry_point() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def test_pipe_that_breaks_ends_a_program(entry_point: None) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL


def test_but_not_the_tests_behind() -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
