"""Weight files that are broken or hostile: read, or refused in words; nothing in them runs."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save

from engine.errors import CheckpointError
from engine.models.caffe_hdf5 import read_caffe_hdf5
from engine.models.caffemodel import read_caffemodel
from engine.models.weights import read_pickled, read_tensors
from tests.fuzz.mutations import changed, each, seeds
from tests.fuzz.watch import Watch
from tests.unit.engine_models.caffe_files import layer

TENSORS = {"conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "conv1.bias": torch.ones(2)}
Reader = Callable[[Path], object]


def pickled(legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": TENSORS, "epoch": 3}, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def caffe() -> bytes:
    blobs = list(TENSORS.values())
    return layer("conv1", "Convolution", blobs) + layer("conv2", "Convolution", blobs, old=True)


def hdf5() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for number, values in enumerate(TENSORS.values()):
            opened[f"data/conv1/{number}"] = np.asarray(values)
    return file.getvalue()


# torch says what it thinks of odd pickles.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
KINDS: dict[str, tuple[str, Callable[[], bytes], Reader]] = {
    "pth": ("pth", pickled, read_pickled),
    "old pth": ("pth", lambda: pickled(True), read_pickled),
    "safetensors": ("safetensors", lambda: save(TENSORS), read_tensors),
    "caffemodel": ("caffemodel", caffe, read_caffemodel),
    "hdf5": ("h5", hdf5, read_caffe_hdf5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_weights_are_read_or_refused(tmp_path: Path, watch: Watch, kind: str) -> None:
    suffix, make, read = KINDS[kind]
    content, file = make(), tmp_path / f"x.{suffix}"
    refused = 0
    for seed, chosen in each(seeds(200), f"weights, {kind}"):
        file.write_bytes(changed(content, chosen))
        try:
            with watch.input():
                read(file)
        except CheckpointError as error:
            assert str(file) in str(error), seed
            refused += 1
        except BaseException as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    assert refused  # else they were hardly broken


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.mark,))


def hostile(mark: Path, chosen: random.Random) -> bytes:
    """A ``.pth`` whose pickle calls a function, in any of pickle's protocols."""
    content = {"state_dict": {"conv1.weight": Evil(mark)}, "epoch": Evil(mark)}
    program = pickle.dumps(content, protocol=chosen.randrange(6))
    if chosen.random() < 0.5:
        program = changed(program, chosen)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    return program if chosen.random() < 0.3 else file.getvalue()


def test_code_in_a_pickle_never_runs(tmp_path: Path, watch: Watch) -> None:
    file, mark = tmp_path / "x.pth", tmp_path / "ran"
    for _, chosen in each(seeds(200, 1), "weights, pickles that call"):
        file.write_bytes(hostile(mark, chosen))
        with watch.input(), pytest.raises(CheckpointError):
            read_pickled(file)
        assert not mark.exists()


def huge(file: h5py.File, folder: Path) -> None:
    file.create_dataset("data/conv1/0", shape=(2**40,), dtype="f4", chunks=(1024,))


def cycle(file: h5py.File, folder: Path) -> None:
    group = file.create_group("data")
    group["again"] = group


def external(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(b"\0" * 16)
    file.create_dataset("data/conv1/0", shape=(4,), dtype="f4", external=[(str(folder / "secret"), 0, 16)])


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", shape=(4,))
    file.create_virtual_dataset("data/conv1/0", layout)


def elsewhere(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["0"] = np.ones(4, np.float32)
    file.create_group("data")["conv1"] = h5py.ExternalLink(str(folder / "other.h5"), "/")


def no_text(file: h5py.File, folder: Path) -> None:
    file.create_group("data").create_group(b"\xff\xfe")


@pytest.mark.parametrize("harm", [huge, cycle, external, virtual, elsewhere, no_text])
def test_hdf5_file_neither_claims_memory_nor_reads_others(
    tmp_path: Path, watch: Watch, harm: Callable[[h5py.File, Path], None]
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        harm(file, tmp_path)
    with watch.input(), pytest.raises(CheckpointError):
        read_caffe_hdf5(tmp_path / "x.h5")
