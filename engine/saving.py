"""What the loop writes into checkpoints and tells of them, the best one among them."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

import engine
from engine import checkpoint, dist
from engine.config.backbones import timm_used
from engine.config.best import BEST, best_step
from engine.data.listings import class_names
from engine.mixmatch.window_cutters import opencv_version
from engine.stages.base import Context, Stage


def save(context: Context, stage: Stage, done: int, *, observed: bool) -> None:
    """Write a step checkpoint and report it.

    Args:
        observed: whether ``stage.observe(done)`` has been done; if not, the next attempt does it first.
    """
    assert stage.optimiser is not None
    remembered = stage.remembered()
    if context.rank > 0:
        dist.barrier()
        return
    began = time.perf_counter()
    path = checkpoint.save_step(
        context.run_dir,
        stage.name,
        done,
        stage.module,
        stage.optimiser,
        {
            **provenance(context),
            "observed": observed,
            "splits": stage.splits,
            "remembered": remembered,
            "doubts": context.doubts,
        },
        keep=context.recipe.runtime.keep_checkpoints,
        keep_every=context.recipe.runtime.keep_every,
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    values = {
        "path": str(path.relative_to(context.run_dir)),
        "seconds": round(time.perf_counter() - began, 4),
        "bytes": size,
    }
    context.writer.emit("checkpoint", values)
    if is_best(stage, done):
        tell_best(context, stage)
    dist.barrier()


def is_best(stage: Stage, done: int) -> bool:
    """Whether the evaluation after ``done`` steps is the best so far, so that its state is to be kept."""
    return stage.best is not None and stage.best.step == done


def keep_observed(context: Context, stage: Stage, found: checkpoint.Checkpoint) -> None:
    """Note that the state which a run goes on from is the best so far: it was evaluated only now."""
    remembered = stage.remembered()
    if context.rank == 0:
        checkpoint.change_meta(found.path, {"observed": True, "remembered": remembered})
    tell_best(context, stage)
    dist.barrier()


def tell_best(context: Context, stage: Stage) -> None:
    """Report the best so far, whose checkpoint is on the disk."""
    if stage.best is not None and stage.best.step is not None:
        context.writer.emit(BEST, {**stage.best.told(), "weights": stage.summary().get("weights", "")})


def tell_best_of(context: Context, final: Path) -> None:
    """Report the best of a stage that is not trained here, whose output this is; it may be anybody's."""
    meta = checkpoint.read_meta(final)
    step = best_step(meta)
    if step is not None and (final.parent / BEST / "meta.json").is_file():
        context.writer.emit(BEST, {**meta[BEST], "weights": meta.get("weights", "")})


def stopped_early(context: Context, stage: Stage, done: int) -> dict[str, int]:
    """What is said of a stage that patience has ended after ``done`` steps, told; {} of one that was trained whole."""
    best = stage.best
    if best is None or not best.enough or done >= stage.total_steps:
        return {}
    told = {**best.told(), "metric": best.metric, "patience": best.patience, "total_steps": stage.total_steps}
    context.writer.emit("early_stop", told)
    since = f"since step {best.step}" if best.step is not None else "at all"
    context.echo(
        f"{stage.name} {done}/{stage.total_steps}  stops early: no better {best.metric} {since}, "
        f"{best.since} evaluations"
    )
    return {"stopped_early": done}


def provenance(context: Context) -> dict[str, object]:
    """What every checkpoint says of its origin."""
    recipe = context.recipe
    forked = {"lineage": list(context.lineage)} if context.lineage else {}
    return {
        **forked,
        "recipe": recipe.model_dump(mode="json"),
        "engine": engine.__version__,
        "torch": torch.__version__,
        **timm_used(recipe.model.backbone),
        "device": device_words(context.device),
        "data": context.data_digest,
        "threads": torch.get_num_threads(),
        "opencv": opencv_version(),
        "processes": dist.world_size(),
        "classes": list(class_names(recipe.data)),
    }


def device_words(device: torch.device) -> str:
    """The device in words, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"
