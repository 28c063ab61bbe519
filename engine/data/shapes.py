"""``shapes``: procedural segmentation data with real structure, so that everything runs with nothing downloaded.

Classes come in pairs that share one colour distribution and differ only in form or texture (disc and ring,
horizontal and vertical stripes, checker and dots, cross and triangle), as buses and cars do in the paper's
figure 1. The background reuses the objects' colours in blobs and diagonal bands. Objects overlap, light falls off
across the image, sensors are noisy, and a void border surrounds every object as in PASCAL VOC. A classifier that
sees colours alone is therefore lost; one that sees texture and form is not.

Every image is a pure function of (data_seed, split, index).
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config.schema import ShapesData
from engine.data.source import Source
from engine.data.values import VOID, Progress

Float = NDArray[np.floating]
Bool = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

SPLIT_IDS = {"train": 0, "val": 1, "unlabelled": 2}


@dataclass(frozen=True)
class Frame:
    """Pixel coordinates relative to an object's centre, and its size, all in pixels; float32 (H, W)."""

    dy: Float
    dx: Float
    radius: float
    unit: float
    phase: tuple[float, float]


def _disc(f: Frame) -> Bool:
    return f.dy**2 + f.dx**2 <= f.radius**2


def _ring(f: Frame) -> Bool:
    distance = f.dy**2 + f.dx**2
    return (distance <= f.radius**2) & (distance >= (0.5 * f.radius) ** 2)


def _square(f: Frame) -> Bool:
    side = 0.85 * f.radius
    return (np.abs(f.dy) <= side) & (np.abs(f.dx) <= side)


def _cross(f: Frame) -> Bool:
    arm = 0.34 * f.radius
    inside = (np.abs(f.dy) <= f.radius) & (np.abs(f.dx) <= f.radius)
    return inside & ((np.abs(f.dy) <= arm) | (np.abs(f.dx) <= arm))


def _triangle(f: Frame) -> Bool:
    height = 0.9 * f.radius
    return (np.abs(f.dy) <= height) & (np.abs(f.dx) <= (f.dy + height) * 0.55)


def _plain(f: Frame) -> Float:
    return np.full_like(f.dy, 0.5)


def _stripes_across(f: Frame) -> Float:
    return _wave(f.dy / f.unit + f.phase[0])


def _stripes_upright(f: Frame) -> Float:
    return _wave(f.dx / f.unit + f.phase[1])


def _checker(f: Frame) -> Float:
    cell: Float = np.floor(f.dy / f.unit + f.phase[0]) + np.floor(f.dx / f.unit + f.phase[1])
    return np.remainder(cell, 2).astype(np.float32)


def _dots(f: Frame) -> Float:
    y = (f.dy / f.unit + f.phase[0]) % 1.0 - 0.5
    x = (f.dx / f.unit + f.phase[1]) % 1.0 - 0.5
    return (y**2 + x**2 <= 0.16).astype(np.float32)


def _wave(turns: Float) -> Float:
    high: Bool = np.sin(2 * np.pi * turns) > 0
    return high.astype(np.float32)


@dataclass(frozen=True)
class Kind:
    """A foreground class: what it is called, its outline, its texture (0..1 between two tones), its palette."""

    name: str
    outlines: tuple[Callable[[Frame], Bool], ...]
    texture: Callable[[Frame], Float]
    palette: int


KINDS = (
    Kind("disc", (_disc,), _plain, 0),
    Kind("ring", (_ring,), _plain, 0),
    Kind("stripes_across", (_disc, _square), _stripes_across, 1),
    Kind("stripes_upright", (_disc, _square), _stripes_upright, 1),
    Kind("checker", (_disc, _square), _checker, 2),
    Kind("dots", (_disc, _square), _dots, 2),
    Kind("cross", (_cross,), _plain, 3),
    Kind("triangle", (_triangle,), _plain, 3),
)
PALETTE_HUES = (0.02, 0.15, 0.38, 0.62)
CLASSES = ("background", *(kind.name for kind in KINDS))
PAIRS = tuple((i, i + 1) for i in range(1, len(CLASSES), 2))
"""Classes that share one colour distribution."""


def class_names(config: ShapesData) -> tuple[str, ...]:
    """The class names, background first."""
    return CLASSES


def source(config: ShapesData, split: str) -> Source:
    """What ``build_data`` draws; the training split also holds the unlabelled images."""
    count = config.train if split == "train" else config.val
    extra = config.unlabelled if split == "train" else 0

    def read(index: int) -> tuple[Bytes, Bytes]:
        return draw(config, split, index) if index < count else draw(config, "unlabelled", index - count)

    def digest(_progress: Progress | None) -> str:
        return hashlib.sha256(f"{split}/{config.model_dump_json()}".encode()).hexdigest()

    return Source(
        split=split,
        what=f"data.kind shapes, split {split} ({count + extra} images of {config.height}x{config.width})",
        doing=f"drawing {split} images",
        advice=f"or lower data.{split}, data.height or data.width",
        names=[f"{split}_{index:05d}" for index in range(count)],
        classes=CLASSES,
        sizes=[(config.height, config.width)] * count,
        read=read,
        digest=digest,
        unlabelled=extra,
    )


def draw(config: ShapesData, split: str, index: int) -> tuple[Bytes, Bytes]:
    """One image uint8 (H, W, 3), RGB, and its labels uint8 (H, W), 255 = void."""
    rng = np.random.default_rng([config.data_seed, SPLIT_IDS[split], index])
    height, width = config.height, config.width
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = _background(rng, y, x)
    labels = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(config.objects[0], config.objects[1] + 1)):
        _paint_object(rng, picture, labels, y, x)
    picture *= _light(rng, y / height, x / width)[..., None]
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(0.02, 0.06)
    if config.void_width:
        labels = _with_void_border(labels, config.void_width)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), labels


def _tones(rng: np.random.Generator, palette: int) -> tuple[Float, Float]:
    """Two tones of one palette, in random order: what pairs of classes share."""
    hue = PALETTE_HUES[palette] + rng.normal(0, 0.025)
    saturation = rng.uniform(0.45, 0.85)
    values = (rng.uniform(0.35, 0.5), rng.uniform(0.7, 0.95))
    pair = [np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32) for value in values]
    if rng.random() < 0.5:
        pair.reverse()
    return pair[0], pair[1]


def _background(rng: np.random.Generator, y: Float, x: Float) -> Float:
    """Blobs in grey and in the objects' palettes, crossed by soft diagonal bands; float32 (H, W, 3)."""
    scale = min(y.shape)
    layers = [np.full(3, rng.uniform(0.3, 0.7), np.float32)]
    layers += [_tones(rng, palette)[rng.integers(2)] for palette in rng.permutation(len(PALETTE_HUES))[:3]]
    fields = [_smooth_field(rng, y / scale, x / scale) for _ in layers]
    choice = np.argmax(np.stack(fields), axis=0)
    picture = np.stack(layers)[choice]
    slope = rng.choice((-1.0, 1.0)) * rng.uniform(0.6, 1.6)
    period = rng.uniform(0.08, 0.2) * scale
    bands = np.sin(2 * np.pi * (y + slope * x) / period + rng.uniform(0, 6.28))
    strength = 0.12 * np.clip(_smooth_field(rng, y / scale, x / scale), 0, 1)
    result: Float = picture * (1 + strength * bands).astype(np.float32)[..., None]
    return result


def _smooth_field(rng: np.random.Generator, y: Float, x: Float) -> Float:
    """A random field of a few waves, about unit variance; coordinates in image sides."""
    field = np.zeros_like(y)
    for _ in range(4):
        angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 3.0)
        wave_y, wave_x = 2 * np.pi * frequency * np.sin(angle), 2 * np.pi * frequency * np.cos(angle)
        field += np.sin(wave_y * y + wave_x * x + rng.uniform(0, 2 * np.pi), dtype=np.float32)
    return field / np.float32(np.sqrt(2))


def _paint_object(rng: np.random.Generator, picture: Float, labels: Bytes, y: Float, x: Float) -> None:
    """Paint one object over what is there, in the image and in the labels."""
    height, width = labels.shape
    which = int(rng.integers(len(KINDS)))
    kind = KINDS[which]
    scale = min(height, width)
    frame = Frame(
        dy=y - np.float32(rng.uniform(0.05, 0.95) * height),
        dx=x - np.float32(rng.uniform(0.05, 0.95) * width),
        radius=rng.uniform(0.12, 0.26) * scale,
        unit=max(4.0, rng.uniform(0.06, 0.1) * scale),
        phase=(rng.random(), rng.random()),
    )
    inside = kind.outlines[rng.integers(len(kind.outlines))](frame)
    first, second = _tones(rng, kind.palette)
    mix = kind.texture(frame)[inside][:, None]
    picture[inside] = first * (1 - mix) + second * mix
    labels[inside] = which + 1


def _light(rng: np.random.Generator, y: Float, x: Float) -> Float:
    """A linear fall-off of light across the image, factor 0.65 to 1.25."""
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0.0, 0.5)
    ramp = np.sin(angle) * (y - 0.5) + np.cos(angle) * (x - 0.5)
    factor: Float = rng.uniform(0.85, 1.05) * (1 + slope * ramp)
    return factor.astype(np.float32)


def _with_void_border(labels: Bytes, width: int) -> Bytes:
    """Void every pixel that has another label within ``width`` pixels (square neighbourhood)."""
    low, high = labels, labels
    for axis in (0, 1):
        low = _slide(low, width, axis, np.minimum)
        high = _slide(high, width, axis, np.maximum)
    return np.where(low == high, labels, np.uint8(VOID))


def _slide(values: Bytes, width: int, axis: int, pick: Callable[[Bytes, Bytes], Bytes]) -> Bytes:
    """Sliding minimum or maximum over 2 * width + 1 pixels along one axis, edges repeated."""
    padding = [(width, width) if i == axis else (0, 0) for i in range(2)]
    padded = np.pad(values, padding, mode="edge")
    size = values.shape[axis]
    result = values
    for start in range(2 * width + 1):
        window = padded[start : start + size] if axis == 0 else padded[:, start : start + size]
        result = pick(result, window)
    return result
