"""Batches of images that stay on the host, brought to a GPU while the batch before is computed."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.data.readahead import will_need
from engine.host import send


@dataclass(frozen=True)
class _Brought:
    """Tensors on the device; on a GPU they are there once ``arrived`` has happened."""

    images: Tensor
    labels: Tensor
    arrived: torch.cuda.Event | None


class Feed:
    """Copies rows of host tensors to ``device``: gathered into pinned memory, sent on a stream of their own.

    What is returned does not depend on what was expected, nor on threads: only the time does.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._next: tuple[list[int], Future[_Brought]] | None = None
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def expect(self, images: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Begin to bring the rows ``indices``, int64 (B,)."""
        wanted = indices.tolist()
        if self._next is None or self._next[0] != wanted:
            self._next = (wanted, self._pool.submit(self._bring, images, labels, wanted))

    def take(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The rows ``indices`` of both tensors, on the device, usable on the current stream."""
        wanted = indices.tolist()
        if self._next is not None and self._next[0] == wanted:
            coming, self._next = self._next[1], None  # if it failed for lack of memory, it is brought anew
            brought = coming.result()
        else:
            brought = self._bring(images, labels, wanted)
        if brought.arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(brought.arrived)
            for tensor in (brought.images, brought.labels):
                tensor.record_stream(stream)
        return brought.images, brought.labels

    def _bring(self, images: Tensor, labels: Tensor, wanted: list[int]) -> _Brought:
        will_need((images, labels), wanted)  # read side by side, not each when the one before is copied
        stream = self._stream
        with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
            rows = self._send(images, wanted)
            if labels.stride(0) == 0 and len(labels) > 1:  # one map that stands for all
                brought_labels = send(labels[:1], self.device).expand(len(wanted), *labels.shape[1:])
            else:
                brought_labels = self._send(labels, wanted)
            if stream is None:
                return _Brought(rows, brought_labels, None)
            arrived = torch.cuda.Event()
            arrived.record(stream)
        return _Brought(rows, brought_labels, arrived)

    def _send(self, tensor: Tensor, wanted: list[int]) -> Tensor:
        """Pinned memory is reused by torch only after the copy out of it is done."""
        pinned = self._stream is not None
        rows = torch.empty((len(wanted), *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=pinned)
        torch.index_select(tensor, 0, torch.tensor(wanted, dtype=torch.int64), out=rows)
        return rows.to(self.device, non_blocking=True)
