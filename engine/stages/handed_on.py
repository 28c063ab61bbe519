"""The segmentation network that a run hands on: that of its last step, or of its best checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.checkpoint import damage, final_checkpoint, load_module, read_meta
from engine.config.best import BEST, STAGE, best_folder
from engine.config.checkpoint_meta import CheckpointMeta
from engine.errors import CheckpointError
from engine.files import utf8_name
from engine.finite import refuse_infinite
from engine.json_types import Json
from engine.stages.ema import EMA, TRAINED


def load_network(run_dir: Path, model: nn.Module, *, best: bool = False) -> dict[str, str | int]:
    """Fill a segmentation network, strictly; returns which one it is, for events and cards.

    Args:
        best: that of the best checkpoint instead of the last step's.

    Returns:
        ``weights`` (``trained`` or ``ema``); of the best also ``checkpoint`` ("best") and ``checkpoint_step``.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    if best:
        folder = best_folder(run_dir)
        return load_from_step(folder, model)
    final = final_checkpoint(run_dir, STAGE)
    if final is None:
        raise CheckpointError(f"{run_dir} has no finished stage {STAGE}: there is no segmentation network yet")
    load_module(final, model)
    return {"weights": str(read_meta(final).get("weights", TRAINED))}


def load_from_step(folder: Path, model: nn.Module) -> dict[str, str | int]:
    """Fill a network from a checkpoint inside the stage, which holds what it trained with beside it.

    Raises:
        CheckpointError: it is damaged.
    """
    meta, problem = read_meta(folder), damage(folder)
    if problem:
        raise CheckpointError(f"the best checkpoint {folder} is damaged ({problem})")
    file, averaged = folder / "model.safetensors", bool(_segment(meta).get("ema"))
    try:
        with utf8_name(file) as name:
            tensors = _handed_on(load_file(name), meta)
        refuse_infinite(file, tensors, "Take another one.")
        model.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file} cannot be loaded ({first})") from error
    return {"weights": EMA if averaged else TRAINED, "checkpoint": BEST, "checkpoint_step": int(meta["step"])}


def _handed_on(tensors: Mapping[str, Tensor], meta: CheckpointMeta) -> dict[str, Tensor]:
    """Of all that the stage trains and averages, the network that it would hand on, by its own names."""
    section = _segment(meta)
    prefix = ("average." if section.get("ema") else "") + ("segmenter." if section.get("auxiliary_head") else "")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _segment(meta: CheckpointMeta) -> Mapping[str, Json]:
    """The recipe's section of the stage."""
    return meta["recipe"][STAGE]
