"""Where a run goes on, and whether what lies in its directory belongs to its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from engine import checkpoint, dist
from engine.checkpoint import Checkpoint
from engine.config import forking
from engine.config.backbones import timm_used
from engine.config.checkpoint_meta import CheckpointMeta
from engine.config.determining import determining
from engine.config.schema import Recipe, stored_recipe
from engine.errors import CheckpointError
from engine.events import attempt_folder, attempt_numbers, read_events
from engine.events.records import Data, StageStarted
from engine.mixmatch.window_cutters import opencv_version


@dataclass(frozen=True)
class Position:
    """Where a run goes on.

    Attributes:
        stage: the first stage that has not finished; "" when everything is done.
        step: steps of it that are done.
        global_step: steps of the whole run that are done.
        found: the checkpoint to go on from; None at the start of a stage.
        warnings: what the user should know, one sentence each.
    """

    stage: str
    step: int
    global_step: int
    found: Checkpoint | None = None
    warnings: tuple[str, ...] = ()


def find_position(recipe: Recipe, run_dir: Path, device: str = "") -> Position:
    """Where the checkpoints of a run directory let it go on.

    Args:
        device: what computes now, in words, to be compared with what did; "" = not compared.

    Raises:
        CheckpointError: they were made with another recipe, or the output of a finished stage is damaged, or what a
            fork began with is gone.
    """
    offset, origin = 0, forking.read_origin(run_dir) or {}
    taken = origin.get("taken", ())
    for name, total in recipe.stages():
        final = checkpoint.final_checkpoint(run_dir, name)
        if final is None and name in taken:
            raise CheckpointError(f"the output of stage {name} that this run took over is gone: fork the run again")
        if final is None:
            position = _within_stage(recipe, run_dir, name, offset, device)
            if position.found is None and (origin.get("begun") or [""])[0] == name:
                raise CheckpointError(
                    f"the checkpoint of stage {name} that this run was forked from is damaged or gone: fork it again"
                )
            return position
        problem = checkpoint.damage(final)
        if problem:
            cure = "fork the run again" if name in taken else "remove it, and the stage trains again"
            raise CheckpointError(f"{final} is damaged ({problem}); {cure}")
        check_same_recipe(recipe, final, name)
        offset += total
    return Position("", 0, offset)


def trained_on(recipe: Recipe, run_dir: Path, position: Position) -> str:
    """What identified the data of what a run goes on from; "" if that is not known, or a fork has taken it over."""
    finals = [checkpoint.final_checkpoint(run_dir, name) for name, _ in recipe.stages()]
    newest = [path for path in finals if path is not None][-1:]
    meta = position.found.meta() if position.found is not None else checkpoint.read_meta(newest[0]) if newest else {}
    return "" if forking.TRAINED_WITH in meta else str(meta.get("data", ""))


def data_told(run_dir: Path, attempt: int) -> Iterator[str]:
    """What identified the data of each attempt before this one, where it has come so far as to say it."""
    for number in attempt_numbers(run_dir):
        path = attempt_folder(run_dir, number) / "events.jsonl"
        if number < attempt and path.is_file():
            events = read_events(path, kinds={Data.KIND, StageStarted.KIND})
            told = (event.record for _, event in events if event is not None)
            first = next((record for record in told if isinstance(record, Data | StageStarted)), None)
            if isinstance(first, Data):
                yield first.fingerprint or ""


def _within_stage(recipe: Recipe, run_dir: Path, name: str, offset: int, device: str) -> Position:
    found, warnings = checkpoint.newest_sound(run_dir, name)
    if found is None:
        if warnings:
            warnings.append(f"no checkpoint of stage {name} is sound: the stage starts again")
        return Position(name, 0, offset, None, tuple(warnings))
    check_same_recipe(recipe, found.path, name)
    meta = found.meta()
    # What a fork began with may have been trained anywhere.
    others = [] if forking.TRAINED_WITH in meta else _other_circumstances(meta, recipe, device)
    return Position(name, found.step, offset + found.step, found, (*warnings, *others))


def _other_circumstances(meta: CheckpointMeta, recipe: Recipe, device: str) -> Iterator[str]:
    """Sentences on what has changed since a checkpoint was made, none of which is in the recipe."""
    threads = meta.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads():
        yield (
            f"the checkpoint was made with {threads} CPU threads, now there are {torch.get_num_threads()}:"
            f" losses may differ in their last digits; set runtime.threads={threads} to go on exactly"
        )
    before, now = meta.get("opencv", ""), opencv_version()  # those that do not tell are older than its use
    if before != now and recipe.match is not None:
        yield (
            f"the checkpoint was made {f'with OpenCV {before}' if before else 'without OpenCV'}, now there is"
            f" {now or 'none'}: patches may differ by a hundredth of a grey level"
        )
    then = meta.get("torch", torch.__version__)
    if then != torch.__version__:
        yield (
            f"the checkpoint was made with torch {then}, now there is {torch.__version__}: losses may differ in their"
            f" last digits; install torch {then} to go on exactly"
        )
    encoders = timm_used(recipe.model.backbone).get("timm")
    if meta.get("timm") != encoders:
        yield (
            f"the checkpoint was made with timm {meta.get('timm')}, now there is {encoders}: its encoders may compute"
            " otherwise"
        )
    there = meta.get("device", "")
    if device and there and there != device:
        yield f"the checkpoint was made on {there}, now the run is on {device}: losses may differ in their last digits"


def check_same_recipe(recipe: Recipe, path: Path, stage: str) -> None:
    """Compare everything that determines the state after ``stage`` with what the checkpoint was made from.

    Raises:
        CheckpointError: they differ; the message names the first key.
    """
    try:
        meta = checkpoint.read_meta(path)
        made_with = stored_recipe(meta["recipe"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path} holds no recipe that can be read: use another run directory") from error
    processes = meta.get("processes", 1)
    # What a fork began with may have been trained on another machine: the rest is its own.
    if forking.TRAINED_WITH not in meta and processes != dist.world_size():
        raise CheckpointError(
            f"{path} was made by {processes} processes, now there are {dist.world_size()}: the rest would not be what"
            f" one training computes; start {processes} (torchrun --nproc_per_node {processes}), or use another run"
            " directory"
        )
    then, now = dict(determining(made_with, stage)), dict(determining(recipe, stage))
    for key in [*then, *now]:
        if then.get(key) != now.get(key):
            raise CheckpointError(
                f"{path} was made with {key}={then.get(key)}, the recipe now says {now.get(key)}:"
                " use another run directory, or remove the checkpoints of this one"
            )
