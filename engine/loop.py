"""The one training loop: stage after stage, step after step, everything that happens stands here in order."""

from __future__ import annotations

import math
import os
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import engine
from engine import checkpoint, determinism, dist
from engine.config.schema import Recipe
from engine.data.registry import class_names
from engine.errors import EngineError
from engine.events import EventWriter
from engine.stages import Context, Stage, build_stage
from engine.stages.base import StopRequestedError

Echo = Callable[[str], None]


class DivergedError(EngineError):
    """The loss is no number any more."""


@dataclass(frozen=True)
class Position:
    """Where a run goes on: the first stage that has not finished, and the steps already done in it."""

    stage: str
    step: int
    global_step: int


def find_position(recipe: Recipe, run_dir: Path) -> Position:
    """Where the checkpoints of a run directory let it go on; stage "" when everything is done."""
    offset = 0
    for name, total in recipe.stages():
        if checkpoint.final_checkpoint(run_dir, name) is None:
            found = checkpoint.step_checkpoints(run_dir, name)
            step = found[-1].step if found else 0
            return Position(name, step, offset + step)
        offset += total
    return Position("", 0, offset)


def train(
    recipe: Recipe, run_dir: Path, writer: EventWriter, attempt: int, stop_requested: Callable[[], bool], echo: Echo
) -> str:
    """Run every stage that has not finished yet; returns ``succeeded`` or ``stopped``.

    Args:
        recipe: the resolved recipe.
        run_dir: the run's directory; checkpoints in it are gone on from.
        writer: event file of this attempt.
        attempt: number of this attempt, 1 for the first.
        stop_requested: asked after every step; True = checkpoint and leave.
        echo: takes plain progress lines.

    Raises:
        EngineError: bad data, a full disk, a loss that is no number.
    """
    threads = determinism.configure(recipe.runtime.threads, recipe.runtime.deterministic)
    device = choose_device(recipe)
    checkpoint.clean(run_dir)
    position = find_position(recipe, run_dir)
    writer.at("", 0, position.global_step)
    writer.emit("run_started", _started(recipe, attempt, device, position, threads))
    context = Context(recipe, run_dir, device, writer, stop_requested, rank=dist.rank())
    offset = 0
    for name, total in recipe.stages():
        if checkpoint.final_checkpoint(run_dir, name) is None:
            if stop_requested():
                return "stopped"
            try:
                finished = run_stage(context, name, total, offset, echo)
            except StopRequestedError:
                finished = False
            if not finished:
                return "stopped"
        offset += total
    writer.at("", 0, offset)
    return "succeeded"


def run_stage(context: Context, name: str, total: int, offset: int, echo: Echo) -> bool:
    """Train one stage to its end; False if it was asked to leave (a checkpoint is then on disk)."""
    writer, runtime, run_dir = context.writer, context.recipe.runtime, context.run_dir
    found = checkpoint.step_checkpoints(run_dir, name)
    start = found[-1].step if found else 0
    writer.at(name, start, offset + start)
    writer.emit("stage_started", {"total_steps": total, "offset": offset, "resumed_step": start})
    began = time.monotonic()
    stage = build_stage(context, name)
    if found and stage.optimiser is not None:
        checkpoint.load_step(found[-1], stage.module, stage.optimiser)
    clock = StepClock(stage.images_per_step)
    saved_at, saved_step = time.monotonic(), start

    for step in range(start, total):
        determinism.seed_global(context.recipe.seed, name, rank=context.rank, step=step)
        values = stage.step(step)
        done = step + 1
        clock.step_done()
        writer.at(name, done, offset + done)
        observed = stage.observe(done)
        if done % runtime.log_every == 0 or done == total or observed:
            log(context, stage, done, {**values, **observed, **clock.rates()}, echo)
        if done == total:
            break
        stopping = context.stop_requested()
        due = time.monotonic() - saved_at >= runtime.checkpoint_seconds
        due = due or (runtime.checkpoint_every > 0 and done % runtime.checkpoint_every == 0)
        if (due or stopping) and done > saved_step:
            save(context, stage, done)
            saved_at, saved_step = time.monotonic(), done
        if stopping:
            return False
        clock.start()

    writer.emit("stage_finished", {"seconds": round(time.monotonic() - began, 3)})
    checkpoint.save_final(run_dir, name, stage.output(), {**provenance(context.recipe), **stage.summary()})
    return True


class StepClock:
    """Seconds per step since the last report, without the time that evaluations and checkpoints take."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self.busy, self.steps = 0.0, 0
        self.start()

    def start(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def step_done(self) -> None:
        """A step ended."""
        self.busy += time.perf_counter() - self._began
        self.steps += 1

    def rates(self) -> dict[str, float]:
        """Rates since the last call. On a GPU steps are only queued; the report's own sync makes the mean right."""
        seconds = self.busy / max(self.steps, 1)
        self.busy, self.steps = 0.0, 0
        return {"seconds_per_step": seconds, "images_per_second": self.images_per_step / max(seconds, 1e-9)}


def log(context: Context, stage: Stage, done: int, values: dict[str, Tensor | float], echo: Echo) -> None:
    """Write a metrics event: the only place where values leave the device."""
    numbers = {name: float(value) for name, value in values.items()}
    for name in ("seconds_per_step", "images_per_second"):
        numbers[name] = float(f"{numbers[name]:.4g}")
    context.writer.emit("metrics", numbers)
    loss = numbers.get("loss")
    if loss is not None and not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {done} of stage {stage.name}; lower {stage.name}.optim.lr,"
            f" or set {stage.name}.optim.clip_norm=1"
        )
    left = (stage.total_steps - done) * numbers["seconds_per_step"]
    words = [f"{name} {numbers[name]:.4g}" for name in ("loss", "miou", "lr") if name in numbers]
    echo(f"{stage.name} {done}/{stage.total_steps}  {'  '.join(words)}  eta {left:.0f} s")


def save(context: Context, stage: Stage, done: int) -> None:
    """Write a step checkpoint and report it."""
    assert stage.optimiser is not None
    began = time.perf_counter()
    path = checkpoint.save_step(
        context.run_dir,
        stage.name,
        done,
        stage.module,
        stage.optimiser,
        provenance(context.recipe),
        keep=context.recipe.runtime.keep_checkpoints,
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    values = {
        "path": str(path.relative_to(context.run_dir)),
        "seconds": round(time.perf_counter() - began, 4),
        "bytes": size,
    }
    context.writer.emit("checkpoint", values)


def choose_device(recipe: Recipe) -> torch.device:
    """The device of the recipe; ``auto`` takes a GPU if there is one.

    Raises:
        EngineError: a GPU is asked for and there is none.
    """
    wish = recipe.runtime.device
    if wish == "cuda" and not torch.cuda.is_available():
        raise EngineError("runtime.device is cuda but torch sees no GPU; set runtime.device=auto or cpu")
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def provenance(recipe: Recipe) -> dict[str, Any]:
    """What every checkpoint says of its origin."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "engine": engine.__version__,
        "torch": torch.__version__,
        "classes": list(class_names(recipe.data)),
    }


def _started(recipe: Recipe, attempt: int, device: torch.device, position: Position, threads: int) -> dict[str, Any]:
    resumed = attempt > 1 or position.global_step > 0
    return {
        "attempt": attempt,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "device": device_words(device),
        "stages": [list(item) for item in recipe.stages()],
        "resumed_stage": position.stage if resumed else "",
        "resumed_step": position.step,
        "resumed_global_step": position.global_step,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "engine": engine.__version__},
        "seed": recipe.seed,
        "classes": list(class_names(recipe.data)),
        "threads": threads,
        "precision": recipe.runtime.precision,
    }


def device_words(device: torch.device) -> str:
    """The device in words, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"
