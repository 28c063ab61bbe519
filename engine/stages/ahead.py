"""The next batches of patches, made on a GPU while it computes the step before.

How many patches there are depends on the labels, so the host has to wait for the GPU once a batch. On a stream of its
own that wait ends as soon as the batch is made, and the network's work, queued before, goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """Makes batches ahead of time. What a batch is does not depend on when it is made.

    Attributes:
        active: whether making ahead is worth while: on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.active = device.type == "cuda"
        self._stream: torch.cuda.Stream | None = None
        self._ready: dict[int, Made] = {}

    def prepare(self, numbers: Sequence[int], make: Callable[[int], Made]) -> None:
        """Make these batches beside what is queued. For what memory does not suffice, that is made when it is asked
        for."""
        self._ready.clear()
        if self.device.type != "cuda":
            for number in numbers:
                self._ready[number] = make(number)
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
            self._stream.wait_stream(torch.cuda.current_stream(self.device))  # the data may still be on their way
        try:
            with torch.cuda.stream(self._stream):
                for number in numbers:
                    self._ready[number] = make(number)
        except torch.OutOfMemoryError:
            self._ready.clear()

    def take(self, number: int, make: Callable[[int], Made]) -> Made:
        """Batch ``number``, usable on the current stream. It is given once, so that its memory can be let go."""
        if number not in self._ready:
            return make(number)
        made: Made = self._ready.pop(number)
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            for tensor in _tensors(made):
                tensor.record_stream(current)
        return made


def _tensors(made: object) -> Iterator[Tensor]:
    """All tensors in tuples, lists and dataclasses."""
    if isinstance(made, Tensor):
        if made.device.type == "cuda":
            yield made
    elif isinstance(made, tuple | list):
        for part in made:
            yield from _tensors(part)
    elif is_dataclass(made):
        for field in fields(made):
            yield from _tensors(getattr(made, field.name))
