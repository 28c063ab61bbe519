"""What every stage has, and what the loop gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine import determinism
from engine.config.schema import Recipe
from engine.data.dataset import SegmentationData
from engine.data.registry import build_data
from engine.events import EventWriter
from engine.models import Backbone, build_backbone
from engine.models.weights import load_backbone


class StopRequestedError(Exception):
    """The run was asked to leave; raised only where nothing is lost by it."""


@dataclass
class Context:
    """What the stages of a run share.

    Attributes:
        recipe: the resolved recipe.
        run_dir: where everything of the run is written.
        device: where tensors live.
        writer: the attempt's event file.
        stop_requested: whether the run was asked to leave.
        rank: number of this process, 0 when alone.
        attempt: number of this process life of the run, from 1.
    """

    recipe: Recipe
    run_dir: Path
    device: torch.device
    writer: EventWriter
    stop_requested: Callable[[], bool]
    rank: int = 0
    attempt: int = 1
    _data: dict[str, SegmentationData] = field(default_factory=dict)

    def data(self, split: str) -> SegmentationData:
        """A split, decoded once and kept on the device."""
        if split not in self._data:
            budget = int(self.recipe.runtime.memory_budget_gib * 2**30)
            loaded = build_data(self.recipe.data, split, budget, self.progress)  # type: ignore[arg-type]
            self._data[split] = loaded.to(self.device)
        return self._data[split]

    def progress(self, text: str, done: int, total: int) -> None:
        """Report work that is not training steps; leaves if asked to."""
        self.writer.emit("progress", {"text": text, "done": done, "total": total})
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raises StopRequestedError if the run was asked to leave: only for work that can be done again."""
        if self.stop_requested():
            raise StopRequestedError

    def backbone(self) -> Backbone:
        """The backbone with the weights of the last finished stage, else those of the recipe.

        Its random weights depend on the seed alone, so runs that differ in their stages start alike.
        """
        backbone = build_backbone(self.recipe.model, determinism.generator(self.recipe.seed, "init/backbone"))
        before = self.output_of_last_stage()
        if before is not None:
            load_backbone(backbone, before)
        return backbone

    def output_of_last_stage(self) -> Path | None:
        """Weights of the last training stage that has finished."""
        found = None
        for name, _ in self.recipe.stages():
            file = self.run_dir / "checkpoints" / name / "final" / "model.safetensors"
            if file.is_file():
                found = file
        return found

    def generator(self, purpose: str, step: int = 0) -> torch.Generator:
        """Randomness for one purpose at one step, on the device."""
        return determinism.generator(self.recipe.seed, purpose, rank=self.rank, step=step, device=self.device)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout that is fastest there."""
        if self.device.type == "cuda":
            return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        return module.to(self.device)

    def autocast(self) -> torch.autocast:
        """bf16 where the recipe asks for it."""
        enabled = self.recipe.runtime.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


class Stage(Protocol):
    """One stage of a run. The loop calls step(0), step(1), ..., and observe after each."""

    name: str
    total_steps: int
    images_per_step: int
    module: nn.Module

    @property
    def optimiser(self) -> torch.optim.Optimizer | None:
        """What a checkpoint stores beside the weights; None if the stage trains nothing."""

    def step(self, step: int) -> dict[str, Tensor | float]:
        """Do step ``step`` (0-based): forward, backward, update. Values stay on the device."""

    def observe(self, done: int) -> dict[str, float]:
        """Report what only this stage knows, after ``done`` steps; must not change what later steps compute.

        May raise StopRequestedError; the next attempt then calls it again before it goes on.
        """

    def output(self) -> nn.Module | None:
        """The module whose weights the stage hands on, None if it trains nothing."""

    def summary(self) -> dict[str, Any]:
        """What stands in the meta file of the stage's output."""
