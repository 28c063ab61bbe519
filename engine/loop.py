"""The one training loop: stage after stage, step after step, everything that happens stands here in order."""

from __future__ import annotations

import os
import platform
import re
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import engine
from engine import checkpoint, determinism, dist, own_code
from engine.config import forking
from engine.config.backbones import timm_used
from engine.config.schema import Recipe
from engine.data import pictures
from engine.data.listings import class_names
from engine.errors import CheckpointError, EngineError
from engine.events import EventWriter
from engine.mixmatch.window_cutters import opencv_version
from engine.replay import Replay
from engine.resume import Position, data_told, find_position, trained_on
from engine.saving import device_words, is_best, keep_observed, provenance, save, stopped_early, tell_best, tell_best_of
from engine.stage_cache import StageCache
from engine.stages import Context, Stage, build_stage
from engine.stages.base import StopRequestedError
from engine.stages.encoders import check_encoder
from engine.stages.sharing import check_shares
from engine.stages.supervision import check_named_classes, inherit, look_at_labels
from engine.watch import FiniteWatch, StepClock, Work, foreign_network, out_of_memory, published_peak

Echo = Callable[[str], None]


def train(
    recipe: Recipe,
    run_dir: Path,
    writer: EventWriter,
    attempt: int,
    stop_requested: Callable[[], bool],
    echo: Echo,
    cache: Path | None = None,
    fork: tuple[Path, forking.Place] | None = None,
) -> str:
    """Run every stage that has not finished yet; returns ``succeeded`` or ``stopped``.

    Args:
        recipe: the resolved recipe.
        run_dir: the run's directory; checkpoints in it are gone on from.
        writer: event file of this attempt.
        attempt: number of this attempt, 1 for the first.
        stop_requested: asked after every step; True = checkpoint and leave.
        echo: takes plain progress lines.
        cache: folder of outputs that runs share, see ``engine.stage_cache``; None = every stage is trained here.
        fork: folder of a run to begin from, and the step of it, ``best``, or None: as far as it has come; once begun,
            this run goes on from its own checkpoints. See ``engine.config.forking``.

    Raises:
        EngineError: bad data, a full disk, a loss that is no number.
    """
    threads = determinism.configure(recipe.runtime.threads, recipe.runtime.deterministic)
    pictures.allow(recipe.runtime.max_megapixels)
    device = choose_device(recipe)
    dist.start(device)
    position = _agreed_position(recipe, run_dir, device, fork)
    _check_what_is_left(recipe, run_dir)
    origin = forking.read_origin(run_dir)
    writer.at("", 0, position.global_step)
    told = {"forked_from": origin["forked_from"] if origin else None}
    writer.emit("run_started", {**_started(recipe, attempt, device, position, threads), **told})
    for warning in position.warnings:
        writer.emit("warning", {"text": warning})
    stop = Stop(stop_requested)
    context = Context(recipe, run_dir, device, writer, stop.requested, rank=dist.rank(), attempt=attempt, echo=echo)
    if origin is not None:
        context.lineage = origin["lineage"]
        tell_taken(context, origin, position)
    if cache is not None:
        context.cache = StageCache(cache, recipe, device_words(device), context.told(), forked=origin is not None)
    if dist.rank() == 0 and not _look_at_data(context, position):
        return "stopped"
    offset = 0
    for name, total in recipe.stages():
        begun = position.found is not None and position.stage == name
        if dist.rank() == 0 and not begun and not take_over(context, name, total, offset, echo):
            return "stopped"
        dist.barrier()
        missing = checkpoint.final_checkpoint(run_dir, name) is None
        dist.barrier()
        if missing and (stop.agree(False)[0] or not run_stage(context, name, total, offset, position, echo, stop)):
            return "stopped"
        offset += total
    writer.at("", 0, offset)
    return "succeeded"


def _check_what_is_left(recipe: Recipe, run_dir: Path) -> None:
    """Refuse what could not be trained here, before any stage trains; what is finished may have been trained anywhere.

    Raises:
        RecipeError: see ``check_encoder``, ``check_shares`` and ``check_named_classes``.
    """
    if _missing(recipe, run_dir):
        check_encoder(recipe)
    check_shares(recipe, _missing(recipe, run_dir))
    check_named_classes(recipe)


def _look_at_data(context: Context, position: Position) -> bool:
    """Tell what identifies the data, and look at their labels; False if the run was asked to leave meanwhile.

    Raises:
        DataError: nothing can come of the labels.
    """
    before = trained_on(context.recipe, context.run_dir, position)
    told = data_told(context.run_dir, context.attempt)
    if context.cache is not None and not tell_data(context, before):
        return False
    # Whatever an attempt has said of other data may stand beside the score.
    same = bool(context.data_digest) and {before, *told} == {context.data_digest}
    try:
        look_at_labels(context, _missing(context.recipe, context.run_dir), position, same=same)
    except StopRequestedError:
        return False
    return True


def _missing(recipe: Recipe, run_dir: Path) -> list[str]:
    """Stages that have not finished."""
    return [name for name, _ in recipe.stages() if checkpoint.final_checkpoint(run_dir, name) is None]


def tell_taken(context: Context, origin: Mapping[str, Any], position: Position) -> None:
    """Report the stages that a fork has taken over, until it has a checkpoint of its own."""
    steps = dict(context.recipe.stages())
    begun = (origin.get("begun") or ["", 0])[1]
    if position.global_step != sum(steps[name] for name in origin["taken"]) + begun:
        return
    offset, writer = 0, context.writer
    for name, total in context.recipe.stages():
        if name in origin["taken"]:
            writer.at(name, 0, offset)
            writer.emit("stage_started", {"total_steps": total, "offset": offset, "resumed_step": 0})
            writer.at(name, total, offset + total)
            writer.emit("stage_reused", {"key": "", "run": origin["forked_from"]["run"], "saved_seconds": 0.0})
            tell_best_of(context, checkpoint.stage_folder(context.run_dir, name) / "final")
            writer.emit("stage_finished", {"seconds": 0.0, "reused": True})
        offset += total


def tell_data(context: Context, before: str) -> bool:
    """Report what identifies the data; False if the run was asked to leave. Checksums are remembered by the cache.

    Args:
        before: what identified the data that the run was trained on so far, "" = not known.
    """
    assert context.cache is not None
    try:
        context.data_digest = context.cache.data_fingerprint()
    except StopRequestedError:
        return False
    context.writer.emit("data", {"fingerprint": context.data_digest})
    if before not in ("", context.data_digest):
        context.warn("the data set is not the one that this run was trained on (images, labels or keys of data)")
    return True


def take_over(context: Context, name: str, total: int, offset: int, echo: Echo) -> bool:
    """Finish a stage with what another run has trained, if there is such; False if the run was asked to leave."""
    cache, writer = context.cache, context.writer
    if cache is None or not cache.covers(name) or checkpoint.final_checkpoint(context.run_dir, name) is not None:
        return True
    writer.at(name, 0, offset)
    try:
        found = cache.take(context.run_dir, name)
    except StopRequestedError:
        return False
    if found is not None:
        writer.emit("stage_started", {"total_steps": total, "offset": offset, "resumed_step": 0})
        writer.at(name, total, offset + total)
        writer.emit("stage_reused", {"key": found.key, "run": found.run, "saved_seconds": found.seconds})
        writer.emit("stage_finished", {"seconds": 0.0, "reused": True})
        echo(f"{name}: taken over from run {found.run}")
        inherit(context, name)
    return True


class Stop:
    """The wish that the run leave. Several processes agree on it after every step; in between they keep to that.

    Alone, it is asked for at once.
    """

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked
        self._agreed = False

    def requested(self) -> bool:
        """Whether to leave; may be called by one process alone."""
        return self._agreed if dist.active() else self._asked()

    def agree(self, due: bool) -> tuple[bool, bool]:
        """Whether any process was asked to leave, and whether one's checkpoint is due. All of them have to call it."""
        if not dist.active():
            return self._asked(), due
        self._agreed, due = dist.agree([self._asked(), due])
        return self._agreed, due


def _agreed_position(
    recipe: Recipe, run_dir: Path, device: torch.device, fork: tuple[Path, forking.Place] | None
) -> Position:
    """Where to go on. Rank 0 tidies the directory first; the others find it as it left it."""
    if dist.rank() == 0:
        checkpoint.clean(run_dir)
        if fork is not None and forking.read_origin(run_dir) is None:
            parent, step = fork
            forking.take(recipe, (parent, str(parent), step), run_dir, class_names(recipe.data))
        elif forking.read_origin(run_dir) is not None:
            check_classes(recipe, run_dir)
        position = find_position(recipe, run_dir, device_words(device))
        dist.barrier()
        return position
    dist.barrier()
    return find_position(recipe, run_dir, device_words(device))


def check_classes(recipe: Recipe, run_dir: Path) -> None:
    """Raises CheckpointError if a fork's data have other classes than its parent's: the queue has not read them."""
    names = class_names(recipe.data)
    for kept in forking.kept_checkpoints(run_dir):
        before = kept.meta.get("classes")
        if before is not None and list(before) != list(names):
            raise CheckpointError(
                f"{kept.path} was trained on the classes {', '.join(before)}, the data now have {', '.join(names)}:"
                " a fork needs the classes of its parent"
            )


def run_stage(context: Context, name: str, total: int, offset: int, position: Position, echo: Echo, stop: Stop) -> bool:
    """Train one stage to its end; False if it was asked to leave (what is needed to go on is then on disk)."""
    found = position.found if position.stage == name else None
    start = found.step if found is not None else 0
    context.writer.at(name, start, offset + start)
    context.writer.emit("stage_started", {"total_steps": total, "offset": offset, "resumed_step": start})
    began = time.monotonic()
    try:
        inputs = _inputs(context, name)
        with context.memory_for("network", lambda: f"placing the network of stage {name}"):
            stage = build_stage(context, name)
            if found is not None and stage.optimiser is not None:
                checkpoint.load_step(found, stage.module, stage.optimiser)
        if stage.images_per_epoch:
            sizes = {"images_per_step": stage.images_per_step, "images_per_epoch": stage.images_per_epoch}
            context.writer.emit("stage_data", sizes)
        if found is not None and stage.optimiser is not None:
            stage.splits = int(found.meta().get("splits", 1))
            stage.recall(found.meta().get("remembered", {}))
        if found is not None and not found.meta().get("observed", True):
            log(context, start, total, stage.observe(start), echo)
            if is_best(stage, start):
                keep_observed(context, stage, found)
        elif is_best(stage, start):
            tell_best(context, stage)  # the attempt before may have died between the checkpoint and its word of it
        replay = Replay(context.run_dir, context.attempt, name, start)
        with foreign_network(name):
            finished = run_steps(context, stage, start, offset, echo, replay, stop)
    except StopRequestedError:
        return False
    except (RuntimeError, MemoryError) as error:
        advice = out_of_memory(error, context.recipe, cast(Work, name), context.device)
        if advice is None:
            raise
        raise advice from error
    if finished:
        early = stopped_early(context, stage, context.writer.step)
        if context.rank == 0:
            meta = {**provenance(context), **stage.summary(), **early, "doubts": context.doubts}
            checkpoint.save_final(context.run_dir, name, stage.output(), meta)
            _keep(context, name, time.monotonic() - began, inputs, inexact=stage.splits > 1)
        dist.barrier()
        values = {"replayed": replay.compared, "replayed_equal": replay.equal, "replayed_worst": replay.worst}
        context.writer.emit("stage_finished", {"seconds": round(time.monotonic() - began, 3), **values, **early})
    return finished


def _inputs(context: Context, name: str) -> dict[str, Any]:
    """What determines the output of a stage that others may take over; {} if none may."""
    if context.cache is None or context.rank > 0 or not context.cache.covers(name):
        return {}
    return context.cache.inputs(name)


def _keep(context: Context, name: str, seconds: float, inputs: dict[str, Any], *, inexact: bool) -> None:
    """Let other runs take over what this stage has trained, unless it is not what its inputs alone determine."""
    if context.cache is None or not inputs:
        return
    if inexact:
        context.writer.emit(
            "warning",
            {"text": f"the output of stage {name} is not shared with other runs: it was computed in portions"},
        )
        return
    run = os.environ.get("MMTUI_RUN_ID") or str(context.run_dir)
    problem = context.cache.put(context.run_dir, name, run, seconds, inputs)
    if problem:
        context.writer.emit("warning", {"text": f"the output of stage {name} is not shared with other runs: {problem}"})


def run_steps(context: Context, stage: Stage, start: int, offset: int, echo: Echo, replay: Replay, stop: Stop) -> bool:
    """Steps ``start`` to the last of a stage: compute, observe, log, checkpoint, in this order."""
    runtime, total = context.recipe.runtime, stage.total_steps
    clock = StepClock(stage.images_per_step, published_peak(context.device, runtime.precision))
    watch = FiniteWatch(stage.name)
    saved_at = time.monotonic()

    for step in range(start, total):
        if stage.best is not None and stage.best.enough:
            break
        determinism.seed_global(context.recipe.seed, stage.name, rank=context.rank, step=step)
        clock.start()
        first = step == start and stage.optimiser is not None
        values = clock.count(partial(stage.step, step)) if first else stage.step(step)
        done = step + 1
        watch.note(values.get("loss"), done)
        clock.stop()
        context.writer.at(stage.name, done, offset + done)
        observed = observe(stage, done)
        # A step that is left during its evaluation is not trained again: its loss is told now or never.
        if done % runtime.log_every == 0 or done == total or observed or observed is None:
            reported = {**values, **(observed or {}), **clock.rates()}
            numbers = log(context, done, total, reported, echo, clock.left(total - done))
            watch.check()
            difference = replay.compare(done, numbers.get("loss", 0.0))
            if difference:
                context.writer.emit("warning", {"text": difference})
        # By the clock of rank 0 alone: other clocks would be due at other steps.
        due = context.rank == 0 and time.monotonic() - saved_at >= runtime.checkpoint_seconds
        due = due or (runtime.checkpoint_every > 0 and done % runtime.checkpoint_every == 0)
        # Kept for good, the last step's too: with its optimiser a fork can make the stage longer.
        keep = runtime.keep_every > 0 and done % runtime.keep_every == 0
        keep = keep or is_best(stage, done)
        stopping, due = stop.agree(due or keep)
        stopping = stopping or observed is None
        if (due or stopping) and stage.optimiser is not None and (done < total or observed is None or keep):
            watch.check()
            save(context, stage, done, observed=observed is not None)
            saved_at = time.monotonic()
        if stopping and (done < total or observed is None):
            return False
    return True


def observe(stage: Stage, done: int) -> dict[str, float] | None:
    """What the stage reports after ``done`` steps; None if it was asked to leave before it could say."""
    try:
        return stage.observe(done)
    except StopRequestedError:
        return None


def log(
    context: Context, done: int, total: int, values: Mapping[str, Tensor | float], echo: Echo, left: float | None = None
) -> dict[str, float]:
    """Write a progress line and a metrics event: the only place where values leave the device. Returns them.

    The line comes first: the event tells how much has been printed, its own step included.
    """
    numbers = _across_processes({name: float(value) for name, value in values.items()})
    words = [f"{name} {numbers[name]:.4g}" for name in ("loss", "val_loss", "miou", "lr") if name in numbers]
    if left is not None and done < total:
        words.append(f"eta {left:.0f} s")
    echo(f"{context.writer.stage} {done}/{total}  {'  '.join(words)}")
    context.writer.emit("metrics", numbers)
    return numbers


def _across_processes(numbers: dict[str, float]) -> dict[str, float]:
    """Means over all processes: each has seen its share of the step alone."""
    if not dist.active():
        return numbers
    means = dist.mean(torch.tensor(list(numbers.values()), dtype=torch.float64)).tolist()
    return dict(zip(numbers, means, strict=True))


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
        "versions": versions() | timm_used(recipe.model.backbone),
        "code": own_code.loaded() or None,
        "seed": recipe.seed,
        "classes": list(class_names(recipe.data)),
        "threads": threads,
        "precision": recipe.runtime.precision,
        "processes": dist.world_size(),
    }


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "engine": engine.__version__}
    if torch.version.cuda and torch.cuda.is_available():
        found |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version()), "driver": _driver()}
    return found | ({"opencv": opencv_version()} if opencv_version() else {})


def _driver() -> str:
    """Version of the NVIDIA driver, "" if the kernel does not tell."""
    try:
        match = re.search(r"\b\d+\.\d+(\.\d+)?\b", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return ""
    return match[0] if match else ""
