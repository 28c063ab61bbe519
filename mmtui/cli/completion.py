"""``mmtui completion SHELL`` prints the shell's completion script."""

from __future__ import annotations

import os
from typing import Annotated

from mmtui.domain.options import Argument
from mmtui.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


def completion(shell: Annotated[str, Argument("bash, zsh or fish")]) -> None:
    """Print a completion script. For bash: mmtui completion bash >> ~/.bash_completion"""
    if shell not in SHELLS:
        raise UsageError(f"no completion for '{shell}'", f"write one of {', '.join(SHELLS)}")
    from mmtui.cli.app import app

    # The protocol of Typer's own completion: asked so, the program prints its script and leaves.
    os.environ["_MMTUI_COMPLETE"] = f"source_{shell}"
    app(prog_name="mmtui")
