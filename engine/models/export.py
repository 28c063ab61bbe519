"""Taking a trained network elsewhere: the backbone as safetensors, the segmenter by torch.export, each with a card."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from engine.checkpoint import final_checkpoint, load_module, read_meta
from engine.config.schema import ModelConfig, Recipe, stored_recipe
from engine.errors import CheckpointError, RecipeError
from engine.files import write_file
from engine.models import Segmenter, build_backbone, build_head
from engine.models.heads import HypercolumnSegmenter
from engine.models.inputs import input_card
from engine.models.weights import load_backbone

STAGES = ("segment", "match", "proxy")


def export_backbone(run_dir: Path, out: Path) -> dict[str, Any]:
    """Write the backbone of a run's last training stage to ``out`` and its card to ``out`` + ``.json``.

    Returns:
        The card: architecture, input normalisation, stage, recipe, classes, SHA-256.

    Raises:
        CheckpointError: the run has finished no training stage.
    """
    stage, folder = _last_stage(run_dir)
    meta = read_meta(folder)
    recipe = _recipe_of(folder, meta)
    # What a run started from is of no account: the stage's own weights are read.
    config = recipe.model.model_copy(update={"weights": ""})
    backbone = build_backbone(config)
    load_backbone(backbone, folder / "model.safetensors")
    tensors = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    content = save(tensors, {"input": config.input})
    return _write(out, content, {"format": "mmtui backbone, schema 1", **_card(run_dir, stage, meta, config)})


def _card(run_dir: Path, stage: str, meta: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
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


def _write(out: Path, content: bytes | memoryview, card: dict[str, Any]) -> dict[str, Any]:
    """Write a file, whole or not at all, and its card; returns the card with the file's SHA-256."""
    card = {**card, "sha256": hashlib.sha256(content).hexdigest()}
    for path, part in ((out, content), (Path(f"{out}.json"), json.dumps(card, indent=1).encode() + b"\n")):
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write_file(beside, part)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return card


def export_segmenter(run_dir: Path, out: Path, side: int = 256) -> dict[str, Any]:
    """Write the segmentation network as a ``torch.export`` program and its card to ``out`` + ``.json``.

    The program takes (B, C, side, side), any B >= 1, and gives scores (B, K, side, side).

    Returns:
        The card: as that of a backbone, with head and side.

    Raises:
        CheckpointError: the run has not finished its segment stage.
        RecipeError: the network cannot compute an input of this side.
    """
    folder = final_checkpoint(run_dir, "segment")
    if folder is None:
        raise CheckpointError(f"{run_dir} has no finished segment stage: there is no segmenter to export yet")
    meta = read_meta(folder)
    recipe = _recipe_of(folder, meta)
    config = recipe.model.model_copy(update={"weights": ""})
    model = build_head(build_backbone(config), len(meta["classes"]), config)
    load_module(folder, model)
    buffer = io.BytesIO()
    torch.export.save(traced(model.eval(), 1 if config.input == "gray" else 3, side), buffer)
    card = {**_card(run_dir, "segment", meta, config), "head": config.head, "side": side}
    return _write(out, buffer.getbuffer(), {"format": "mmtui segmenter, schema 1", **card})


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


def _recipe_of(folder: Path, meta: Mapping[str, Any]) -> Recipe:
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
