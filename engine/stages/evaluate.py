"""Evaluation on the validation split: one int64 confusion matrix over the whole set (PAPER 2.5)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from engine.config.schema import EvaluateConfig
from engine.data.dataset import SegmentationData
from engine.data.pipeline import normalise
from engine.metrics import ConfusionMatrix
from engine.models.heads import HypercolumnSegmenter
from engine.stages.base import Context
from engine.stages.palette import to_palette_image

PROGRESS_SECONDS = 0.5
"""Time between progress events."""


def evaluate(context: Context, model: HypercolumnSegmenter, config: EvaluateConfig, *, final: bool) -> ConfusionMatrix:
    """Predict the validation split and report its confusion matrix.

    The model's mode is restored and no random number is drawn, so training goes on as if nothing had happened.

    Args:
        final: whether this is the run's last evaluation, whose predictions are saved.

    Raises:
        StopRequestedError: the run was asked to leave; nothing was reported.
    """
    data = context.data("val")
    matrix = ConfusionMatrix(data.num_classes)
    was_training = model.training
    model.eval()
    told = time.monotonic()
    try:
        for start in range(0, len(data), config.batch_size):
            stop = min(start + config.batch_size, len(data))
            prediction = predict(context, model, data.images[start:stop], config.stride)
            target = data.labels[start:stop].long()
            matrix.update(prediction, target)
            _save(context, data, start, prediction, config, final)
            context.leave_if_asked()
            if time.monotonic() - told >= PROGRESS_SECONDS:
                context.progress("evaluating", stop, len(data))
                told = time.monotonic()
    finally:
        model.train(was_training)
    _report(context, data, matrix, "predictions" if final and config.save_predictions else "")
    return matrix


@torch.inference_mode()
def predict(context: Context, model: HypercolumnSegmenter, images: Tensor, stride: int) -> Tensor:
    """Class of every pixel, int64 (B, H, W), of images uint8 (B, 3, H, W)."""
    with context.autocast():
        logits = model.dense_logits(normalise(images, context.recipe.model.input), stride)
    return logits.argmax(dim=1)


def _report(context: Context, data: SegmentationData, matrix: ConfusionMatrix, predictions: str) -> None:
    values = {
        "matrix": matrix.matrix.tolist(),
        "classes": list(data.classes),
        "split": "val",
        "images": len(data),
        "predictions": predictions,
    }
    context.writer.emit("confusion", values)


def _save(
    context: Context, data: SegmentationData, start: int, prediction: Tensor, config: EvaluateConfig, final: bool
) -> None:
    for offset, classes in enumerate(prediction.to(torch.uint8).cpu()):
        index = start + offset
        height, width = data.sizes[index].tolist()
        name = data.names[index].replace("/", "__")
        classes = classes[:height, :width]
        if index < config.show_images:
            _save_triple(context, data, index, name, classes)
        if final and config.save_predictions:
            folder = context.run_dir / "predictions"
            _write_png(folder / f"{name}.png", Image.fromarray(classes.numpy()))
            truth = data.labels[index, :height, :width].cpu().numpy()
            _write_png(folder / "truth" / f"{name}.png", Image.fromarray(truth))


def _save_triple(context: Context, data: SegmentationData, index: int, name: str, classes: Tensor) -> None:
    """Image, truth and prediction of one validation image, for the screen; the newest replaces the last."""
    folder = context.run_dir / "images"
    height, width = classes.shape
    picture = data.images[index, :, :height, :width].permute(1, 2, 0).cpu().numpy()
    truth = data.labels[index, :height, :width].cpu().numpy()
    pictures = {
        "image": Image.fromarray(picture),
        "truth": to_palette_image(truth),
        "prediction": to_palette_image(classes.numpy()),
    }
    paths = {kind: f"images/{index:03d}_{kind}.png" for kind in pictures}
    for kind, image in pictures.items():
        _write_png(context.run_dir / paths[kind], image)
    assert folder.is_dir()
    context.writer.emit("image", {"index": index, "name": name, **paths})


def _write_png(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    image.save(temporary, format="PNG")
    temporary.replace(path)


class EvaluateStage:
    """Evaluates the segmentation network once; one step."""

    name = "evaluate"
    total_steps = 1
    optimiser = None

    def __init__(self, context: Context, config: EvaluateConfig) -> None:
        from engine.checkpoint import final_checkpoint, load_module
        from engine.stages.segment import build_segmenter

        self.context, self.config = context, config
        self.images_per_step = len(context.data("val"))
        self.model = build_segmenter(context, context.data("val").num_classes)
        weights = final_checkpoint(context.run_dir, "segment")
        assert weights is not None, "evaluate comes after segment"
        load_module(weights, self.model)
        self.module: nn.Module = context.place(self.model)
        self.result: dict[str, Any] = {}

    def step(self, step: int) -> dict[str, Tensor | float]:
        matrix = evaluate(self.context, self.model, self.config, final=True)
        self.result = {"miou": 100 * matrix.mean_iou(), "pixel_accuracy": 100 * matrix.pixel_accuracy()}
        return dict(self.result)

    def observe(self, done: int) -> dict[str, float]:
        return {}

    def output(self) -> None:
        return None

    def summary(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.result))  # type: ignore[no-any-return]
