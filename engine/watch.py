"""What the loop keeps an eye on: time, losses that are no numbers, memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor

from engine import dist
from engine.config.schema import Recipe
from engine.data import waiting
from engine.errors import EngineError, RecipeError
from engine.flops import FlopCount

Result = TypeVar("Result")
PUBLISHED_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s from the makers' data sheets, of SXM cards."""


class DivergedError(EngineError):
    """The loss is no number any more."""


class OutOfMemoryError(EngineError):
    """The device has not enough memory for a step."""


class StepClock:
    """Seconds per step, without the time that evaluations and checkpoints take."""

    def __init__(self, images_per_step: int, peak: float | None = None) -> None:
        """``peak``: FLOP/s that the device can do at most, None = not known."""
        self.images_per_step, self.peak = images_per_step, peak
        self.flops: int | None = None
        self._data_seconds = waiting.seconds()
        self._began = 0.0
        self._busy, self._steps = 0.0, 0
        self._all_busy, self._all_steps = 0.0, 0

    def start(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def count(self, step: Callable[[], Result]) -> Result:
        """The result of a step whose floating-point operations are counted: those of every later step, too."""
        with FlopCount() as counter:
            result = step()
        self.flops = counter.total
        return result

    def stop(self) -> None:
        """A step ended."""
        self._busy += time.perf_counter() - self._began
        self._steps += 1

    def rates(self) -> dict[str, float]:
        """Rates since the last call. On a GPU steps are only queued; the report's own sync makes the mean right."""
        seconds = self._busy / max(self._steps, 1)
        data_seconds = waiting.seconds()
        share = min((data_seconds - self._data_seconds) / max(self._busy, 1e-9), 1.0)
        self._data_seconds = data_seconds
        self._all_busy, self._all_steps = self._all_busy + self._busy, self._all_steps + self._steps
        self._busy, self._steps = 0.0, 0
        rates = {"seconds_per_step": seconds, "images_per_second": self.images_per_step / max(seconds, 1e-9)}
        # A process without patches counts none, and must tell the same names as the others.
        if self.flops is not None:
            rates["data_share"] = share
            rates["tflops"] = self.flops / max(seconds, 1e-9) / 1e12
            if self.peak is not None:
                rates["mfu"] = 100 * 1e12 * rates["tflops"] / self.peak
        return {name: float(f"{value:.4g}") for name, value in rates.items()}

    def left(self, steps: int) -> float:
        """Seconds that so many more steps will take, by the mean of all steps that ``rates`` has counted."""
        return steps * self._all_busy / max(self._all_steps, 1)


def published_peak(device: torch.device, precision: str) -> float | None:
    """FLOP/s of a GPU by its data sheet, None where it is not known here: other cards, other precisions, CPUs.

    None as well where it is not known of the GPU of another process. All processes have to call it.
    """
    own = 0.0
    if device.type == "cuda" and precision == "bf16":
        card = torch.cuda.get_device_name(device)
        own = next((peak for name, peak in PUBLISHED_PEAK.items() if name in card), 0.0)
    return own if all(dist.exchange(int(own))) else None


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


Work = Literal["data", "network", "bank", "proxy", "match", "segment", "evaluate"]
"""What needs memory: placing data, a network or remembered embeddings; a step of a stage; an evaluation, anywhere."""
_SMALLER: dict[str, str] = {
    "data": "runtime.memory_budget_gib below their size, so that they stay on the disk and come batch by batch",
    "network": "model.width, or set a smaller model.backbone",
    "bank": "match.memory",
    "proxy": "proxy.batch_size or proxy.crop",
    "match": "match.images, match.patches_per_image or match.output_size",
    "segment": "segment.batch_size (and raise segment.accumulate), or segment.crop",
    "evaluate": "evaluate.batch_size, or raise evaluate.stride",
}


def _halving(recipe: Recipe, device: torch.device) -> str:
    """What would let the step be computed in halves, if the recipe does not rule that out."""
    wish = recipe.runtime.halve_on_oom
    if wish == "never":
        return ""
    if dist.active() and recipe.runtime.exchange == "ddp" and device.type == "cuda":
        keys = "runtime.exchange=retry" + (" and runtime.halve_on_oom=always" if wish == "exact" else "")
        return f", or set {keys}, with which all processes compute the step again in halves"
    if wish == "exact":
        return ", or set runtime.halve_on_oom=always: halves of the batch, each with batch statistics of its own"
    return ""


def out_of_memory(
    error: BaseException, recipe: Recipe, work: Work, device: torch.device, what: str = ""
) -> EngineError | None:
    """The error as one that says what to write, if it tells of too little memory; else None.

    Args:
        work: what it was met in.
        what: its name in the sentence, "" = the usual one.
    """
    host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    on_device = isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and dist.lacks_memory(error)
    )
    if not host and not on_device:
        return None
    on_gpu = device.type == "cuda" and on_device
    where = "the GPU" if on_gpu else "this machine"
    what = what or ("the evaluation" if work == "evaluate" else f"a step of stage {work}")
    return OutOfMemoryError(
        f"{where} has too little memory for {what}: lower {_SMALLER[work]}{_more_advice(error, recipe, work, device)}"
    )


def _more_advice(error: BaseException, recipe: Recipe, work: Work, device: torch.device) -> str:
    """What else would help. Images are bytes and weights float32 in any precision."""
    if work == "data" and recipe.runtime.data_cache == "none":
        return ", and set runtime.data_cache to a folder"
    if work in ("data", "network", "bank"):
        return ""
    host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    advice = (
        "" if recipe.runtime.precision == "bf16" or device.type != "cuda" or host else ", or set runtime.precision=bf16"
    )
    # What lacks of the host's memory is never computed in halves.
    if work != "evaluate" and isinstance(error, torch.OutOfMemoryError):
        advice += _halving(recipe, device)
    return advice


@contextlib.contextmanager
def memory_for(work: Work, recipe: Recipe, device: torch.device, what: Callable[[], str] = str) -> Iterator[None]:
    """Around what needs memory: where that lacks, a sentence says for what, and which keys help there.

    Args:
        what: gives the name of it; asked when it has failed.

    Raises:
        OutOfMemoryError: there is too little.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        advice = out_of_memory(error, recipe, work, device, what())
        if advice is None:
            raise
        raise advice from error


ONE_VALUE = "Expected more than 1 value per channel"
"""How PyTorch says that a batch has nothing to be normalised by."""
UNUSED = "Expected to have finished reduction"
"""How it says that parameters have no gradient for others to be told."""


@contextlib.contextmanager
def foreign_network(stage: str) -> Iterator[None]:
    """Around steps of a network of which nobody knew beforehand what it normalises and what of it is used.

    Raises:
        RecipeError: batch normalisation was left with one value a channel, or several processes with parameters that
            nothing depends on.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = str(error)
        if ONE_VALUE in text:
            raise RecipeError(
                f"stage {stage}: one value a channel is too little for batch normalisation: write a larger batch or"
                " crop, or another model.backbone or model.head"
            ) from error
        if UNUSED in text:
            raise RecipeError(
                f"stage {stage}: the network has parameters that its output does not depend on, which"
                " runtime.exchange=ddp does not allow: write runtime.exchange=retry"
            ) from error
        raise
