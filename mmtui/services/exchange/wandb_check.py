"""Whether an offline run of W&B is whole: its client writes in another process, which tells nobody of a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mmtui.errors import UnreachableError


def check(folder: Path, target: Path, steps: int) -> None:
    """Read an offline run back with W&B's own reader.

    Args:
        target: where it was to be, for the sentence.
        steps: of how many there must be values.

    Raises:
        UnreachableError: something of it is missing.
    """
    found, ended = _count(folder)
    if found == steps and ended:
        return
    raise UnreachableError(
        f"{target} cannot be written: W&B has stored {found:,} of {steps:,} steps", "is there space left on the disk?"
    )


def _count(folder: Path) -> tuple[int, bool]:
    """(steps that have values, whether the end is there)."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    env = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    found, ended = 0, False
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        assert reader.stdout is not None
        for line in reader.stdout:
            try:
                kind = json.loads(line).get("type")
            except ValueError:
                continue
            found += kind == "history"
            ended = ended or kind == "exit"
    return found, ended
