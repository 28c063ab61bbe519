"""Taking a trained network elsewhere: the backbone as safetensors with a card, the segmenter by torch.export."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.checkpoint import final_checkpoint, load_module, read_meta
from engine.config.schema import Recipe
from engine.data.pipeline import GRAY_MEAN, IMAGENET_MEAN, IMAGENET_STD
from engine.errors import CheckpointError
from engine.models import build_backbone, build_head
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
    recipe = Recipe.model_validate(meta["recipe"])
    # What a run started from is of no account: the stage's own weights are read.
    config = recipe.model.model_copy(update={"weights": ""})
    backbone = build_backbone(config)
    load_backbone(backbone, folder / "model.safetensors")
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, out)
    card = {
        "format": "mmtui backbone, schema 1",
        "backbone": config.backbone,
        "width": config.width,
        "dilated": config.dilated,
        "input": input_card(config.input),
        "stage": stage,
        "classes": meta.get("classes", []),
        "recipe": meta["recipe"],
        "torch": meta.get("torch"),
        "run": str(run_dir),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    Path(f"{out}.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def input_card(colour: str) -> dict[str, Any]:
    """How pixels 0..255 become network input."""
    if colour == "gray":
        return {"channels": "mean of R, G, B", "scale": 1 / 255, "mean": [GRAY_MEAN], "std": [1.0]}
    return {"channels": "RGB", "scale": 1 / 255, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}


def export_segmenter(run_dir: Path, out: Path, side: int = 256) -> None:
    """Write the segmentation network as a ``torch.export`` program: (1, C, side, side) to scores (1, K, side, side).

    Raises:
        CheckpointError: the run has not finished its segment stage.
    """
    folder = final_checkpoint(run_dir, "segment")
    if folder is None:
        raise CheckpointError(f"{run_dir} has no finished segment stage: there is no segmenter to export yet")
    meta = read_meta(folder)
    recipe = Recipe.model_validate(meta["recipe"])
    config = recipe.model.model_copy(update={"weights": ""})
    model = build_head(build_backbone(config), len(meta["classes"]), config)
    load_module(folder, model)
    example = torch.zeros(1, 1 if config.input == "gray" else 3, side, side)
    program = torch.export.export(_Scores(model).eval(), (example,))
    torch.export.save(program, out)


class _Scores(nn.Module):
    """Scores of every pixel, as one traceable function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self.model, "sparse", False):
            dense: Tensor = self.model(x)
            return dense
        batch, _, height, width = x.shape
        ys = torch.arange(height).repeat_interleave(width).expand(batch, -1)
        xs = torch.arange(width).repeat(height).expand(batch, -1)
        scores: Tensor = self.model(x, ys, xs)
        return scores.transpose(1, 2).reshape(batch, -1, height, width)


def _last_stage(run_dir: Path) -> tuple[str, Path]:
    for stage in STAGES:
        folder = final_checkpoint(run_dir, stage)
        if folder is not None:
            return stage, folder
    raise CheckpointError(f"{run_dir} has no finished training stage: there are no weights to export yet")
