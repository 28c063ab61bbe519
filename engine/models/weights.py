"""Reading weight files, ours and foreign ones, strictly and with a report of every key."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.config.backbones import TIMM_WEIGHTS
from engine.config.schema import InputName, ModelConfig
from engine.errors import CheckpointError
from engine.files import utf8_name
from engine.finite import refuse_infinite
from engine.json_types import JsonObject
from engine.models.caffe_hdf5 import read_caffe_hdf5
from engine.models.caffe_import import rename_caffe
from engine.models.caffemodel import read_caffemodel
from engine.models.foreign import COUNTERS, ForeignError, Renamed, nearest, rename
from engine.models.inputs import input_of, take_input
from engine.models.timm_backbone import TimmBackbone
from engine.models.timm_inputs import notes_on_pixels
from engine.models.timm_weights import rename_for_timm, timm_weights_file
from engine.paths import expanded
from engine.unreadable import looks_like, reason

PREFIX = "backbone."
SHOWN = 4
PARTS = ("missing", "unexpected", "mismatched", "left_out")
HDF5 = (".h5", ".hdf5")
PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")
OPTIMISER = re.compile("(?:^|_)optim(?:izer)?s?(?:_|$)")
"""Keys of a checkpoint under which an optimiser keeps tensors of its own."""
DEEPEST = 4
"""Dictionaries within each other in which a training checkpoint's tensors are looked for."""
TAKE_ANOTHER = "Take another file."


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
        nearest: keys of the file that are most like the first one that is missing.
    """

    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    notes: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every key of the network was filled and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def fits(self, *, partial: bool = False) -> bool:
        """Whether training takes the file: all of it, or with ``partial`` if it fills any weight."""
        return self.complete or (partial and any(not key.endswith(COUNTERS) for key in self.loaded))

    def problems(self) -> str:
        """One line that names the keys that do not fit."""
        parts = []
        for text in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, text)
            if keys:
                more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                near = (
                    f" (nearest in the file: {', '.join(self.nearest)})" if text == "missing" and self.nearest else ""
                )
                parts.append(f"{text} {', '.join(keys[:SHOWN])}{more}{near}")
        return "; ".join(parts)

    def lines(self) -> list[str]:
        """The whole report, one fact a line."""
        found = [f"{len(self.loaded)} keys loaded"]
        for text in PARTS:
            keys = getattr(self, text)
            found += [f"{len(keys)} {text.replace('_', ' ')}: {', '.join(keys)}"] if keys else []
        return [*found, *(f"note: {note}" for note in self.notes)]

    def counts(self) -> str:
        """One line of numbers."""
        more = [f"{len(keys)} {text.replace('_', ' ')}" for text in PARTS if (keys := getattr(self, text))]
        return ", ".join([f"{len(self.loaded)} keys loaded", *more])

    def values(self) -> JsonObject:
        """Numbers, the first names behind each, and notes, as the event ``weights`` has them."""
        names = {text: getattr(self, text) for text in ("loaded", *PARTS)}
        first = {text: list(keys[:SHOWN]) for text, keys in names.items() if keys}
        return {**{text: len(keys) for text, keys in names.items()}, "first": first, "notes": list(self.notes)}


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
    refuse_infinite(path, {key: tensors[key] for key in report.loaded}, TAKE_ANOTHER)
    if not report.complete:
        raise _does_not_fit(path, report)
    backbone.load_state_dict(tensors, strict=True)
    return report


def load_weights(
    backbone: nn.Module, name: str, path: Path, *, partial: bool = False, input: InputName = "rgb"
) -> LoadReport:
    """Fill a backbone from any file we can read: ours, torchvision's, a self-supervised ResNet's, Caffe's.

    Nothing is changed unless everything fits, or ``partial`` is set and something does.

    Args:
        name: our name of the backbone, as in ``model.backbone``.
        partial: accept a file that fills only some of the network; the rest keeps its random weights.
        input: what the backbone reads, as in ``model.input``; the first convolution is rewritten for it.

    Raises:
        CheckpointError: the file cannot be read, or does not fit.
    """
    report, tensors = match_weights(backbone, name, path, input)
    if not report.fits(partial=partial):
        raise _does_not_fit(path, report, some=report.fits(partial=True))
    state = backbone.state_dict()
    backbone.load_state_dict({**state, **{key: tensors[key].to(state[key].dtype) for key in report.loaded}})
    return report


def match_weights(
    backbone: nn.Module, name: str, path: Path, input: InputName = "rgb"
) -> tuple[LoadReport, dict[str, Tensor]]:
    """What a file would fill of a backbone, and its tensors by our names; the backbone is not changed.

    Raises:
        CheckpointError: the file cannot be read, or what would be loaded is not finite.
    """
    renamed = read_foreign(backbone, name, path, input)
    report = compare(backbone, renamed.tensors, tuple(renamed.left_out), tuple(renamed.notes))
    refuse_infinite(path, {key: renamed.tensors[key] for key in report.loaded}, TAKE_ANOTHER)
    missing = tuple(key for key in report.missing if not key.endswith(COUNTERS))
    return replace(report, missing=missing), renamed.tensors


def read_foreign(backbone: nn.Module, name: str, path: Path, input: InputName = "rgb") -> Renamed:
    """Tensors of any readable file by the names of our backbone, which reads ``input``.

    Raises:
        CheckpointError: the file cannot be read, or holds another network or two.
    """
    try:
        if path.suffix in (".caffemodel", *HDF5):
            return rename_caffe((read_caffe_hdf5 if path.suffix in HDF5 else read_caffemodel)(path), name, input)
        tensors = read_pickled(path) if path.suffix in PICKLED else read_tensors(path)
        found = _renamed(tensors, backbone, name)
    except ForeignError as error:
        raise CheckpointError(f"{path} holds {error}.") from None
    except CheckpointError:
        if told := looks_like(path):
            raise CheckpointError(f"{path} {told}.") from None
        raise
    take_input(found, backbone, input_of(path), input)
    if isinstance(backbone, TimmBackbone):
        found.notes.extend(notes_on_pixels(backbone, path))
    return found


def _renamed(tensors: dict[str, Tensor], backbone: nn.Module, name: str) -> Renamed:
    if isinstance(backbone, TimmBackbone):
        return rename_for_timm(tensors, backbone)
    return rename(tensors, name, {key: tuple(value.shape) for key, value in backbone.state_dict().items()})


def weights_file(config: ModelConfig) -> Path:
    """The file that ``model.weights`` means, which is not empty: a path, or the one of timm's own weights.

    Raises:
        CheckpointError: timm has no weights, or they cannot be downloaded.
    """
    return timm_weights_file(config.backbone) if config.weights == TIMM_WEIGHTS else expanded(config.weights)


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.pth`` file, wherever a training checkpoint keeps them. Nothing in it is executed.

    Names are those of the dictionary that holds all tensors; where there are several (``teacher`` and ``student``),
    their keys come first. What an optimiser holds is passed over.

    Raises:
        CheckpointError: missing, no such file, or it holds more than tensors and plain values.
    """
    try:
        # Options of a command line, which many trainers keep beside their weights, are attributes and no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: set model.weights to a weight file.") from None
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as plain tensors ({reason(error)}): save its state_dict as safetensors."
        ) from None
    found = _tensors_in(content, set(), DEEPEST)
    if not found:
        raise CheckpointError(f"{path} holds no tensors by name: save a state_dict.")
    return found


def _tensors_in(content: object, seen: set[int], depth: int) -> dict[str, Tensor]:
    """Tensors of a dictionary and of those within it; one may hold itself."""
    if not isinstance(content, Mapping) or id(content) in seen or depth == 0:
        return {}
    seen.add(id(content))
    own = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    keys = [key for key in content if not OPTIMISER.search(str(key))]
    found = {str(key): _tensors_in(content[key], seen, depth - 1) for key in keys}
    inner = {key: tensors for key, tensors in found.items() if tensors}
    if len(inner) == 1 and not own:
        return next(iter(inner.values()))
    return own | {f"{key}.{name}": value for key, tensors in inner.items() for name, value in tensors.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        CheckpointError: missing or not a safetensors file.
    """
    try:
        with utf8_name(path) as name:
            tensors: dict[str, Tensor] = load_file(name)
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
    missing, unexpected = (tuple(sorted(keys)) for keys in (wanted.keys() - tensors.keys(), tensors.keys() - wanted))
    weights = [key for key in missing if not key.endswith(COUNTERS)]
    return LoadReport(
        loaded=tuple(sorted(shared - wrong)),
        left_out=left_out,
        missing=missing,
        unexpected=unexpected,
        mismatched=tuple(f"{key} {tuple(tensors[key].shape)} for {wanted[key]}" for key in sorted(wrong)),
        notes=notes,
        nearest=nearest(weights[0], (*unexpected, *left_out)) if weights else (),
    )


def _does_not_fit(path: Path, report: LoadReport, *, some: bool = False) -> CheckpointError:
    otherwise = ", or model.weights_partial=true to take what fits" if some else ""
    return CheckpointError(
        f"{path} does not fit the backbone ({report.problems()}): "
        f"set model.backbone, model.width and model.input to those it was trained with{otherwise}."
    )
