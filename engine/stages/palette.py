"""Colours of class indices: the PASCAL VOC palette, by its bit rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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


def to_palette_image(classes: NDArray[np.uint8]) -> Image.Image:
    """Palette image of class indices uint8 (H, W)."""
    image = Image.fromarray(classes, mode="P") if classes.ndim == 2 else Image.fromarray(classes)
    image.putpalette(voc_palette())
    return image
