"""Weights that hold NaN or an infinity: nothing can be learned from there on, and every prediction is class 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import CheckpointError

SHOWN = 4
"""Names of tensors that a message tells."""


def refuse_infinite(path: Path, tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Let nothing be filled from a file whose tensors are not all finite.

    Args:
        path: where they come from.
        tensors: what would be loaded, of any shape and type.
        remedy: what to do instead, a sentence.

    Raises:
        CheckpointError: some of them are not; their names are told.
    """
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise CheckpointError(
            f"{path} holds NaN or infinite values in {', '.join(bad[:SHOWN])}{more}: the training that wrote it had "
            f"diverged, or the file is damaged. {remedy}"
        )
