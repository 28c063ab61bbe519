"""What the loop keeps an eye on: time, losses that are no numbers, memory."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from engine.config.schema import Recipe
from engine.errors import EngineError


class DivergedError(EngineError):
    """The loss is no number any more."""


class OutOfMemoryError(EngineError):
    """The device has not enough memory for a step."""


class StepClock:
    """Seconds per step, without the time that evaluations and checkpoints take."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self._began = 0.0
        self._busy, self._steps = 0.0, 0
        self._all_busy, self._all_steps = 0.0, 0

    def start(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """A step ended."""
        self._busy += time.perf_counter() - self._began
        self._steps += 1

    def rates(self) -> dict[str, float]:
        """Rates since the last call. On a GPU steps are only queued; the report's own sync makes the mean right."""
        seconds = self._busy / max(self._steps, 1)
        self._all_busy, self._all_steps = self._all_busy + self._busy, self._all_steps + self._steps
        self._busy, self._steps = 0.0, 0
        rates = {"seconds_per_step": seconds, "images_per_second": self.images_per_step / max(seconds, 1e-9)}
        return {name: float(f"{value:.4g}") for name, value in rates.items()}

    def left(self, steps: int) -> float:
        """Seconds that so many more steps will take, by the mean of all steps that ``rates`` has counted."""
        return steps * self._all_busy / max(self._all_steps, 1)


class FiniteWatch:
    """Remembers the first step whose loss was no finite number, on the loss's device: no sync until asked."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._first: Tensor | None = None

    def note(self, loss: Tensor | float | None, done: int) -> None:
        """Look at the loss of step ``done`` (1-based)."""
        if not isinstance(loss, Tensor):
            return
        if self._first is None:
            self._first = torch.zeros((), dtype=torch.int64, device=loss.device)
        fresh = (self._first == 0) & ~torch.isfinite(loss)
        self._first = torch.where(fresh, done, self._first)

    def check(self) -> None:
        """Raises DivergedError if a loss was not finite; waits for the device."""
        first = 0 if self._first is None else int(self._first)
        if first:
            raise DivergedError(
                f"the loss is no finite number at step {first} of stage {self.stage};"
                f" lower {self.stage}.optim.lr, or set {self.stage}.optim.clip_norm=1"
            )


_SMALLER = {
    "proxy": "proxy.batch_size or proxy.crop",
    "match": "match.images, match.patches_per_image or match.output_size",
    "segment": "segment.batch_size (and raise segment.accumulate), or segment.crop",
    "evaluate": "evaluate.batch_size, or raise evaluate.stride",
}


def out_of_memory(error: RuntimeError, recipe: Recipe, stage: str, device: torch.device) -> EngineError | None:
    """The error as one that says what to write, if it tells of too little memory; else None."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return None
    where = "the GPU" if device.type == "cuda" else "this machine"
    advice = "" if recipe.runtime.precision == "bf16" or device.type != "cuda" else ", or set runtime.precision=bf16"
    return OutOfMemoryError(f"{where} has too little memory for stage {stage}: lower {_SMALLER[stage]}{advice}")
