"""Reading weight files, ours and foreign ones, strictly and with a report of every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.models.caffemodel import read_caffemodel
from engine.models.foreign import CONTAINERS, Renamed, rename, rename_caffe

PREFIX = "backbone."
COUNTER = "num_batches_tracked"
SHOWN = 4
PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys of a weight file.

    Attributes:
        loaded: keys of the network that were filled.
        left_out: keys of the file that belong to other parts than the backbone.
        missing: keys of the network that the file lacks.
        unexpected: keys of the file that the network lacks.
        mismatched: keys whose shapes differ, with both shapes.
        notes: what was changed on the way, in words.
    """

    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    notes: tuple[str, ...] = ()

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

    def lines(self) -> list[str]:
        """The whole report, one fact a line."""
        found = [f"{len(self.loaded)} keys loaded"]
        for text in ("missing", "unexpected", "mismatched", "left_out"):
            keys = getattr(self, text)
            found += [f"{len(keys)} {text.replace('_', ' ')}: {', '.join(keys)}"] if keys else []
        return [*found, *(f"note: {note}" for note in self.notes)]


def load_backbone(backbone: nn.Module, path: Path) -> LoadReport:
    """Fill a backbone from a file of our own that holds just a backbone, or a model with keys under ``backbone.``.

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
        raise _does_not_fit(path, report)
    backbone.load_state_dict(tensors, strict=True)
    return report


def load_weights(backbone: nn.Module, name: str, path: Path, *, partial: bool = False) -> LoadReport:
    """Fill a backbone from any file we can read: ours, torchvision's, a self-supervised ResNet's, a ``.caffemodel``.

    Nothing is changed unless everything fits, or ``partial`` is set and something does.

    Args:
        name: our name of the backbone, as in ``model.backbone``.
        partial: accept a file that fills only some of the network; the rest keeps its random weights.

    Raises:
        CheckpointError: the file cannot be read, or does not fit.
    """
    renamed = read_foreign(backbone, name, path)
    # Counters of batches are no weights; older files lack them.
    state = backbone.state_dict()
    tensors = dict(renamed.tensors)
    for key, value in state.items():
        if key.endswith((COUNTER, "weight_sum")) and key not in tensors:
            tensors[key] = value
    report = compare(backbone, tensors, tuple(renamed.left_out), tuple(renamed.notes))
    filled = [key for key in report.loaded if not key.endswith((COUNTER, "weight_sum"))]
    if not report.complete and not (partial and filled):
        raise _does_not_fit(path, report)
    backbone.load_state_dict({**state, **{key: tensors[key].to(state[key].dtype) for key in report.loaded}})
    return report


def read_foreign(backbone: nn.Module, name: str, path: Path) -> Renamed:
    """Tensors of any readable file by the names of our backbone.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if path.suffix == ".caffemodel" or path.name.endswith(".caffemodel.h5"):
        if path.suffix == ".h5":
            raise CheckpointError(f"{path} is an HDF5 file: convert it to .caffemodel or safetensors first.")
        return rename_caffe(read_caffemodel(path), name)
    tensors = read_pickled(path) if path.suffix in PICKLED else read_tensors(path)
    return rename(tensors, name, list(backbone.state_dict()))


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.pth`` file, found under the usual keys of a training checkpoint. Nothing in it is executed.

    Raises:
        CheckpointError: missing, no such file, or it holds more than tensors and plain values.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: set model.weights to a weight file.") from None
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as plain tensors ({first}): save its state_dict as safetensors."
        ) from None
    for _ in range(3):
        inner = next((content[key] for key in CONTAINERS if isinstance(content, Mapping) and key in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    found = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found:
        raise CheckpointError(f"{path} holds no tensors by name: save a state_dict.")
    return found


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


def compare(
    module: nn.Module, tensors: Mapping[str, Tensor], left_out: tuple[str, ...] = (), notes: tuple[str, ...] = ()
) -> LoadReport:
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
        notes=notes,
    )


def _does_not_fit(path: Path, report: LoadReport) -> CheckpointError:
    return CheckpointError(
        f"{path} does not fit the backbone ({report.problems()}): "
        "set model.backbone, model.width and model.input to those it was trained with."
    )
