"""Command lines that a person types on the screen, in a child process: what they print, and what completes them.

They are for nothing else: what a key or a form does, a service does, which the command line calls too. A child, since a
command line may do anything, print for minutes, or end its process.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

from mmtui.paths import Home

PATIENCE_SECONDS = 120
FOLLOWING = re.compile(r"\b(watch|wait|demo)\b|\s(-f|--follow)\b")
"""Commands that stay: a screen is the better place for these."""


def run(home: Home, command: str, width: int) -> list[str]:
    """What ``mmtui COMMAND`` prints, on both streams; its exit code in a last line if it is not 0."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        return [f"error: {error}: close the quote"]
    if FOLLOWING.search(command):
        return ["this command stays until a run ends: the screen shows that itself (1), or use another terminal"]
    try:
        done = _mmtui(home, words, COLUMNS=str(width), NO_COLOR="1")
    except subprocess.TimeoutExpired:
        return [f"it took longer than {PATIENCE_SECONDS} s and was stopped"]
    return [*done.stdout.splitlines(), *([f"exit code {done.returncode}"] if done.returncode else [])]


def completions(home: Home, text: str) -> list[str]:
    """What a shell would offer behind ``mmtui TEXT``."""
    words = f"mmtui {text}".split() + ([""] if text.endswith(" ") or not text else [])
    asked = {"_MMTUI_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    try:
        return _mmtui(home, [], **asked).stdout.split()
    except subprocess.TimeoutExpired:
        return []


def _mmtui(home: Home, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "mmtui", *words],
        env={**os.environ, "MMTUI_HOME": str(home.root), **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=PATIENCE_SECONDS,
        check=False,
    )
