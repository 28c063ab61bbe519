"""Caffe's weight files written byte by byte, as protobuf's own documentation describes its wire format."""

from __future__ import annotations

from torch import Tensor


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, payload: bytes | int) -> bytes:
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def blob(values: Tensor, old: bool) -> bytes:
    data = field(5, values.numpy().astype("<f4").tobytes())
    if old:
        sides = [1] * (4 - values.ndim) + list(values.shape)
        return b"".join(field(number, side) for number, side in zip((1, 2, 3, 4), sides, strict=True)) + data
    return data + field(7, field(1, b"".join(varint(side) for side in values.shape)))


def layer(name: str, kind: str, blobs: list[Tensor], old: bool = False) -> bytes:
    if old:
        body = field(4, name.encode()) + field(5, 4) + b"".join(field(6, blob(values, True)) for values in blobs)
        return field(2, body)
    body = field(1, name.encode()) + field(2, kind.encode()) + field(10, 1)
    return field(100, body + b"".join(field(7, blob(values, False)) for values in blobs))
