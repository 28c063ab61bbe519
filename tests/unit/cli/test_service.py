"""The systemd unit: what systemd itself says of it, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmtui.paths import Home
from mmtui.services import service_unit


def test_unit_names_the_interpreter_and_the_data_directory(tmp_path: Path) -> None:
    text = service_unit.unit(Home(tmp_path / 'a "b" 50% $x'))
    assert f'ExecStart="{sys.executable}" -m mmtui.supervisor' in text
    assert 'a \\"b\\" 50%% $$x"' in text and "KillMode=process" in text


def test_install_writes_the_unit_where_systemd_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    home = Home(tmp_path / "h")
    file = service_unit.install(home)
    assert file == tmp_path / "systemd" / "user" / "mmtui.service" and file.read_text().startswith(
        service_unit.unit(home)
    )
    if shutil.which("systemd-analyze"):
        # A typing error in a key is a warning, which is what this is about.
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        command = ["systemd-analyze", "--user", "verify", str(file)]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "mmtui.service" not in told.stderr, told.stderr
        assert told.returncode == 0, told.stderr
