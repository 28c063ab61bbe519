"""Checkpoints of a run directory: written beside, synced to disk, then renamed.

    RUN/checkpoints/<stage>/step_00000040/  meta.json  model.safetensors  optim.pt
    RUN/checkpoints/<stage>/final/          meta.json  model.safetensors
    RUN/checkpoints/segment/best/           meta.json  model.safetensors  optim.pt   (engine.config.best)
    RUN/checkpoints/origin.json             of a forked run alone (engine.config.forking)

``meta.json`` can be read without torch and is the last file of a checkpoint to be written; a folder without it,
or with a temporary name, does not count. It holds size and SHA-256 of the other files: one that was damaged later is
found out before it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from engine.config.best import BEST, best_step
from engine.config.checkpoint_meta import CheckpointMeta
from engine.errors import CheckpointError, disk_full_text
from engine.files import is_plain_name, link, sync_folder, utf8_name, write_file
from engine.finite import refuse_infinite
from engine.layout import laid_out_as
from engine.run_folder import make_folder
from engine.unreadable import reason

FORMAT = 1
_STEP = re.compile(r"step_(\d{8,})")
_TEMPORARY, _DAMAGED = ".writing", ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int

    def meta(self) -> CheckpointMeta:
        """What was written beside the weights."""
        return read_meta(self.path)

    def kept(self) -> bool:
        """Whether it is kept for good."""
        try:
            return bool(self.meta().get("kept"))
        except CheckpointError:
            return False

    def best(self) -> int | None:
        """The step that was the best so far when it was written."""
        try:
            return best_step(self.meta())
        except CheckpointError:
            return None


def stage_folder(run_dir: Path, stage: str) -> Path:
    """Where the checkpoints of a stage lie."""
    return run_dir / "checkpoints" / stage


def step_folder(run_dir: Path, stage: str, step: int) -> Path:
    """Where the checkpoint after ``step`` steps of a stage lies."""
    return stage_folder(run_dir, stage) / f"step_{step:08d}"


def save_step(
    run_dir: Path,
    stage: str,
    step: int,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    meta: Mapping[str, object],
    keep: int = 2,
    keep_every: int = 0,
) -> Path:
    """Write the state after ``step`` steps and remove all but the newest ``keep`` step checkpoints.

    What one of these calls the best so far stays, too: should the newest be damaged, the one before it counts.

    Args:
        keep_every: those of steps that are multiples of it are never removed; 0 = none.

    Raises:
        CheckpointError: the disk is full; earlier checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save(optimiser.state_dict(), buffer)
    files: dict[str, bytes | memoryview] = {"model.safetensors": _weights(module), "optim.pt": buffer.getbuffer()}
    kept = bool(keep_every and step % keep_every == 0)
    path = _write(step_folder(run_dir, stage, step), files, {**meta, "stage": stage, "step": step, "kept": kept})
    several = step_checkpoints(run_dir, stage)
    _remove(several[:-keep], {best for newest in several[-keep:] if (best := newest.best()) is not None})
    return path


def _remove(several: Iterable[Checkpoint], best: Collection[int] = ()) -> None:
    """Remove step checkpoints, but for those that are kept for good and those of the steps ``best``."""
    for old in several:
        if old.step not in best and not old.kept():
            # Under a name that ``clean`` knows: of one that a killed process left half removed nobody would.
            leaving = old.path.with_name(f"{old.path.name}{_TEMPORARY}")
            with suppress(OSError):
                old.path.rename(leaving)
            for path in (leaving, old.path):
                shutil.rmtree(path, ignore_errors=True)


def change_meta(path: Path, changes: Mapping[str, object]) -> None:
    """Say something else of the state that a checkpoint holds; all of the changes are there or none.

    Raises:
        CheckpointError: the disk is full; the checkpoint is as it was.
    """
    draft = path / ".meta.json"
    try:
        write_file(draft, json.dumps({**read_meta(path), **changes}, indent=1).encode())
        draft.replace(path / "meta.json")
        sync_folder(path)
    except OSError as error:
        raise CheckpointError(disk_full_text(error, path, "the meta file of")) from error


def _put_best_beside(folder: Path, step: int) -> None:
    """Give the checkpoint of a step its lasting name: a folder of links, so that it takes no room of its own.

    Raises:
        CheckpointError: the disk is full; the step's own folder stays.
    """
    source, target = folder / f"step_{step:08d}", folder / BEST
    if not (source / "meta.json").is_file():
        return
    temporary = target.with_name(f"{target.name}{_TEMPORARY}")
    try:
        for old in (temporary, target):
            shutil.rmtree(old, ignore_errors=True)
        make_folder(temporary, 0o700)
        for file in source.iterdir():
            link(file, temporary / file.name)
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(disk_full_text(error, target, "the best checkpoint")) from error


def save_final(run_dir: Path, stage: str, module: nn.Module | None, meta: Mapping[str, object]) -> Path:
    """Write what a finished stage hands on; its step checkpoints are then removed, but for those kept for good.

    The one that ``meta`` calls the best gets its lasting name before: whenever the process dies, it has one of both.

    Raises:
        CheckpointError: the disk is full; the step checkpoints stay.
    """
    folder = stage_folder(run_dir, stage)
    best = best_step(meta)
    if best is not None:
        _put_best_beside(folder, best)
    files: dict[str, bytes | memoryview] = {} if module is None else {"model.safetensors": _weights(module)}
    path = _write(folder / "final", files, {**meta, "stage": stage})
    _remove(step_checkpoints(run_dir, stage))
    return path


def step_checkpoints(run_dir: Path, stage: str) -> list[Checkpoint]:
    """Complete step checkpoints of a stage, oldest first."""
    folder = stage_folder(run_dir, stage)
    if not folder.is_dir():
        return []
    found = []
    for entry in folder.iterdir():
        match = _STEP.fullmatch(entry.name)
        if match and (entry / "meta.json").is_file():
            found.append(Checkpoint(entry, int(match.group(1))))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def final_checkpoint(run_dir: Path, stage: str) -> Path | None:
    """The output of a finished stage, None if it has not finished."""
    path = stage_folder(run_dir, stage) / "final"
    return path if (path / "meta.json").is_file() else None


def newest_sound(run_dir: Path, stage: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest step checkpoint that is undamaged, and a sentence on each newer one, which is set aside."""
    problems: list[str] = []
    for found in reversed(step_checkpoints(run_dir, stage)):
        problem = damage(found.path)
        if not problem:
            return found, problems
        aside = found.path.with_name(f"{found.path.name}{_DAMAGED}")
        shutil.rmtree(aside, ignore_errors=True)
        found.path.rename(aside)
        problems.append(f"the checkpoint {found.path} is damaged ({problem}); it was set aside as {aside.name}")
    return None, problems


def damage(path: Path) -> str:
    """What is wrong with a checkpoint folder; "" if its files are those that were written."""
    try:
        files = read_meta(path)["files"]
        for name, (size, digest) in files.items():
            if not is_plain_name(name):
                return f"{name!r} is no name of a file in it"
            if (path / name).stat().st_size != size:
                return f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
            with (path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} has changed since it was written"
    except (OSError, CheckpointError, KeyError, ValueError, TypeError, AttributeError) as error:
        return _first_line(error)
    return ""


def read_meta(path: Path) -> CheckpointMeta:
    """The meta file of a checkpoint folder.

    Raises:
        CheckpointError: it is not readable.
    """
    file = path / "meta.json"
    try:
        meta: CheckpointMeta = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({_first_line(error)}); remove {path}") from None
    if not _is_object(meta):
        raise CheckpointError(f"{file} is no checkpoint's meta file; remove {path}")
    return meta


def _is_object(read: object) -> bool:
    return isinstance(read, dict)


def clean(run_dir: Path) -> None:
    """Remove what a killed process left: half-written checkpoints, and those of a stage that had just finished."""
    folder = run_dir / "checkpoints"
    for entry in folder.glob(f"*/*{_TEMPORARY}"):
        shutil.rmtree(entry, ignore_errors=True)
    for final in folder.glob("*/final/meta.json"):
        _remove(step_checkpoints(run_dir, final.parent.parent.name))


def load_step(checkpoint: Checkpoint, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Fill module and optimiser, strictly. The optimiser's settings stay those it was built with: a fork has its own.

    Raises:
        CheckpointError: the files are damaged or belong to another recipe.
    """
    load_module(checkpoint.path, module)
    file = checkpoint.path / "optim.pt"
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimiser.param_groups]
    try:
        kept = torch.load(file, map_location="cpu", weights_only=True)
        # Before it is loaded: by these PyTorch decides on which device AdamW counts its steps.
        for group, own in zip(kept["param_groups"], settings, strict=True):
            group.update(own)
        optimiser.load_state_dict(kept)
        _lay_out(optimiser)
    except Exception as error:
        raise CheckpointError(f"{file} cannot be loaded ({reason(error)}); remove {checkpoint.path}") from error


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Give an optimiser's state the memory order of its parameters, which fused kernels want: it keeps that of the
    device which it was saved on."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
                state[name] = laid_out_as(parameter, value)


def load_module(path: Path, module: nn.Module) -> None:
    """Fill a module from a checkpoint folder, strictly.

    Raises:
        CheckpointError: the file is damaged, belongs to another recipe, or holds NaN or infinities.
    """
    file = path / "model.safetensors"
    try:
        with utf8_name(file) as name:
            tensors = load_file(name)
            refuse_infinite(file, tensors, f"Take another one, or remove {path}.")
            module.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{file} cannot be loaded ({_first_line(error)}); remove {path}") from error


def _weights(module: nn.Module) -> bytes:
    tensors: dict[str, Tensor] = {
        name: value.detach().to("cpu").contiguous() for name, value in module.state_dict().items()
    }
    return to_safetensors(tensors)


def _write(target: Path, files: Mapping[str, bytes | memoryview], meta: Mapping[str, object]) -> Path:
    temporary = target.with_name(f"{target.name}{_TEMPORARY}")
    sums = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in files.items()}
    text = json.dumps({"format": FORMAT, **meta, "files": sums}, indent=1)
    try:
        make_folder(target.parent, 0o700)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for name, content in {**files, "meta.json": text.encode()}.items():
            write_file(temporary / name, content)
        sync_folder(temporary)
        if target.exists():
            # Only a re-done stage meets an older output of its own; a rename cannot replace a folder with files.
            shutil.rmtree(target)
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        needed = sum(len(content) for content in files.values()) / 2**20
        raise CheckpointError(disk_full_text(error, target, f"a checkpoint of {needed:.1f} MiB,")) from error
    return target


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
