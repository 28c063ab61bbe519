"""Rows of mapped data are read before they are needed; the kernel tells by ``mincore`` which pages are in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config.schema import ShapesData
from engine.data.cache import tensor_of
from engine.data.dataset import SegmentationData
from engine.data.pipeline import epoch_indices
from engine.data.readahead import Readahead, will_need
from engine.data.registry import build_data
from tests.waiting import until

ROW = 64 * mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


def resident(tensor: Tensor, row: int) -> float:
    """Share of a row's pages that are in memory."""
    stride = tensor.stride(0) * tensor.element_size()
    begin = tensor.data_ptr() + row * stride
    page = begin - begin % mmap.PAGESIZE
    length = begin + stride - page
    pages = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    assert libc.mincore(ctypes.c_void_p(page), ctypes.c_size_t(length), pages) == 0, os.strerror(ctypes.get_errno())
    return sum(state & 1 for state in pages) / len(pages)


def forget(path: Path) -> None:
    """Have the kernel drop a file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture
def mapped(tmp_path: Path) -> Tensor:
    """Eight rows that lie on the disk alone; the first begins within a page."""
    path = tmp_path / "rows.bin"
    path.write_bytes(os.urandom(8 * ROW + 100))
    forget(path)
    tensor = tensor_of(np.memmap(path, np.uint8, mode="r", offset=0))[100:].view(8, ROW)
    if resident(tensor, 5) > 0:
        pytest.skip("this file system keeps files in memory")
    return tensor


def test_rows_that_are_needed_are_read_and_others_are_not(mapped: Tensor) -> None:
    will_need([mapped, torch.zeros(1, 4).expand(8, 4)], [1, 5])
    until(lambda: resident(mapped, 1) == resident(mapped, 5) == 1, "both rows are in memory")
    assert resident(mapped, 3) == resident(mapped, 7) == 0


def test_reading_ahead_asks_for_the_rows_and_gives_no_error_where_nothing_is_mapped(mapped: Tensor) -> None:
    ahead = Readahead()
    ahead.expect((mapped, torch.zeros(8, 3)), lambda: torch.tensor([2, 6]))
    until(lambda: resident(mapped, 2) == resident(mapped, 6) == 1, "both rows are in memory")
    assert resident(mapped, 4) == 0


def mapped_shapes(cache: Path) -> SegmentationData:
    config = ShapesData(height=128, width=256, train=12, val=1, unlabelled=2)
    data = build_data(config, "train", 1, None, cache)
    (file,) = cache.glob("*.bin")
    forget(file)
    assert data.mapped and data.readahead is None
    return data


def test_mapped_data_on_a_cpu_read_what_the_next_step_is_expected_to_take(tmp_path: Path) -> None:
    found = mapped_shapes(tmp_path / "cache")
    data = found.to("cpu")
    if resident(data.images, 7) > 0:
        pytest.skip("this file system keeps files in memory")
    chosen = epoch_indices(3, 5, 3, len(data))
    data.expect(lambda: chosen)
    until(lambda: all(resident(data.images, row) == 1 for row in chosen.tolist()), "the images are in memory")
    until(lambda: all(resident(data.labels, row) == 1 for row in chosen.tolist()), "the labels are in memory")
    view = data.proxy_view()
    assert view.readahead is not None and view.readahead is not data.readahead
    view.expect(lambda: torch.tensor([13]))
    until(lambda: resident(view.images, 13) == 1, "an image without labels is in memory")


def test_batches_in_order_are_those_of_data_in_memory_and_read_ahead(tmp_path: Path) -> None:
    config = ShapesData(height=128, width=256, train=12, val=1, unlabelled=2)
    held, data = build_data(config, "train").to("cpu"), mapped_shapes(tmp_path / "cache").to("cpu")
    assert held.readahead is None
    for start in range(0, 12, 5):
        for one, other in zip(held.batch(start, start + 5), data.batch(start, start + 5), strict=True):
            assert torch.equal(one, other) and len(one) == min(5, 12 - start)
    held.expect(lambda: pytest.fail("data in memory ask for nothing"))
