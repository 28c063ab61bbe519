"""Reading Caffe's HDF5 files, ``.caffemodel.h5``: /data/<layer>/<index>, as Net::ToHDF5 writes them. Needs h5py.

Such a file lists its layers by name and not in the network's order, so that what normalises a convolution has to be
told by the numbers in the names: bn1_2, conv1_2_bn and conv1_2/bn belong to conv1_2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.models.caffemodel import Layer, holds_vectors
from engine.paths import lack

_INDEX = re.compile("[0-9]{1,9}")
LARGEST_BLOB = 2**29
"""Numbers. The largest of VGG-16 has 2**27 (fc6)."""


def read_caffe_hdf5(path: Path) -> list[Layer]:
    """The layers that have weights, each convolution before what normalises it; tensors are float32.

    Raises:
        CheckpointError: no such file, not Caffe's, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise CheckpointError(
            f"{path} is an HDF5 file, which needs h5py: pip install 'mmtui[hdf5]', or convert it to .caffemodel."
        ) from None
    if not path.is_file():
        raise CheckpointError(f"{path} {lack(path)}: set model.weights to a weight file.")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("data"), h5py.Group):
                raise CheckpointError(f"{path} has no group 'data': it is an HDF5 file, but none of Caffe's.")
            layers = list(_layers(file["data"], "", h5py))
    # AttributeError: a name that is no UTF-8 is bytes; RecursionError (a RuntimeError): a group that lies in itself.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no readable HDF5 file of Caffe's ({error}).") from None
    if not layers:
        raise CheckpointError(f"{path} holds no layer with weights.")
    return _in_order(layers)


def _layers(group: Any, name: str, h5py: Any) -> Iterator[Layer]:
    """Every group below that holds numbered blobs; a layer's name may have slashes, which HDF5 takes for groups."""
    # What a link points to may be in any file of the machine; Caffe writes none.
    items = {key: group[key] for key in group if isinstance(group.get(key, getlink=True), h5py.HardLink)}
    blobs = {int(key): item for key, item in items.items() if _INDEX.fullmatch(key) and isinstance(item, h5py.Dataset)}
    if blobs:
        yield Layer(name, "", tuple(_tensor(blobs[index]) for index in sorted(blobs)))
    for key, item in items.items():
        if isinstance(item, h5py.Group):
            yield from _layers(item, f"{name}/{key}".lstrip("/"), h5py)


def _tensor(blob: Any) -> Tensor:
    """Its numbers; of a size that a file only claims nothing is allocated."""
    if blob.size > LARGEST_BLOB:
        raise ValueError(f"'{blob.name}' says it has {blob.size} numbers")
    if blob.external or blob.is_virtual:
        raise ValueError(f"'{blob.name}' lies in another file")
    return torch.from_numpy(np.asarray(blob, dtype=np.float32))


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Layers with matrices by their names, 2 before 10; behind each what has its numbers, statistics before scales.

    What cannot be told to belong to one of them comes first, where nothing takes it.
    """
    owners = sorted((layer for layer in layers if not holds_vectors(layer)), key=lambda layer: _natural(layer.name))
    followers: dict[str, list[Layer]] = {}
    alone: list[Layer] = []
    for layer in filter(holds_vectors, layers):
        owner = _owner(layer, owners)
        followers.setdefault(owner.name, []).append(layer) if owner else alone.append(layer)
    ordered = []
    for owner in owners:
        behind = followers.get(owner.name, [])
        ordered += [owner, *sorted(behind, key=lambda layer: -len(layer.blobs))]
    return [*alone, *ordered]


def _owner(layer: Layer, owners: list[Layer]) -> Layer | None:
    """The one layer with the same numbers in its name, else the one whose numbers begin with these."""
    numbers = _numbers(layer.name)
    for size in (None, len(numbers)):
        found = [owner for owner in owners if numbers and _numbers(owner.name)[:size] == numbers]
        if len(found) > 1:  # conv6 and fc6
            found = [owner for owner in found if owner.name in layer.name]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _numbers(name: str) -> list[str]:
    return [number.lstrip("0") for number in re.findall("[0-9]+", name)]


def _natural(name: str) -> list[str]:
    """A key to sort by; numbers may have more digits than Python reads."""
    parts = re.split("([0-9]+)", name)
    numbers = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = [f"{len(number):09}{number}" for number in numbers]
    return parts
