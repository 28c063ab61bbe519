"""What it costs several processes that each of them may run out of memory: against DistributedDataParallel, in one run.

    python benchmarks/bench_exchange.py [--rounds 20] [--steps 3]

Two processes over gloo, one thread each, on a CPU. Each step is a forward and a backward pass of the same network on
data that lie ready. "ours" meets the other process twice a step and averages gradients with ``engine.stages.exchange``;
the rival is DistributedDataParallel as torch ships it. They take turns. A meeting alone is timed by itself: on a GPU
it is all that is added, and it waits for the other host, not for the GPUs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed as torch_dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine import dist
from engine.config.schema import ModelConfig
from engine.models import build_backbone
from engine.stages.exchange import GradientMean

MEETINGS = 300


def embed(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """A loss of the backbone's last map."""
    maps: torch.Tensor = backbone(pixels)
    return maps.square().mean()


def steps_of(name: str, width: float, side: int) -> dict[str, Callable[[], None]]:
    """A step of ours and one of the rival's, on networks of the same weights."""
    config = ModelConfig(backbone=name, width=width)
    pixels = torch.randn(4, 3, side, side)
    ours, theirs = (build_backbone(config, torch.Generator().manual_seed(1)) for _ in range(2))
    mean = GradientMean(ours)
    parallel = DistributedDataParallel(theirs)

    def own() -> None:
        ours.zero_grad(set_to_none=True)
        loss = embed(ours, pixels)
        dist.exchange(0)
        mean.open()
        loss.backward()
        mean.close()
        dist.exchange(0)
        mean.finish()

    def rival() -> None:
        theirs.zero_grad(set_to_none=True)
        embed(parallel, pixels).backward()

    return {"ours": own, "DDP": rival}


def timed(work: Callable[[], object], times: int) -> float:
    """Milliseconds of one call."""
    torch_dist.barrier()
    began = time.perf_counter()
    for _ in range(times):
        work()
    return 1e3 * (time.perf_counter() - began) / times


def worker(rank: int, meet: str, rounds: int, steps: int) -> None:
    """One of the two processes; rank 0 prints."""
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    say = print if rank == 0 else lambda _: None
    say(f"torch {torch.__version__}, 2 processes over gloo, median of {rounds} rounds, ms [min-max]")
    for name, width, side in (("tiny_vgg", 1.0, 64), ("resnet18", 0.5, 64), ("vgg16", 0.5, 64)):
        works = steps_of(name, width, side)
        found: dict[str, list[float]] = {key: [] for key in works}
        for turn in range(rounds + 1):
            for key, work in works.items():
                took = timed(work, steps)
                if turn:
                    found[key].append(took)
        ratio = statistics.median(o / t for o, t in zip(found["ours"], found["DDP"], strict=True))
        cells = [f"{key} {statistics.median(v):8.2f} [{min(v):.2f}-{max(v):.2f}]" for key, v in found.items()]
        say(f"{name} x {width:<4} {'   '.join(cells)}   ours / DDP {ratio:.3f}")
    meetings = [timed(lambda: dist.exchange(0), MEETINGS) for _ in range(5)]
    say(f"a meeting        {statistics.median(meetings):.3f} [{min(meetings):.3f}-{max(meetings):.3f}]")
    torch_dist.barrier()
    dist.finish()


def main() -> None:
    """Start both processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3, help="a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (str(Path(folder) / "meet"), options.rounds, options.steps)
        torch.multiprocessing.spawn(worker, arguments, nprocs=2)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
