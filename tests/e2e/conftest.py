"""A data directory with a short path, and terminals over ssh; nothing is left of them after the test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmtui.paths import Home
from tests.e2e import loopback
from tests.e2e.support import kill_everything
from tests.e2e.terminals import PROGRAM, Terminal


@pytest.fixture
def short_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """For sockets, whose paths may have 107 bytes; every process that belongs to it is killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mm-", dir="/tmp"))
    home = Home(folder / "h").create()
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    yield home
    kill_everything(home)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[loopback.Server]:
    """An sshd of the test's own."""
    with loopback.serving(tmp_path) as server:
        yield server


@pytest.fixture
def connect(sshd: loopback.Server, short_home: Home) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals with ``ssh -tt`` and the program, or another command, in them."""
    opened: list[Terminal] = []

    def begin(columns: int = 160, rows: int = 48, command: str = str(PROGRAM)) -> Terminal:
        opened.append(loopback.connect(sshd, short_home, columns, rows, command))
        return opened[-1]

    yield begin
    for terminal in opened:
        terminal.close()
