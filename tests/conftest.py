"""Every test has its own data directory and an environment that does not depend on who runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmtui.paths import Home

ROOT = Path(__file__).resolve().parent.parent
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "MMTUI_NVML_RECORDING", "MMTUI_DEBUG")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A fresh data directory, named by ``MMTUI_HOME``; colours and terminal as in a plain UTF-8 session."""
    root = tmp_path_factory.mktemp("home") / "mmtui"
    monkeypatch.setenv("MMTUI_HOME", str(root))
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Home(root)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the trial data sets: ``MMTUI_TEST_DATA``, else ``shared/data`` beside the checkout; skips without."""
    folder = Path(os.environ.get("MMTUI_TEST_DATA", "") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no trial data sets at {folder}; set MMTUI_TEST_DATA")
    return folder
