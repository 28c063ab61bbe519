"""What a test does to its process is taken back when it ends."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.process_state import file_size_limit

pytestmark = pytest.mark.xdist_group("process state")  # one after the other, in one process


def _state() -> tuple[object, ...]:
    mask = os.umask(0)
    os.umask(mask)
    handlers = tuple(signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1))
    return handlers, resource.getrlimit(resource.RLIMIT_FSIZE), Path.cwd(), mask


_BEFORE = _state()


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    os.umask(0o077 ^ os.umask(0))


def test_process_is_another(changed: None) -> None:
    assert all(now != before for now, before in zip(_state(), _BEFORE, strict=True))


def test_but_not_for_the_tests_behind() -> None:
    assert _state() == _BEFORE


def test_file_size_limit_ends_a_write_and_not_the_process(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with file_size_limit(100), pytest.raises(OSError, match="too large"), (tmp_path / "f").open("wb", 0) as file:
        assert file.write(b"x" * 200) == 100
        file.write(b"x")
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_DFL
