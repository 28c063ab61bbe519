"""A data directory with a short path, and nothing left of it after the test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtui.paths import Home
from tests.e2e.support import kill_everything


@pytest.fixture
def short_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """For sockets, whose paths may have 107 bytes; every process that belongs to it is killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mm-", dir="/tmp"))
    home = Home(folder / "h").create()
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    yield home
    kill_everything(home)
    shutil.rmtree(folder, ignore_errors=True)
