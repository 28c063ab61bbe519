"""How a run is measured at its end, and on the way."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.file_names import FilePath
from engine.config.section import Section


class EvaluateConfig(Section):
    """Evaluation on the validation split: one int64 confusion matrix over the whole set."""

    batch_size: int = Field(8, ge=1, description="images per forward pass")
    stride: int = Field(1, ge=1, le=16, description="hypercolumn grid step; scores are upsampled to full size")
    protocol: Literal["plain", "fit", "windows"] = Field(
        "plain",
        description="plain: each image as it is; fit: resized to fit a square, padded, classes back by nearest (VOC);"
        " windows: overlapping squares, class probabilities summed (Cityscapes)",
    )
    side: int = Field(512, ge=16, le=4096, description="side of the square of fit and windows, pixels")
    window_stride: int = Field(256, ge=8, description="distance of neighbouring windows, pixels")
    scales: tuple[float, ...] = Field((1.0,), min_length=1, description="resize factors whose probabilities are summed")
    flip: bool = Field(False, description="add the mirrored image's probabilities")
    ensemble: tuple[FilePath, ...] = Field(
        (),
        description="run directories whose segmentation networks' probabilities are added to this run's;"
        " RUN_DIR@best: of its best checkpoint",
    )
    checkpoint: Literal["final", "best"] = Field(
        "final", description="which network: final, of the last step, or the best one that segment.keep_best has kept"
    )
    overlays: bool = Field(False, description="also write each prediction as colours over its image")
    save_predictions: bool = Field(True, description="write predicted index masks as PNG")
    show_images: int = Field(4, ge=0, description="how many image/truth/prediction triples are kept for the screen")
