"""Many small tensor operations on a CPU.

torch shares out each operation over its threads and waits for all of them. For operations of some microseconds the
waiting is most of the time, and where other programs hold a core it is nearly all: 400 patches that one thread cuts in
40 ms took two threads 400 to 2,400 ms on a busy machine. Results do not depend on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Leave torch one thread for a while. For the main thread alone."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


def on_host(tensor: Tensor) -> bool:
    """Whether to compute in the ways made for CPUs: they read values, for which a GPU would have to be waited for."""
    return tensor.device.type == "cpu"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host on ``device``. A GPU is not waited for: it copies from pinned memory in its turn."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
