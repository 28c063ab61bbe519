"""Reading weights from safetensors files, strictly and with a report of every key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import CheckpointError

PREFIX = "backbone."
SHOWN = 4


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys of a weight file.

    Attributes:
        loaded: keys of the network that were filled.
        left_out: keys of the file that belong to other parts than the backbone.
        missing: keys of the network that the file lacks.
        unexpected: keys of the file that the network lacks.
        mismatched: keys whose shapes differ, with both shapes.
    """

    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every key of the network was filled and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def problems(self) -> str:
        """One line that names the keys that do not fit."""
        parts = []
        for text in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, text)
            if keys:
                more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                parts.append(f"{text} {', '.join(keys[:SHOWN])}{more}")
        return "; ".join(parts)


def load_backbone(backbone: nn.Module, path: Path) -> LoadReport:
    """Fill a backbone from a file that holds just a backbone, or a model with keys under ``backbone.``.

    Nothing is changed unless everything fits.

    Raises:
        CheckpointError: no such file, no safetensors file, or keys or shapes that do not fit.
    """
    tensors = read_tensors(path)
    left_out: tuple[str, ...] = ()
    if any(key.startswith(PREFIX) for key in tensors):
        left_out = tuple(sorted(key for key in tensors if not key.startswith(PREFIX)))
        tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    report = compare(backbone, tensors, left_out)
    if not report.complete:
        raise CheckpointError(
            f"{path} does not fit the backbone ({report.problems()}): "
            "set model.backbone, model.width and model.input to those it was trained with."
        )
    backbone.load_state_dict(tensors, strict=True)
    return report


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: missing or not a safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: set model.weights to a safetensors file.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file ({error}).") from None
    return tensors


def compare(module: nn.Module, tensors: dict[str, Tensor], left_out: tuple[str, ...] = ()) -> LoadReport:
    """How the tensors of a file match a network, without changing it."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    shared = wanted.keys() & tensors.keys()
    wrong = {key for key in shared if wanted[key] != tuple(tensors[key].shape)}
    return LoadReport(
        loaded=tuple(sorted(shared - wrong)),
        left_out=left_out,
        missing=tuple(sorted(wanted.keys() - tensors.keys())),
        unexpected=tuple(sorted(tensors.keys() - wanted.keys())),
        mismatched=tuple(f"{key} {tuple(tensors[key].shape)} for {wanted[key]}" for key in sorted(wrong)),
    )
