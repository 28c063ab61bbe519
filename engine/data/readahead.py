"""Rows of data that are mapped from a file, brought into memory while the step before is computed.

A window of an image that is not in memory comes page by page, each when it is touched, and the network waits for all of
them. Told beforehand, the kernel reads them at once and beside the work. Nothing depends on it but the time.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

_madvise = getattr(ctypes.CDLL(None), "madvise", None)
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def will_need(tensors: Iterable[Tensor], rows: Sequence[int]) -> None:
    """Begin to read rows of tensors whose memory is a mapped file; returns before they are there.

    Args:
        tensors: contiguous within a row, on the CPU; one whose rows are all the same (stride 0) is left out.
        rows: indices along the first dimension.
    """
    for tensor in tensors:
        stride = tensor.stride(0) * tensor.element_size()
        if _madvise is None or not stride:
            continue
        for row in rows:
            begin = tensor.data_ptr() + row * stride
            page = begin - begin % mmap.PAGESIZE
            # What it answers does not matter: a row that is not read now is read when it is touched.
            _madvise(page, begin + stride - page, mmap.MADV_WILLNEED)


class Readahead:
    """Has rows read by a thread: where memory is short, the kernel takes its time before it begins to."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="readahead")
        self._last: Future[None] | None = None

    def expect(self, tensors: Sequence[Tensor], rows: Callable[[], Tensor]) -> None:
        """Begin to read the rows ``rows()``, int64 (B,); nothing while those before are still being asked for."""
        if self._last is None or self._last.done():
            self._last = self._pool.submit(will_need, tuple(tensors), rows().tolist())
