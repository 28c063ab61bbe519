"""Confusion matrices as they lie in the database: K x K int64, little-endian, rows = truth."""

from __future__ import annotations

import sys
from array import array


def matrix_of(blob: bytes) -> list[list[int]]:
    """The rows of a stored matrix."""
    flat = array("q")
    flat.frombytes(blob)
    if sys.byteorder == "big":
        flat.byteswap()
    k = round(len(flat) ** 0.5)
    return [list(flat[i * k : (i + 1) * k]) for i in range(k)]


def class_shares(matrix: list[list[int]]) -> list[float | None]:
    """IoU of every class (0-1); None where it is in neither truth nor prediction."""
    shares: list[float | None] = []
    for index, row in enumerate(matrix):
        union = sum(row) + sum(other[index] for other in matrix) - row[index]
        shares.append(row[index] / union if union else None)
    return shares
