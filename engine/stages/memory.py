"""Out of memory on a GPU: the batch is computed in halves, and in halves of those, from then on.

Batch normalisation sees smaller batches then, so this ends where statistics would become poor, and it is never silent:
an event says what happened, and a checkpoint remembers it, so that a resumed run goes on in the same portions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from engine import dist
from engine.stages.base import Context

Result = TypeVar("Result")
SMALLEST = 4
"""Fewest images or patches whose batch statistics are trusted."""


class MemoryGuard:
    """Runs forward and backward passes; after an out-of-memory error again, in twice as many portions.

    Attributes:
        splits: into how many portions a batch is cut, 1 = not at all.
    """

    def __init__(self, context: Context, module: nn.Module, stage: str, size: int) -> None:
        self.context, self.module, self.stage, self.size = context, module, stage, size
        self.splits = 1
        # Several processes would have to agree in the middle of a collective; there the error is reported instead.
        self.enabled = context.recipe.runtime.halve_on_oom and not dist.active()
        self._live = list(module.buffers()) if self.enabled else []

    def run(self, compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, which is called again after it failed for lack of memory.

        Gradients and running statistics are put back first. ``compute`` must draw its random numbers from the step
        alone and change nothing else.

        Raises:
            torch.OutOfMemoryError: smaller portions would leave batch normalisation too few values.
        """
        before = [buffer.clone() for buffer in self._live]
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                if not self.enabled or self.size // (2 * self.splits) < SMALLEST:
                    raise
            # Outside the handler, so that the failed pass's tensors are no longer held by the traceback.
            self._halve(before)

    def _halve(self, before: list[torch.Tensor]) -> None:
        self.splits *= 2
        self.module.zero_grad(set_to_none=True)
        with torch.no_grad():
            for live, old in zip(self._live, before, strict=True):
                live.copy_(old)
        if self.context.device.type == "cuda":
            torch.cuda.empty_cache()
        text = (
            f"the GPU's memory did not suffice for stage {self.stage}: batches are computed in {self.splits} portions"
            " from here on, each with batch statistics of its own"
        )
        self.context.writer.emit("warning", {"text": text, "splits": self.splits})
