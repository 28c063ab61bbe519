"""What is alive of tensors, without the help of the collector of cycles: what only it could free counts as alive."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

Live = Counter[tuple[object, ...]]
"""How many tensors there are of each number of dimensions and type, and as ("steps of a backward pass",) how many steps
of backward passes hang on them."""


def live_tensors() -> Live:
    """Counts of all tensors that Python holds, and of the backward passes that hang on them.

    A loss that was added up with its gradient is one tensor, but what computes its gradient grows.
    """
    found: Live = Counter()
    open_nodes, seen = list[object](), set[object]()
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            found[thing.ndim, thing.dtype] += 1
            open_nodes.append(thing.grad_fn)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, torch.autograd.graph.Node) and node not in seen:
            seen.add(node)
            open_nodes += [following for following, _ in node.next_functions]
    found["steps of a backward pass",] = len(seen)
    return +found


@contextlib.contextmanager
def cycles_stay() -> Iterator[None]:
    """The collector does nothing, after it has cleared away what others left."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
