"""Colours of class indices: PASCAL VOC's by its bit rule, Cityscapes' by its official label table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.data import cityscapes
from engine.data.values import VOID

CITYSCAPES = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (102, 102, 156),
    (190, 153, 153),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (152, 251, 152),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 0, 70),
    (0, 60, 100),
    (0, 80, 100),
    (0, 0, 230),
    (119, 11, 32),
)
"""RGB of trainIds 0 to 18; void is black."""


def voc_palette() -> list[int]:
    """256 RGB triples, flat: the bits of the index spread over the high bits of R, G and B."""
    palette = []
    for index in range(256):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        palette += color
    return palette


def palette_of(classes: Sequence[str]) -> list[int]:
    """256 RGB triples, flat, for data of these classes: Cityscapes' for its 19, else VOC's."""
    palette = voc_palette()
    if tuple(classes) == cityscapes.CLASSES:
        for index, color in enumerate(CITYSCAPES):
            palette[3 * index : 3 * index + 3] = color
        palette[3 * VOID :] = (0, 0, 0)
    return palette


def to_palette_image(classes: NDArray[np.uint8], palette: Sequence[int] | None = None) -> Image.Image:
    """Palette image of class indices uint8 (H, W); its pixel values are the indices. Without a palette, VOC's."""
    image = Image.fromarray(classes)
    image.putpalette(voc_palette() if palette is None else list(palette))
    return image


def overlay(picture: NDArray[np.uint8], classes: NDArray[np.uint8], palette: Sequence[int]) -> Image.Image:
    """Colours of class indices (H, W) over an RGB picture (H, W, 3), both uint8: the mean of both, rounded up."""
    colours = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)[classes]
    return Image.fromarray(((picture.astype(np.uint16) + colours + 1) // 2).astype(np.uint8))
