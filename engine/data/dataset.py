"""Decoded segmentation data, held as uint8 tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.data.feed import Feed
from engine.data.readahead import Readahead
from engine.data.values import VOID
from engine.host import send


@dataclass(frozen=True)
class SegmentationData:
    """Images and label maps of one split, padded to the largest image.

    Shapes: ``images`` uint8 (N, 3, H, W), RGB; ``labels`` uint8 (N, H, W), 255 = void; ``sizes`` int64 (N, 2),
    the true height and width of every image, which lies in the upper left corner; ``unlabelled`` uint8
    (M, 3, H, W) or None, further images for proxy tasks. Outside an image: pixels 0, labels 255.

    ``mapped``: images and labels are a file that is mapped into memory, larger than what may be held there. They stay
    on the host then. For another device ``feed`` brings batches of them there; on a CPU ``readahead`` has them read
    from the disk. ``take`` and ``batch`` work for all data.
    """

    images: Tensor
    labels: Tensor
    sizes: Tensor
    names: list[str]
    classes: tuple[str, ...]
    unlabelled: Tensor | None = None
    mapped: bool = False
    feed: Feed | None = None
    readahead: Readahead | None = None

    def __post_init__(self) -> None:
        count, channels, height, width = self.images.shape
        assert channels == 3 and self.images.dtype == torch.uint8, "images are uint8 (N, 3, H, W)"
        assert self.labels.shape == (count, height, width) and self.labels.dtype == torch.uint8
        assert self.sizes.shape == (count, 2) and self.sizes.dtype == torch.int64
        assert len(self.names) == count

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 .. num_classes - 1, or 255."""
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        extra = 0 if self.unlabelled is None else self.unlabelled.numel()
        return self.images.numel() + self.labels.numel() + extra

    @property
    def device(self) -> torch.device:
        """Where ``take`` and ``batch`` put what they return, and where ``sizes`` are."""
        return self.images.device if self.feed is None else self.feed.device

    def to(self, device: torch.device | str) -> SegmentationData:
        """The same data with its tensors on ``device``; mapped ones stay where they are and are fed to it."""
        device = torch.device(device)
        if self.mapped:
            on_host = device.type == "cpu"
            feed, readahead = (None, Readahead()) if on_host else (Feed(device), None)
            return replace(self, sizes=self.sizes.to(device), feed=feed, readahead=readahead)
        extra = None if self.unlabelled is None else self.unlabelled.to(device)
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            sizes=self.sizes.to(device),
            unlabelled=extra,
        )

    def take(self, indices: Tensor) -> SegmentationData:
        """Some of the images alone, on ``device``; ``indices`` int64 (B,), best on the CPU if the data are fed."""
        names = [self.names[index] for index in indices.tolist()]
        if self.feed is None:
            indices = send(indices, self.device)
            images, labels = self.images[indices], self.labels[indices]
        else:
            images, labels = self.feed.take(self.images, self.labels, indices)
        return SegmentationData(images, labels, self.sizes[send(indices, self.device)], names, self.classes)

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, 3, H, W) and labels uint8 (B, H, W) of ``start`` .. ``stop - 1``, on ``device``.

        Mapped data begin to fetch the images that follow, as batches of all images are asked for in order.
        """
        stop = min(stop, len(self))
        if self.feed is None:
            batch = self.images[start:stop], self.labels[start:stop]
        else:
            batch = self.feed.take(self.images, self.labels, torch.arange(start, stop))
        if stop < len(self):
            self.expect(lambda: torch.arange(stop, min(2 * stop - start, len(self))))
        return batch

    def expect(self, indices: Callable[[], Tensor]) -> None:
        """Begin to fetch what will be asked for next; does nothing, and asks for nothing, if data are in memory.

        A wrong guess costs time and changes no result.
        """
        if self.feed is not None:
            self.feed.expect(self.images, self.labels, indices())
        elif self.readahead is not None:
            self.readahead.expect((self.images, self.labels), indices)

    def proxy_view(self) -> SegmentationData:
        """All images without their labels: what a proxy task may see (labelled images first)."""
        height, width = self.images.shape[2:]
        images, sizes, names = self.images, self.sizes, list(self.names)
        if self.unlabelled is not None and len(self.unlabelled):
            extra = len(self.unlabelled)
            full = torch.tensor([[height, width]], dtype=torch.int64, device=sizes.device)
            images = _joined(images, self.unlabelled)
            sizes = torch.cat([sizes, full.expand(extra, 2)])
            names += [f"unlabelled_{i:05d}" for i in range(extra)]
        labels = torch.full((1, 1, 1), VOID, dtype=torch.uint8, device=images.device)
        labels = labels.expand(len(names), height, width)
        view = SegmentationData(images, labels, sizes, names, self.classes, mapped=self.mapped)
        return view.to(self.device) if self.mapped else view


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """``torch.cat``, without a copy where one tensor follows the other in memory."""
    joined = (len(first) + len(second), *first.shape[1:])
    same = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    if same and first.is_contiguous() and second.data_ptr() == first.data_ptr() + first.numel():
        return first.as_strided(joined, first.stride())
    return torch.cat([first, second])
