"""Run the commands of docs/cookbook.md and write what they print behind them: ``python docs/make_cookbook.py``.

``played`` is what the tests use: the same text with fresh answers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("cookbook.md")
BLOCK = re.compile(r"(?<=```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
PATIENCE = 600


def played(text: str, home: Path) -> str:
    """The text with every command run in an empty ``home``, one after the other, and its answer behind it."""
    env = environment(home)
    try:
        return BLOCK.sub(lambda block: "".join(_answered(block.group(), home, env)), text)
    finally:
        subprocess.run(["mmtui", "daemon", "stop"], env=env, capture_output=True, check=False)


def environment(home: Path) -> dict[str, str]:
    """What a fresh login would have, with this installation's programs first."""
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}"
    return {"HOME": str(home), "PATH": path, "COLUMNS": "110", "NO_COLOR": "1", "LANG": "C.UTF-8", "USER": "ada"}


def _answered(block: str, home: Path, env: dict[str, str]) -> Iterator[str]:
    code = 0
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        # $? of the command before it, as in the one shell that a reader has.
        script = f"(exit {code})\n{line[2:]}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=home,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        code = done.returncode
        yield f"{line}\n{done.stdout.replace(str(home), '~')}"


def main() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as folder:
        text = played(FILE.read_text(encoding="utf-8"), Path(folder))
    FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")


if __name__ == "__main__":
    main()
