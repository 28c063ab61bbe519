"""Confusion matrices as they lie in the database: K x K int64, little-endian, rows = truth."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence


def matrix_of(blob: object) -> list[list[int]]:
    """The rows of a stored matrix; of a damaged cell those of the largest matrix that it holds."""
    flat = array("q")
    if isinstance(blob, bytes):
        flat.frombytes(blob[: len(blob) // 8 * 8])
    if sys.byteorder == "big":
        flat.byteswap()
    if flat and min(flat) < 0:
        flat = array("q", [max(count, 0) for count in flat])
    k = math.isqrt(len(flat))
    return [list(flat[i * k : (i + 1) * k]) for i in range(k)]


def class_shares(matrix: Sequence[Sequence[int]]) -> list[float | None]:
    """IoU of every class (0-1); None where it is in neither truth nor prediction."""
    shares: list[float | None] = []
    for index, (row, predicted) in enumerate(zip(matrix, map(sum, zip(*matrix, strict=True)), strict=True)):
        union = sum(row) + predicted - row[index]
        shares.append(row[index] / union if union else None)
    return shares
