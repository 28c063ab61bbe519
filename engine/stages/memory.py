"""Out of memory on a GPU: the batch is computed in halves, and in halves of those, from then on.

Where a network normalises over its batch, portions have statistics of their own: that is another computation, done only
if the recipe says ``runtime.halve_on_oom: always``, and it ends where statistics would become poor. Halving is never
silent: an event says what happened, and a checkpoint remembers it, so that a resumed run goes on in the same portions.

Several processes do it together, whichever of them lacks memory. The rule that keeps them from waiting for each other:
before anything is exchanged in a step they *meet*, where each says that it has come so far, and nothing needs memory
between a meeting and the exchange that follows. A process that fails says so instead, once. All meetings are alike,
so that this is the next meeting of the others, wherever they are, and all of them drop the step and begin it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine import determinism, dist
from engine.config.checkpoint_meta import Remembered
from engine.models.alexnet import CaffeBatchNorm
from engine.stages.base import Context
from engine.stages.best import BestSoFar
from engine.stages.exchange import GradientMean

Result = TypeVar("Result")
SMALLEST = 4
"""Fewest images or patches whose batch statistics are trusted."""
FAILED = -1
"""What a process without memory says at a meeting."""


class OutOfMemoryElsewhereError(torch.OutOfMemoryError):
    """Another process has not enough memory for this step."""


class MemoryGuard:
    """Runs forward and backward passes; after an out-of-memory error again, in twice as many portions.

    Attributes:
        splits: into how many portions a batch is cut, 1 = not at all.
        network: the module to call in training.
    """

    def __init__(self, context: Context, module: nn.Module, stage: str, size: int, *, of_batches: bool = False) -> None:
        """Guard a stage's passes.

        Args:
            size: images or patches of one pass in this process, the same number in all of them.
            of_batches: whether the loss of a batch is another one than that of its portions.
        """
        self.context, self.module, self.stage, self.size, self.of_batches = context, module, stage, size, of_batches
        self.splits = 1
        # A process that fails inside DistributedDataParallel's exchange cannot finish it: the error is reported then.
        library = dist.active() and context.recipe.runtime.exchange == "ddp"
        wish = context.recipe.runtime.halve_on_oom
        self.enabled = not library and (wish == "always" or (wish == "exact" and not self._differs()))
        self.network = context.distribute(module) if library else module
        self._mean = GradientMean(module) if dist.active() and not library else None
        # What is not in training mode, such as a key network and its queues, is not changed by a pass.
        live = (buffer for part in module.modules() if part.training for buffer in part.buffers(recurse=False))
        self._live = list(live) if self.enabled else []
        # Memory of its own: in a step there may be none.
        self._before = [buffer.clone() for buffer in self._live]
        self._lacking: list[int] = []

    def run(self, step: int, compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, which is called again after it failed for lack of memory, here or elsewhere.

        Gradients and running statistics are put back first. ``compute`` must draw its random numbers from the step
        alone and change nothing else. Gradients are the means over all processes afterwards.

        Raises:
            torch.OutOfMemoryError: smaller portions would be another computation, or leave batch normalisation too few
                values; in all processes.
        """
        _copy(self._live, self._before)
        while True:
            try:
                result = compute()
                self._finish()
                return result
            except OutOfMemoryElsewhereError:
                if not self._can_halve():
                    raise
                here = False
            except torch.OutOfMemoryError:
                if not self._can_halve():
                    if self._mean is not None:
                        self._tell()  # inside DistributedDataParallel nobody would hear it
                    raise
                here = True
            # Outside the handler, so that the failed pass's tensors are no longer held by the traceback.
            if here:
                self._tell()
            self._halve(step)

    def go_on_in(self, splits: int) -> None:
        """Cut batches as the checkpoint says that a run goes on from: it would compute something else otherwise."""
        self.splits = splits
        wish = self.context.recipe.runtime.halve_on_oom
        if splits > 1 and (wish == "never" or (wish == "exact" and self._differs())):
            text = (
                f"the checkpoint of stage {self.stage} was made in {splits} portions a batch for lack of memory, and"
                f" the stage goes on in them although runtime.halve_on_oom is {wish} now: train the stage anew to"
                " have whole batches"
            )
            self.context.writer.emit("warning", {"text": text, "splits": splits})

    def meet(self, number: int = 0) -> list[int]:
        """Wait for the other processes before something is exchanged; the numbers of all of them, in rank order.

        Raises:
            OutOfMemoryElsewhereError: one of them has failed; the exchange must not take place.
        """
        numbers = dist.exchange(number)
        self._lacking = [rank for rank, told in enumerate(numbers) if told == FAILED]
        if self._lacking:
            raise OutOfMemoryElsewhereError(f"{self._whose()} does not suffice")
        return numbers

    def quiet(self, more_follow: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward passes that are not a step's last: DistributedDataParallel leaves them alone."""
        if more_follow and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def last(self, is_last: bool = True) -> Iterator[None]:
        """Around the backward pass that is the last of a step: gradients are exchanged while it goes on."""
        if self._mean is None or not is_last:
            yield
            return
        self.meet()
        self._mean.open()
        try:
            yield
        finally:
            self._mean.close()  # a failed pass, too: the others are in the middle of the exchange

    def _finish(self) -> None:
        """Have the means of the gradients, if no process has failed."""
        if self._mean is None:
            return
        if not self._mean.opened:
            with self.last():
                pass  # ``compute`` had no backward pass
        self.meet()
        self._mean.finish()

    def _tell(self) -> None:
        """Say that memory did not suffice here."""
        numbers = dist.exchange(FAILED)
        self._lacking = [rank for rank, told in enumerate(numbers) if told == FAILED]

    def _can_halve(self) -> bool:
        return self.enabled and self.size // (2 * self.splits) >= SMALLEST

    def _halve(self, step: int) -> None:
        self.splits *= 2
        if self._mean is not None:
            self._mean.finish()  # its messages are not used
        self.module.zero_grad(set_to_none=True)
        _copy(self._before, self._live)
        determinism.seed_global(self.context.recipe.seed, self.stage, rank=self.context.rank, step=step)
        if self.context.device.type == "cuda":
            torch.cuda.empty_cache()
        text = (
            f"{self._whose()} did not suffice for stage {self.stage}: batches are computed in {self.splits} portions"
            " from here on"
        )
        text += ", each with batch statistics of its own" if normalises_batches(self.module) else ""
        text += ", each with a loss of its own" if self.of_batches else ""
        self.context.writer.emit("warning", {"text": text, "splits": self.splits})

    def _differs(self) -> bool:
        """Whether portions of a batch are another computation than the whole."""
        return self.of_batches or normalises_batches(self.module)

    def _whose(self) -> str:
        if not dist.active():
            return "the GPU's memory"
        ranks = " and ".join(str(rank) for rank in self._lacking)
        return f"the memory of the GPU of process {ranks} (of {dist.world_size()})"


def normalises_batches(module: nn.Module) -> bool:
    """Whether what a network computes of one image depends on the others of its batch."""
    norms = (nn.modules.batchnorm._BatchNorm, CaffeBatchNorm)
    return any(isinstance(part, norms) and part.training for part in module.modules())


def in_portions(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Rows in ``count`` portions that differ by one row at most; in fewer where one would be left a single row.

    A batch of patches may have fewer rows than the recipe says, and of one row nothing can be normalised.
    """
    return rows.tensor_split(max(1, min(count, len(rows) // 2)))


class InPortions:
    """A stage whose batches its guard may cut into portions."""

    guard: MemoryGuard
    best: BestSoFar | None = None

    @property
    def splits(self) -> int:
        """Portions of a batch; kept in checkpoints."""
        return self.guard.splits

    @splits.setter
    def splits(self, value: int) -> None:
        self.guard.go_on_in(value)

    def remembered(self) -> Remembered:
        """Nothing, unless a stage has something."""
        return {}

    def recall(self, remembered: Remembered) -> None:
        """Takes back what ``remembered`` gave."""


@torch.no_grad()
def _copy(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    """In a few operations on a GPU, whatever the number of buffers."""
    kinds: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for source, target in zip(sources, targets, strict=True):
        alike = kinds.setdefault(target.dtype, ([], []))
        alike[0].append(target)
        alike[1].append(source)
    for into, from_ in kinds.values():
        torch._foreach_copy_(into, from_)
