"""A systemd user unit, so that the supervisor is there after a reboot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmtui.errors import UnreachableError
from mmtui.paths import Home

NAME = "mmtui.service"


def unit(home: Home) -> str:
    """The unit's text. Trainers outlive the supervisor, so only the supervisor itself is stopped with it."""
    return f"""[Unit]
Description=mmtui supervisor for {home.root}

[Service]
Environment={_quoted(f"MMTUI_HOME={home.root}")}
ExecStart={_quoted(sys.executable)} -m mmtui.supervisor
KillMode=process
Restart=on-failure
RestartSec=5

[Install]
WantedBy=default.target
"""


def _quoted(word: str) -> str:
    """As systemd reads it: % and $ have a meaning there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def install(home: Home) -> Path:
    """Write the unit where the user's systemd looks for it; returns the file.

    Raises:
        UnreachableError: it cannot be written.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = (Path(base) if base else Path.home() / ".config") / "systemd" / "user"
    file = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(unit(home))
    except OSError as error:
        raise UnreachableError(f"{file} cannot be written: {error.strerror or error}") from None
    return file
