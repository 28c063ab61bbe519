"""A test whose process has failed shows what that process said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]
TEST = """
import subprocess
import sys

def test_it():
    program = "import sys; sys.stderr.write('the port ' + 'was taken'); sys.exit(3)"
    {}
"""
RUN = 'subprocess.run([sys.executable, "-c", program], check=True, capture_output=True{})'
LATE = 'raise subprocess.TimeoutExpired(["it"], 5, stderr=b"the port " + b"was taken")'


@pytest.mark.parametrize("what", [RUN.format(""), RUN.format(", text=True"), LATE], ids=["bytes", "text", "too late"])
def test_words_of_a_process_that_failed_are_shown(tmp_path: Path, what: str) -> None:
    (tmp_path / "test_it.py").write_text(TEST.format(what))
    told = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "tests.last_words", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env=told, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1 and "1 failed" in done.stdout
    assert "stderr ends with:" in done.stdout and "the port was taken" in done.stdout, done.stdout
