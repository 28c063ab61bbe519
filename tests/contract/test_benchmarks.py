"""Every benchmark can be started: what it imports is there, in the order in which it imports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE

LOAD = "import runpy, sys; sys.path[0] = {folder!r}; runpy.run_path({file!r}, run_name='loaded')"
"""As a script is loaded: its folder comes first, and with it ``engine.py``, which stands for the package then."""


def test_every_benchmark_loads(repository: Path) -> None:
    files = sorted((repository / "benchmarks").glob("*.py"))
    names = {file.name for file in files}
    assert {"bench_tui.py", "bench_engine.py"} < names
    started = {
        file.name: subprocess.Popen(
            [sys.executable, "-c", LOAD.format(folder=str(file.parent), file=str(file))],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for file in files
        if file.name != "engine.py"  # loaded under another name it takes itself for the package
    }
    said = {name: process.communicate(timeout=PATIENCE)[1] for name, process in started.items()}
    assert {name: text.splitlines()[-1:] for name, text in said.items() if started[name].returncode} == {}
