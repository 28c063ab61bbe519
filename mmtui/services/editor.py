"""The user's own editor, for what is easier changed there than on a command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from mmtui.errors import UsageError


def edited(text: str, name: str) -> str:
    """The text as the user leaves it.

    Args:
        name: of the temporary file; its ending tells the editor the language.

    Raises:
        UsageError: the editor cannot be started or ends with an error.
    """
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="mmtui-") as folder:
        file = Path(folder) / name
        file.write_text(text)
        try:
            code = subprocess.run([*editor, str(file)], check=False).returncode
        except OSError as error:
            raise UsageError(f"{editor[0]} cannot be started ({error.strerror})", "set EDITOR") from None
        if code:
            raise UsageError(f"{editor[0]} ended with code {code}: nothing is changed")
        return file.read_text()
