"""Another package called ``engine`` on the path is named; nothing ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmtui.paths import Home


@pytest.mark.parametrize("arguments", [["ls"], ["run", "shapes_baseline", "--hold"], ["--version"], ["show", "--help"]])
def test_another_package_called_engine_is_named(home: Home, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").touch()
    program = "import sys; from mmtui.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "MMTUI_HOME": str(home.root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    expected = (
        f"error: another package called engine hides mmtui's: {tmp_path / 'engine'}\n  take it out of PYTHONPATH\n"
    )
    assert done.stderr == expected
