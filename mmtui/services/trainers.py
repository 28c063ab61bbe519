"""Trainers as their run folders tell of them, whatever the database says: it may be gone, or older than they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmtui.paths import Home, RunPaths
from mmtui.services.launch import identity
from mmtui.services.plain_files import open_file

SLOTS = "MMTUI_SLOTS"
"""Variable by which a trainer bears the slots that it was given, as a JSON list."""
_BYTES = 4096
_MOST_VARIABLES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Trainer:
    """A trainer process: its pid and what tells it from a later process of the same pid."""

    pid: int
    identity: str


@dataclass(frozen=True)
class Living:
    """A run whose trainer lives.

    Attributes:
        slots: GPUs or CPU slots that it was given, at least one.
        since: Unix time at which it was started.
    """

    run_id: int
    number: int
    trainer: Trainer
    slots: tuple[str, ...]
    since: float


def is_alive(pid: int | None, known: str) -> bool:
    """Whether the very process is still there."""
    return pid is not None and known != "" and identity(pid) == known


def read_pid_file(attempt_folder: Path) -> Trainer | None:
    """The trainer that wrote who it is into the attempt's folder, if that very process is alive."""
    try:
        with open_file(attempt_folder / "pid") as file:
            pid, known = file.read(_BYTES).decode().split()
        trainer = Trainer(int(pid), known)
    except (OSError, ValueError):
        return None
    return trainer if is_alive(trainer.pid, known) else None


def find(paths: RunPaths) -> Living | None:
    """The trainer of a run that lives on this machine; None if there is none."""
    try:
        with open_file(paths.root / "attempt") as file:
            number = int(file.read(_BYTES))
    except (OSError, ValueError):
        return None  # none was ever started, or the last one was judged
    trainer = read_pid_file(paths.attempt(number))
    if trainer is None:
        return None
    try:
        since = (paths.attempt(number) / "pid").stat().st_mtime
    except OSError:
        return None
    return Living(int(paths.root.name), number, trainer, slots_of(trainer.pid), since)


def living(home: Home) -> Iterator[Living]:
    """Every run of a data directory whose trainer lives on this machine."""
    try:
        folders = [entry for entry in home.runs.iterdir() if re.fullmatch("[0-9]{1,15}", entry.name)]
    except OSError:
        return
    for folder in sorted(folders, key=lambda entry: int(entry.name)):
        found = find(RunPaths(folder))
        if found is not None:
            yield found


def slots_of(pid: int) -> tuple[str, ...]:
    """The slots that a trainer was given; one of an older mmtui tells its GPUs alone."""
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            texts = file.read(_MOST_VARIABLES).decode(errors="replace").split("\0")
    except OSError:
        texts = []
    variables = dict(text.split("=", 1) for text in texts if "=" in text)
    try:
        slots = tuple(str(slot) for slot in json.loads(variables.get(SLOTS, "[]")))
    except (ValueError, TypeError):
        slots = ()
    gpus = tuple(gpu for gpu in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu)
    return slots or gpus or ("cpu:0",)
