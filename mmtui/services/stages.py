"""Outputs of finished stages that runs share: what lies there, whether it is sound, and what may go.

The engine alone decides what is taken over (``engine.stage_cache``); deleting an entry never harms a run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mmtui.paths import Home
from mmtui.services.leftovers import mark_deleted

_BLOCK = 1 << 20


@dataclass(frozen=True)
class StoredStage:
    """One stored output."""

    key: str
    stage: str
    recipe: str  # name of the recipe that trained it
    run: str  # id or folder of the run that trained it
    bytes: int  # of files that no run has, too: what deleting it frees at most
    seconds: float  # what its training took
    used_at: float  # when it was last made or taken over, Unix time


def stored(home: Home) -> list[StoredStage]:
    """Every stored output, the one used last first; what is no such entry is left out."""
    found = []
    for meta in home.stage_cache.glob("[0-9a-f]*/meta.json"):
        try:
            body = json.loads(meta.read_text())
            files = [file.stat() for file in meta.parent.iterdir()]
            found.append(
                StoredStage(
                    key=meta.parent.name,
                    stage=str(body["stage"]),
                    recipe=str(body.get("recipe", {}).get("name", "")),
                    run=str(body.get("run", "")),
                    bytes=sum(status.st_size for status in files),
                    seconds=float(body.get("seconds", 0.0)),
                    used_at=meta.parent.stat().st_mtime,
                )
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda entry: -entry.used_at)


def damage(home: Home, key: str) -> str:
    """What is wrong with an entry, "" if its files are those that were written."""
    folder = home.stage_cache / key
    try:
        files = json.loads((folder / "meta.json").read_text())["files"]
        for name, (size, digest) in files.items():
            if (folder / name).stat().st_size != size or _digest(folder / name) != digest:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read: {error}"
    return ""


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def evict(home: Home, unused_seconds: float, *, really: bool, now: float | None = None) -> list[tuple[str, int]]:
    """Delete outputs that no run has used for so long; (what, bytes) of each, also when not ``really``."""
    before = (time.time() if now is None else now) - unused_seconds
    gone = [entry for entry in stored(home) if entry.used_at <= before]
    if really:
        for entry in gone:
            _delete(home, entry.key)
    return [(f"stage {entry.stage} {entry.key[:12]} of run {entry.run}", entry.bytes) for entry in gone]


def withdraw(home: Home, run_id: str, since: float) -> list[str]:
    """Delete what a run has put here since then (Unix time): nobody is to go on from it. Keys of what is gone."""
    gone = [entry.key for entry in stored(home) if entry.run == run_id and _made_at(home, entry.key) >= since]
    for key in gone:
        _delete(home, key)
    return gone


def _made_at(home: Home, key: str) -> float:
    """When an entry was trained; now, where it does not say so."""
    try:
        return float(json.loads((home.stage_cache / key / "meta.json").read_text())["made_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return time.time()


def _delete(home: Home, key: str) -> None:
    # Renamed first: a run that looks at this moment finds a whole entry or none.
    shutil.rmtree(mark_deleted(home.stage_cache / key), ignore_errors=True)
