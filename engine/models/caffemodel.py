"""Reading ``.caffemodel`` files without Caffe: the protobuf wire format, as far as networks' weights need it.

Fields (caffe.proto): NetParameter.layer = 100 (LayerParameter: name 1, type 2, blobs 7) and the older
NetParameter.layers = 2 (V1LayerParameter: name 4, type 5, blobs 6); BlobProto: num, channels, height, width 1-4,
data 5, shape 7 (BlobShape: dim 1), double_data 8; LayerParameter.batch_norm_param = 139 (eps 3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_DIMENSIONS = 32
MOST_VALUES = 1 << 32
EPSILON = 1e-5
"""What Caffe's batch normalisation adds to a variance unless the network says another number."""


class MalformedError(ValueError):
    """The bytes are no protobuf message."""


@dataclass(frozen=True)
class Layer:
    """A layer that has weights.

    Attributes:
        name: in the network.
        kind: its type, as "Convolution"; in the older format a number, "" where the file tells none.
        blobs: float32.
        epsilon: what a batch normalisation adds to variances.
    """

    name: str
    kind: str
    blobs: tuple[Tensor, ...]
    epsilon: float = EPSILON


def holds_vectors(layer: Layer) -> bool:
    """Whether a layer with weights has one number for each channel, be it as a blob of 1 x C x 1 x 1."""
    first = layer.blobs[0]
    return first.numel() == max(first.shape, default=1)


def read_caffemodel(path: Path) -> list[Layer]:
    """The layers of a file that have weights, in file order; tensors are float32.

    Raises:
        CheckpointError: no such file, or no caffemodel.
    """
    try:
        layers = [layer for layer in _layers(memoryview(path.read_bytes())) if layer.blobs]
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: set model.weights to a weight file.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable .caffemodel ({error}).") from None
    if not layers:
        raise CheckpointError(f"{path} holds no layer with weights: it is no .caffemodel, or that of an empty network.")
    return layers


def _layers(message: memoryview) -> Iterator[Layer]:
    for number, value in _fields(message):
        if number == 100 and isinstance(value, memoryview):
            yield _layer(value, name=1, kind=2, blobs=7)
        elif number == 2 and isinstance(value, memoryview):
            yield _layer(value, name=4, kind=5, blobs=6)


def _layer(message: memoryview, *, name: int, kind: int, blobs: int) -> Layer:
    words, found, epsilon = {name: "", kind: ""}, [], EPSILON
    for number, value in _fields(message):
        if number == blobs and isinstance(value, memoryview):
            found.append(_blob(value))
        elif number == 139 and isinstance(value, memoryview):
            epsilon = next((_float(part) for key, part in _fields(value) if key == 3), epsilon)
        elif number in words:
            # The older format numbers its types.
            words[number] = bytes(value).decode(errors="replace") if isinstance(value, memoryview) else str(value)
    return Layer(words[name], words[kind], tuple(found), epsilon)


def _float(value: int | memoryview) -> float:
    """A float32 that stands alone."""
    if isinstance(value, memoryview) or value >= 1 << 32:
        raise MalformedError("a number that is none")
    return float(struct.unpack("<f", value.to_bytes(4, "little"))[0])


def _blob(message: memoryview) -> Tensor:
    old: dict[int, int] = {}
    shape: list[int] | None = None
    parts: list[NDArray[np.float32]] = []
    for number, value in _fields(message):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            old[number] = value
        elif number == 7 and isinstance(value, memoryview):
            shape = _shape(value)
        elif number in (5, 8):
            parts.append(_numbers(value, "<f4" if number == 5 else "<f8"))
    data = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if shape is None:
        # 4-D blobs of the older format: biases are 1 x 1 x 1 x N.
        shape = [old.get(number, 1) for number in (1, 2, 3, 4)] if old else [len(data)]
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
    count = 1
    for side in shape:
        count *= side
    if count != len(data) or count > MOST_VALUES:
        raise MalformedError(f"a blob of shape {shape} holds {len(data)} values")
    return torch.from_numpy(data.reshape(shape))


def _shape(message: memoryview) -> list[int]:
    sides: list[int] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            sides.append(value)
        elif number == 1 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                side, at = _varint(value, at)
                sides.append(side)
        if len(sides) > MOST_DIMENSIONS:
            raise MalformedError("a blob of more than 32 dimensions")
    return sides


def _numbers(value: int | memoryview, kind: str) -> NDArray[np.float32]:
    """Packed numbers, or a single one."""
    raw = bytes(value) if isinstance(value, memoryview) else value.to_bytes(int(kind[2]), "little")
    if len(raw) % int(kind[2]):
        raise MalformedError("a list of numbers is cut short")
    with np.errstate(over="ignore"):  # one that no float32 holds becomes infinite, and is refused where it is loaded
        return np.frombuffer(raw, dtype=kind).astype(np.float32)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value): an integer for varints and fixed numbers, the bytes for everything else."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            if at + size > end:
                raise MalformedError("the file is cut short")
            yield number, int.from_bytes(message[at : at + size], "little")
            at += size
        elif kind == BYTES:
            size, at = _varint(message, at)
            if at + size > end:
                raise MalformedError("the file is cut short")
            yield number, message[at : at + size]
            at += size
        else:
            raise MalformedError(f"wire type {kind} is not used by Caffe")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise MalformedError("the file is cut short")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
    raise MalformedError("a number of more than ten bytes")
