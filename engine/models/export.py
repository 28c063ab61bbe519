"""Taking a trained network elsewhere: the backbone as safetensors, the segmenter by torch.export, each with a card."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from engine.checkpoint import final_checkpoint, read_meta
from engine.config.best import STAGE, best_folder
from engine.config.checkpoint_meta import CheckpointMeta
from engine.config.schema import ModelConfig, Recipe, stored_recipe
from engine.errors import CheckpointError, RecipeError
from engine.json_types import Json
from engine.models import Segmenter, build_backbone, build_head
from engine.models.foreign import NET
from engine.models.heads import HypercolumnSegmenter
from engine.models.inputs import input_card
from engine.models.timm_backbone import TimmBackbone
from engine.models.timm_inputs import header
from engine.models.weights import load_backbone
from engine.outputs import OutputExistsError, obstacle, write_bytes
from engine.stages.handed_on import load_from_step, load_network

STAGES = ("segment", "match", "proxy")


def export_backbone(run_dir: Path, out: Path, *, best: bool = False, force: bool = False) -> dict[str, object]:
    """Write the backbone of a run's last training stage to ``out`` and its card to ``out`` + ``.json``.

    Args:
        best: that of the best checkpoint of the stage segment instead.
        force: also over files that no export has made.

    Returns:
        The card: architecture, input normalisation, stage, recipe, classes, SHA-256.

    Raises:
        CheckpointError: the run has finished no training stage, or has no best checkpoint.
        OutputExistsError: another's file is there.
    """
    stage, folder = (STAGE, best_folder(run_dir)) if best else _last_stage(run_dir)
    meta = read_meta(folder)
    recipe = _recipe_of(folder, meta)
    # What a run started from is of no account: the stage's own weights are read.
    config = recipe.model.model_copy(update={"weights": ""})
    backbone = build_backbone(config)
    network: Mapping[str, Json] = {}
    if best:
        network = load_from_step(folder, build_head(backbone, len(meta["classes"]), config))
    else:
        load_backbone(backbone, folder / "model.safetensors")
    # timm's networks go by timm's own names.
    own = NET if isinstance(backbone, TimmBackbone) else ""
    tensors = {name.removeprefix(own): value.contiguous() for name, value in backbone.state_dict().items()}
    told = header(backbone) if isinstance(backbone, TimmBackbone) else {}
    content = save(tensors, {"input": config.input, **told})
    card: dict[str, object] = {"format": "mmtui backbone, schema 1", **_card(run_dir, stage, meta, config), **network}
    if isinstance(backbone, TimmBackbone):
        card |= {"input": backbone.input_values(), "timm": meta.get("timm")}
    return _write(out, content, card, force=force)


def _card(run_dir: Path, stage: str, meta: CheckpointMeta, config: ModelConfig) -> dict[str, object]:
    return {
        "backbone": config.backbone,
        "width": config.width,
        "dilated": config.dilated,
        "input": input_card(config.input),
        "stage": stage,
        "classes": meta.get("classes", []),
        "recipe": meta["recipe"],
        "torch": meta.get("torch"),
        "run": str(run_dir),
    }


def refuse_others(out: Path, *, force: bool = False) -> None:
    """Before anything is computed: neither the file nor its card may take the place of what no export has made.

    Raises:
        OutputExistsError: one of them is there, is not an earlier export or was changed since, and not ``force``.
        OSError: it cannot be known what is there.
    """
    for path, is_ours in ((out, _is_export), (_card_of(out), _is_card)):
        problem = obstacle(path, is_ours, force=force)
        if problem:
            raise OutputExistsError(f"{problem}: write another name" + ("" if force else ", or --force"))


def _card_of(out: Path) -> Path:
    return Path(f"{out}.json")


def _is_export(path: Path) -> bool:
    """Whether the card beside a file says that an export made it, and has its SHA-256."""
    try:
        digest = json.loads(_card_of(path).read_bytes())["sha256"]
        with path.open("rb") as file:
            return _is_card(_card_of(path)) and hashlib.file_digest(file, "sha256").hexdigest() == digest
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_card(path: Path) -> bool:
    try:
        return str(json.loads(path.read_bytes())["format"]).startswith(("mmtui backbone,", "mmtui segmenter,"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _write(out: Path, content: bytes | memoryview, card: dict[str, object], *, force: bool) -> dict[str, object]:
    """Write a file, whole or not at all, and its card; returns the card with the file's SHA-256."""
    card = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    # Looked at again: computing took a while. What comes between here and the end is not written over either.
    refuse_others(out, force=force)
    for path, part in ((out, content), (_card_of(out), json.dumps(card, indent=1).encode() + b"\n")):
        write_bytes(path, part, overwrite=force or path.exists())
    return card


def export_segmenter(
    run_dir: Path, out: Path, side: int = 256, *, best: bool = False, force: bool = False
) -> dict[str, object]:
    """Write the segmentation network as a ``torch.export`` program and its card to ``out`` + ``.json``.

    The program takes (B, C, side, side), any B >= 1, and gives scores (B, K, side, side).

    Args:
        best: the network of the best checkpoint instead of the last step's.

    Returns:
        The card: as that of a backbone, with head and side.

    Raises:
        CheckpointError: the run has not finished its segment stage, or has no best checkpoint.
        RecipeError: the network cannot compute an input of this side.
        OutputExistsError: another's file is there.
    """
    folder = best_folder(run_dir) if best else final_checkpoint(run_dir, STAGE)
    if folder is None:
        raise CheckpointError(f"{run_dir} has no finished segment stage: there is no segmenter to export yet")
    meta = read_meta(folder)
    recipe = _recipe_of(folder, meta)
    config = recipe.model.model_copy(update={"weights": ""})
    model = build_head(build_backbone(config), len(meta["classes"]), config)
    network = load_network(run_dir, model, best=best)
    buffer = io.BytesIO()
    torch.export.save(traced(model.eval(), 1 if config.input == "gray" else 3, side), buffer)
    card: dict[str, object] = {**_card(run_dir, STAGE, meta, config), "head": config.head, "side": side, **network}
    return _write(out, buffer.getbuffer(), {"format": "mmtui segmenter, schema 1", **card}, force=force)


def traced(model: Segmenter, channels: int, side: int) -> torch.export.ExportedProgram:
    """The network as a program for images of one side, any number of them.

    Raises:
        RecipeError: the network cannot compute an input of this side.
    """
    # Of one image torch.export would conclude that there always is one.
    example = torch.zeros(2, channels, side, side)
    scores = _Scores(model).eval()
    try:
        with torch.no_grad():
            scores(example[:1])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"--side {side}: the network cannot compute such an image ({reason}); write more") from None
    return torch.export.export(scores, (example,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))


class _Scores(nn.Module):
    """Scores of every pixel, as one traceable function."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model.dense_scores(x) if isinstance(self.model, HypercolumnSegmenter) else self.model(x)
        return scores


def _recipe_of(folder: Path, meta: CheckpointMeta) -> Recipe:
    """The recipe that a checkpoint was made with.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return stored_recipe(meta["recipe"])
    except (KeyError, ValidationError):
        raise CheckpointError(f"{folder} holds no recipe that this version can read: export it with its own") from None


def _last_stage(run_dir: Path) -> tuple[str, Path]:
    for stage in STAGES:
        folder = final_checkpoint(run_dir, stage)
        if folder is not None:
            return stage, folder
    raise CheckpointError(f"{run_dir} has no finished training stage: there are no weights to export yet")
