"""What the folder of a run says of it: ``run.json``."""

from __future__ import annotations

from pathlib import Path

from engine.json_types import JsonObject
from mmtui.errors import RefusedError
from mmtui.services.plain_files import read_table


def read_manifest(manifest: Path) -> JsonObject:
    """The table in the manifest of a run that is to be changed.

    Raises:
        RefusedError: something else stands there; it stays.
    """
    try:
        return read_table(manifest)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RefusedError(
            f"{manifest} cannot be read: {why}", "put an earlier copy back, or queue a new run"
        ) from None
