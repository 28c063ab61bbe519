"""What contrasts with a momentum encoder share: views, query and key network, and queues that move on once a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine import dist
from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.key_queue import KeyQueue
from engine.proxies.momentum import follow, twin
from engine.proxies.projection import OnlyBackbone, Projected, Projection
from engine.proxies.running import Running, settle
from engine.proxies.task import Task
from engine.proxies.views import two_views


class Contrast(Task):
    """Two views of an image: the first is the query, the second its key, which has to be told from the queue's.

    The query network is trained, the key network follows it. Weights, running statistics and queues of both are part of
    the module's state. On several processes each computes the keys of its share of the batch, and all of them enter
    every process's queue, in the order of the processes: it holds what one process's would.

    Args:
        dense: whether cells of the map are compared as well; there is a second queue then.
    """

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None, *, dense: bool
    ) -> None:
        super().__init__()
        self.config = config
        self.query = Projection(backbone, config.head_channels, config.projection, generator, dense=dense)
        self.key = twin(self.query)
        self.running = Running(self.key)
        length, dimensions = config.queue, config.projection
        self.queues = nn.ModuleList(KeyQueue(length, dimensions, generator) for _ in range(2 if dense else 1))
        self.waiting: list[tuple[Tensor, ...]] = []

    @property
    def backbone(self) -> Backbone:
        """The one that is trained."""
        return self.query.backbone

    def train(self, mode: bool = True) -> Contrast:
        """The key network normalises with running statistics always; queues change between steps alone."""
        super().train(mode)
        self.key.eval()
        self.queues.eval()
        return self

    def begin(self, images: Callable[[], Tensor]) -> None:
        """Give the key network running statistics; a checkpoint then replaces them."""
        settle(self.key, images())
        self.running.forget()

    def prepare(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Both views, uint8 (B, 2, 3, s, s)."""
        self.waiting = []
        self.running.forget()
        return two_views(images, generator)

    def forward(
        self, images: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of views uint8 (B, 2, 3, s, s)."""
        query = self.query(images[:, 0])
        with torch.no_grad():
            key = self.key(images[:, 1])
        self.waiting.append(self.enqueued(key))
        return self.compare(query, key)

    def compare(self, query: Projected, key: Projected) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of queries against their keys and the queues."""
        raise NotImplementedError

    def enqueued(self, key: Projected) -> tuple[Tensor, ...]:
        """For each queue what it takes in, (B, D) of unit length, in the order of the images."""
        raise NotImplementedError

    def negatives(self, number: int) -> Tensor:
        """Keys of a queue (K, D)."""
        queue = self.queues[number]
        assert isinstance(queue, KeyQueue)
        return queue.keys

    def after_step(self) -> None:
        """The queues take in the keys of the whole batch, and the key network follows."""
        for queue, portions in zip(self.queues, zip(*self.waiting, strict=True), strict=True):
            assert isinstance(queue, KeyQueue)
            queue.push(dist.all_gather(torch.cat(portions)))
        self.waiting = []
        self.running.update()
        follow(self.key, self.query, self.config.key_momentum)

    def handed_on(self) -> nn.Module:
        """The query's backbone alone."""
        return OnlyBackbone(self.backbone)
