"""Where the event files of a run lie, and which output belongs to them."""

from __future__ import annotations

import os
import re
from pathlib import Path

OUTPUT = "output.log"
"""What a trainer prints goes into this file beside its events, where somebody has wired it so."""


def attempt_folder(run_dir: Path, number: int) -> Path:
    """Folder of attempt ``number`` (1, 2, ...) of a run."""
    return run_dir / "attempts" / f"{number:03d}"


def attempt_numbers(run_dir: Path) -> list[int]:
    """Numbers of all attempts of a run that have a folder, ascending. One called 0001, or in other digits, is none."""
    folder = run_dir / "attempts"
    if not folder.is_dir():
        return []
    names = (entry.name for entry in folder.iterdir() if re.fullmatch(r"[0-9]{3,18}", entry.name))
    return sorted(int(name) for name in names if attempt_folder(run_dir, int(name)).name == name)


def output_descriptor(folder: Path) -> int | None:
    """Descriptor (1 or 2) by which this process prints into the attempt's output file, None if it prints elsewhere."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(os.fstat(descriptor), (folder / OUTPUT).stat()):
                return descriptor
        except OSError:
            continue
    return None
