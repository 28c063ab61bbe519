"""The engine in a process that lacks memory: ``python -m tests.unit.engine_run.lacking HOW train ...``.

HOW is JSON: ``{"stages": {NAME: most images or patches}, "ranks": [1], "where": "forward", "frozen": true}``. Batches
of more than the most fail in the network, in the processes of ``ranks``, in its ``forward`` or ``backward`` pass; or
the first batch of ``data`` fails, or every ``update``. ``frozen`` takes the batch out of batch normalisation, so that
portions compute what the whole does. ``patches``, if it is there, is how many patches are drawn of a batch at most.
Every process writes ``rank_R.txt`` into its working directory: after each step the stage, the step, its portions and a
checksum of all parameters.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.__main__ import main
from engine.stages import exchange, match, proxy, segment
from engine.stages.training import Updater

STAGES: dict[str, type[Any]] = {
    "proxy": proxy.ProxyStage,
    "match": match.MatchStage,
    "segment": segment.SegmentStage,
}


def own_rank() -> int:
    return int(os.environ.get("RANK", "0"))


def fixed(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return x * self.weight[:, None, None] + self.bias[:, None, None]


def fail(where: str) -> None:
    raise torch.OutOfMemoryError(f"CUDA out of memory (a test says so, {where})")


def limit(network: nn.Module, most: int, where: str) -> None:
    """Let the network fail on batches of more than ``most``, in its first layer's forward or backward pass."""
    size = 0

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal size
        size = len(inputs[0])
        if where == "forward" and size > most:
            fail(where)

    def later(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        # The first layer comes last: the gradients of the others are on their way by then.
        if where == "backward" and size > most and output.requires_grad:
            output.register_hook(lambda _: fail(where))

    network.register_forward_pre_hook(count)
    next(part for part in network.modules() if isinstance(part, nn.Conv2d)).register_forward_hook(later)


def fail_once(stage: Any, method: str) -> None:
    """Let the first call of a method fail, after it has done its work."""
    work, calls = getattr(stage, method), 0

    def failing(draw: int) -> Any:
        nonlocal calls
        calls += 1
        made = work(draw)
        if calls == 1:
            fail(method)
        return made

    setattr(stage, method, failing)


def change(name: str, most: int, ranks: list[int], where: str) -> None:
    """Patch a stage: limited memory, and a line after each step."""
    cls = STAGES[name]
    build, step = cls.__init__, cls.step

    def patched(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        if own_rank() in ranks and where in ("forward", "backward"):
            limit(self.network, most, where)
        if own_rank() in ranks and where == "data":
            fail_once(self, {"match": "_mix_now", "segment": "_batch"}[name])
        if own_rank() in ranks and where == "update":
            Updater.apply = lambda _: fail(where)  # type: ignore[method-assign]

    def told(self: Any, number: int) -> Any:
        values = step(self, number)
        parameters = torch.cat([value.detach().flatten() for value in self.network.parameters()])
        digest = hashlib.sha256(parameters.numpy().tobytes()).hexdigest()[:16]
        with Path(f"rank_{own_rank()}.txt").open("a") as file:
            file.write(f"{name} {number} {self.splits} {digest}\n")
        return values

    cls.__init__, cls.step = patched, told


def apply(text: str) -> None:
    """Change this process for good as HOW says."""
    how = json.loads(text)
    exchange.FIRST_BYTES = exchange.BUCKET_BYTES = 1  # a message for each parameter: many are on their way
    if how["frozen"]:
        nn.BatchNorm2d.forward = fixed  # type: ignore[method-assign]
    if "patches" in how:
        draw, most_patches = match.sample_patches, int(how["patches"])
        match.sample_patches = lambda *words, **more: draw(*words, **more).part(slice(0, most_patches))  # type: ignore[assignment]
    for stage, most in how["stages"].items():
        change(stage, most, how["ranks"], how["where"])


if __name__ == "__main__":
    apply(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
