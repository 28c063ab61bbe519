"""A run of all four stages that takes a fraction of a second, in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import Recipe, dump_recipe
from engine.events import EventWriter, attempt_folder, attempt_numbers
from tests.event_lines import event_lines
from tests.unit.engine_run.processes import Engine
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
DEVICE = os.environ.get("MMTUI_TEST_DEVICE", "cpu")
"""``MMTUI_TEST_DEVICE=cuda`` runs these tests on a GPU (``benchmarks/gpu.py``)."""
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"kind": "shapes", "height": 32, "width": 32, "train": 5, "val": 3, "data_seed": 2},
    "model": {"backbone": "tiny_vgg", "width": 0.25, "head_channels": 8, "fc_channels": 8, "extra_channels": 0},
    "proxy": {"steps": 3, "batch_size": 2, "crop": 32, "pixels": 8, "head_channels": 8},
    "match": {
        "steps": 4,
        "images": 3,
        "patches_per_image": 4,
        "crop": 32,
        "patch_size": [8, 16],
        "output_size": 16,
    },
    "segment": {"steps": 6, "batch_size": 2, "crop": 32, "pixels": 16, "eval_every": 3, "optim": {"lr": 0.05}},
    "evaluate": {"batch_size": 2, "show_images": 1},
    "runtime": {"device": DEVICE, "threads": 1, "log_every": 1, "graph_every": 2, "checkpoint_seconds": 1e6},
}


def tiny_recipe(**changes: Any) -> Recipe:
    """The tiny recipe; ``segment__steps=3`` changes a key of a section, ``proxy=None`` leaves one out."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for key, value in changes.items():
        *sections, last = key.split("__")
        part = data
        for section in sections:
            part = part.setdefault(section, {})
        part[last] = value
    return Recipe.model_validate(data)


@dataclass
class Runner:
    """Runs recipes in one directory, attempt after attempt."""

    run_dir: Path

    def train(self, recipe: Recipe, stop: Callable[[list[dict[str, Any]]], bool] = lambda _events: False) -> str:
        """One attempt in this process; ``stop`` is asked with all events so far."""
        from engine.loop import train

        attempt = (attempt_numbers(self.run_dir) or [0])[-1] + 1
        writer = EventWriter.open_for_attempt(self.run_dir, attempt)
        try:
            return train(recipe, self.run_dir, writer, attempt, lambda: stop(self.events()), lambda _line: None)
        finally:
            writer.close()

    def start(self, recipe: Recipe, *options: str) -> Engine:
        """One attempt as a process of its own."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        file = self.run_dir / "recipe.yaml"
        file.write_text(dump_recipe(recipe))
        return Engine(["train", "--recipe", str(file), "--run-dir", str(self.run_dir), *options], self.run_dir)

    def finish(self, recipe: Recipe, *options: str) -> tuple[int, str, str]:
        """One attempt as a process of its own, to its end: (exit code, stdout, stderr)."""
        process = self.start(recipe, *options)
        out, err = process.communicate()
        return process.code, out, err

    def kill_at(self, recipe: Recipe, number: signal.Signals, stage: str, step: int, *options: str) -> int:
        """Start an attempt, send it a signal once it has logged that step, and return its exit status."""
        process = self.start(recipe, *options)

        def there() -> bool:
            attempt = (attempt_numbers(self.run_dir) or [0])[-1]
            return any(event["stage"] == stage and event["step"] >= step for event in self.events(attempt))

        moment = partial(time.sleep, 0.005)
        until(lambda: process.poll() is not None or there(), f"step {step} of {stage}", self.events, moment)
        process.send_signal(number)
        process.communicate()
        return process.code

    def events(self, attempt: int | None = None) -> list[dict[str, Any]]:
        """Events of one attempt, or of all in order; every line must be readable."""
        found = []
        for number in attempt_numbers(self.run_dir) if attempt is None else [attempt]:
            path = attempt_folder(self.run_dir, number) / "events.jsonl"
            found += event_lines(path) if path.is_file() else []
        return found

    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]:
        """Events of one kind, of one stage if named."""
        return [e for e in self.events() if e["kind"] == kind and stage in (None, e["stage"])]

    def losses(self) -> dict[tuple[str, int], float]:
        """(stage, step) -> loss; of a step that several attempts did, the last counts."""
        return {(e["stage"], e["step"]): e["values"]["loss"] for e in self.kind("metrics") if "loss" in e["values"]}

    def weights(self, stage: str) -> bytes:
        """What a finished stage handed on."""
        return (self.run_dir / "checkpoints" / stage / "final" / "model.safetensors").read_bytes()


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    return tiny_recipe


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "run")


@pytest.fixture
def another_runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "another")


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """A run sets them for the whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
