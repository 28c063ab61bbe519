"""Files of an evaluation: index masks, overlays and the pictures for the screen. Each appears whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from engine.config.evaluation import EvaluateConfig
from engine.data.dataset import SegmentationData
from engine.json_types import JsonObject
from engine.run_folder import make_folder
from engine.stages.palette import overlay, palette_of, to_palette_image

Pixels = NDArray[np.uint8]


class PredictionFiles:
    """Writes what ``evaluate`` asks for below the run directory.

    ``predictions/NAME.png`` and ``predictions/truth/NAME.png``: palette images whose pixel values are class indices
    (truth: 255 = void). ``overlays/NAME.png``: colours of the predicted classes over the image. ``images/NNN_*.png``:
    image, truth and prediction (one for each evaluation) of the first ``show_images`` images. A ``/`` in a name
    becomes ``__``.

    Args:
        run_dir: the run's directory.
        data: the evaluated split.
        config: save_predictions, overlays and show_images.
        moment: stage and step that the network is of: part of the names of shown predictions.
        final: whether this is the run's last evaluation; only that one's predictions and overlays are kept.

    Attributes:
        sizes: every image's own height and width.
    """

    def __init__(self, run_dir: Path, data: SegmentationData, config: EvaluateConfig, final: bool, moment: str) -> None:
        self.run_dir, self.data, self.config, self.final, self.moment = run_dir, data, config, final, moment
        self.palette = palette_of(data.classes)
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in data.sizes.tolist()]

    @property
    def folder(self) -> str:
        """Where the predictions go, relative to the run directory; "" if they are not kept."""
        return "predictions" if self.final and self.config.save_predictions else ""

    def save(self, start: int, images: Tensor, labels: Tensor, prediction: Tensor) -> list[JsonObject]:
        """Write the files of a batch that begins with image ``start``; values of its ``image`` events.

        Args:
            images: uint8 (B, 3, H, W).
            labels: uint8 (B, H, W).
            prediction: class indices (B, H, W).
        """
        shown: list[JsonObject] = []
        overlays = self.final and self.config.overlays
        count = len(images) if self.folder or overlays else min(len(images), self.config.show_images - start)
        if count <= 0:
            return shown
        with_pictures = overlays or start < self.config.show_images
        pictures = _on_host(images[:count]) if with_pictures else None
        truths, predictions = _on_host(labels[:count]), _on_host(prediction[:count])
        for offset, (truth, classes) in enumerate(zip(truths, predictions, strict=True)):
            index = start + offset
            show = index < self.config.show_images
            height, width = self.sizes[index]
            truth, classes = truth[:height, :width], classes[:height, :width]
            found = truths[:0] if pictures is None else pictures[offset, :, :height, :width].transpose(1, 2, 0)
            picture = np.ascontiguousarray(found)
            name = self.data.names[index].replace("/", "__")
            if show:
                shown.append(self._triple(index, name, picture, truth, classes))
            self._keep(name, picture, truth, classes)
        return shown

    def _keep(self, name: str, picture: Pixels, truth: Pixels, classes: Pixels) -> None:
        if self.folder:
            folder = self.run_dir / self.folder
            write_png(folder / f"{name}.png", to_palette_image(classes, self.palette))
            write_png(folder / "truth" / f"{name}.png", to_palette_image(truth, self.palette))
        if self.final and self.config.overlays:
            write_png(self.run_dir / "overlays" / f"{name}.png", overlay(picture, classes, self.palette))

    def _triple(self, index: int, name: str, picture: Pixels, truth: Pixels, classes: Pixels) -> JsonObject:
        """Image, truth and prediction of one image, for the screen; predictions of earlier evaluations stay."""
        pictures: Mapping[str, Image.Image] = {
            "image": Image.fromarray(picture),
            "truth": to_palette_image(truth, self.palette),
            "prediction": to_palette_image(classes, self.palette),
        }
        paths = {kind: f"images/{index:03d}_{kind}.png" for kind in pictures}
        paths["prediction"] = f"images/{index:03d}_prediction_{self.moment}.png"
        for kind, image in pictures.items():
            write_png(self.run_dir / paths[kind], image)
        return {"index": index, "name": name, "kind": "validation", **paths}


def _on_host(pixels: Tensor) -> Pixels:
    """Bytes of a whole batch: one copy, of an eighth of what class indices take."""
    values: Pixels = pixels.to(torch.uint8).cpu().numpy()
    return values


def write_png(path: Path, image: Image.Image) -> None:
    """Write beside, then rename: a reader never sees half a picture.

    Raises:
        OSError: the disk does not take it.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.writing")
    image.save(temporary, format="PNG")
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """The same for text."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
