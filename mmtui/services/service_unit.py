"""A systemd user unit, so that the supervisor is there after a reboot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.marks import is_marked, marked_text
from mmtui.errors import RefusedError
from mmtui.paths import Home, in_home
from mmtui.services.output_files import IsOurs, check_target, write_text

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


def place() -> Path:
    """Where the user's systemd looks for the unit."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base else in_home("~/.config", "XDG_CONFIG_HOME")) / "systemd" / "user" / NAME


def check_place(home: Home, *, force: bool) -> None:
    """Refuse to write over a unit that somebody else has written or changed.

    Raises:
        RefusedError: there is such a unit and not ``force``, or the unit is masked.
    """
    file = place()
    if file.exists() and not file.is_file():
        raise RefusedError(f"{file} is masked: it is no file", f"first: systemctl --user unmask {NAME}")
    check_target(file, force=force, is_ours=_made_here(home))


def _made_here(home: Home) -> IsOurs:
    """Recognises units with their mark, and this home's as earlier versions wrote it, without one."""
    return lambda file: is_marked(file) or file.read_bytes() == unit(home).encode()


def install(home: Home, *, force: bool = False) -> Path:
    """Write the unit where the user's systemd looks for it, in the place of one that was written here.

    Returns:
        The file.

    Raises:
        RefusedError: as of ``check_place``.
        UnreachableError: it cannot be written.
    """
    check_place(home, force=force)
    write_text(place(), marked_text(unit(home), "#"), force=force, is_ours=_made_here(home))
    return place()
