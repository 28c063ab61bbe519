"""Capsules that are not what was written."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(capsule: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], extra: Any = None) -> None:
    """The same archive with members changed or left out, and one more at the end."""
    with tarfile.open(capsule) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive if m.isreg()]  # type: ignore[union-attr]
    with tarfile.open(capsule, "w") as archive:
        for name, content in members:
            changed = change(name, content)
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                archive.addfile(info, io.BytesIO(changed[1]))
        if extra is not None:
            archive.addfile(*extra)


def same(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content


def named(header: bytes, name: str, content: bytes) -> bytes:
    """A header that also names this member."""
    body = json.loads(header)
    body["files"][name] = hashlib.sha256(content).hexdigest()
    return json.dumps(body).encode()
