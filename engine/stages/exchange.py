"""The mean of gradients over several processes, made while the backward pass goes on."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch import distributed as torch_dist

from engine import dist

BUCKET_BYTES, FIRST_BYTES = 25 << 20, 1 << 20
"""Size of a message. The first one is small, so that it leaves soon."""


class GradientMean:
    """Averages the gradients of a module, in messages that leave as soon as their gradients are made.

    DistributedDataParallel does that too, but a process that fails in its backward pass cannot finish the exchange
    there, and the others wait for it for ever. Here the messages and their order are fixed: ``close`` sends what a
    process has not sent yet, whatever became of its gradients, and takes no memory for it.

    Attributes:
        opened: whether the messages of this step have begun.
    """

    def __init__(self, module: nn.Module) -> None:
        """All processes have to call it: the module's state becomes that of rank 0, and connections are made."""
        dist.take_from_first([*module.parameters(), *module.buffers()])
        # The last layer's gradients are the first to be made.
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._buckets = _buckets(parameters[::-1])
        self._sent: list[torch_dist.Work] = []
        self.opened = self._open = False
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(_hook(weakref.ref(self), number))
            # NCCL takes the memory for its connections now and not in the middle of a step.
            torch_dist.all_reduce(bucket.values.zero_())

    def open(self) -> None:
        """The backward pass that follows is the step's last: what it makes is sent. All processes have to be here."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self.opened = self._open = True

    def close(self) -> None:
        """Send what has not been sent; parameters without gradient count 0."""
        self._open = False
        while len(self._sent) < len(self._buckets):
            self._send()

    def finish(self) -> None:
        """Wait until the means have come: they are then the gradients. On a GPU the host does not wait."""
        for work in self._sent:
            work.wait()
        self._sent.clear()
        self.opened = False

    def _made(self, number: int) -> None:
        """The gradient of one parameter of a bucket is complete."""
        if not self._open:
            return
        self._buckets[number].missing -= 1
        while len(self._sent) < len(self._buckets) and not self._buckets[len(self._sent)].missing:
            self._send()

    def _send(self) -> None:
        """Send the next bucket: in the same order everywhere, as messages are matched by their order."""
        work = torch_dist.all_reduce(self._buckets[len(self._sent)].fill(), async_op=True)
        assert work is not None
        self._sent.append(work)


class _Bucket:
    """Parameters whose gradients travel together.

    Attributes:
        values: the gradients one after the other.
        missing: how many of them the last backward pass has not made yet.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters, self.missing = parameters, 0
        self.values = parameters[0].new_empty(sum(parameter.numel() for parameter in parameters))
        self._places = []
        for parameter, part in zip(parameters, self.values.split([p.numel() for p in parameters]), strict=True):
            self._places.append(_laid_out_as(part, parameter))

    @torch.no_grad()
    def fill(self) -> Tensor:
        """This process's share of the means. Gradients live in ``values`` from now on, what they took is free."""
        for parameter, place in zip(self.parameters, self._places, strict=True):
            if parameter.grad is None:
                place.zero_()
            else:
                place.copy_(parameter.grad)
            parameter.grad = place  # also where there was none: another process may have had one
        return self.values.div_(dist.world_size())


def _hook(mean: weakref.ref[GradientMean], number: int) -> Callable[[Tensor], None]:
    """Parameters must not keep a stage's memory, which they would by a reference to what holds them."""

    def made(_: Tensor) -> None:
        found = mean()
        if found is not None:
            found._made(number)

    return made


def _buckets(parameters: list[nn.Parameter]) -> list[_Bucket]:
    """Of one type of number each."""
    groups: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        most = BUCKET_BYTES if len(groups) > 1 else FIRST_BYTES
        if not groups or size >= most or groups[-1][0].dtype != parameter.dtype:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return [_Bucket(group) for group in groups]


def _laid_out_as(part: Tensor, parameter: Tensor) -> Tensor:
    """Numbers (n,) in the shape of a parameter, and in its order of memory where it leaves no gaps."""
    last = sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
    if last + 1 != parameter.numel():
        return part.view(parameter.shape)
    return part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
