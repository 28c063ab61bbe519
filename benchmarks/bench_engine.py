"""What the engine costs beside a bare loop, and how much of the machine it uses; everything measured in one run.

    python benchmarks/bench_engine.py [--device cuda] [--recipe voc_vgg16_random_mixmatch] [--set KEY=VALUE ...]

For the match step and the segment step of a recipe: the engine's own step beside the same network in a bare loop on
data that lie ready (forward, loss, backward, update; nothing sampled, nothing logged). The two take turns. Overhead is
that of ``stage.step`` alone: graph events, projections, pictures, lines of metrics and checkpoints lie outside. FLOPs
are counted by torch's own counter; the peak is a large matrix product of the same precision, measured here, and on GPUs
whose figure is published that one too. The share of sampling, graph and statistics is timed by itself.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from engine import determinism
from engine.config import Recipe, load_recipe
from engine.data import waiting
from engine.data.pipeline import epoch_indices, normalise, sample_crops
from engine.events import SilentWriter
from engine.host import one_thread
from engine.mixmatch.graph import build_match_graph
from engine.mixmatch.loss import triplet_loss
from engine.mixmatch.patches import sample_patches
from engine.mixmatch.purity import class_share
from engine.mixmatch.stats import graph_statistics
from engine.optim import build_optimiser
from engine.stages import Context, build_stage
from engine.stages.match import MatchStage
from engine.stages.patch_inputs import Buffer, patch_inputs
from engine.stages.pixel_losses import pixel_loss
from engine.stages.segment import SegmentStage, sample_pixels

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
PUBLISHED_PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s from the makers' data sheets."""


@dataclass
class Timed:
    """Milliseconds of one thing, round by round."""

    name: str
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        return f"{self.name:<46}{self.median:>10.2f} ms  [{min(self.rounds):.2f}-{max(self.rounds):.2f}]"


def wait(device: torch.device) -> None:
    """Let a GPU finish what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(device: torch.device, rounds: int, steps: int, **works: Callable[[int], object]) -> dict[str, Timed]:
    """Milliseconds per step of each work; one uncounted round first.

    On a CPU with one thread it is the processor's time, which other programs disturb little.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            wait(device)
            start = clock()
            for step in range(turn * steps, (turn + 1) * steps):
                work(step)
            wait(device)
            if turn:
                found[name].append(1e3 * (clock() - start) / steps)
    return {name: Timed(name, times) for name, times in found.items()}


def bare_match(stage: MatchStage) -> Callable[[int], object]:
    """The match network on patches that lie ready, with fixed triplets."""
    context = stage.context
    patches, pixels = stage._mix(0)
    graph = build_match_graph(patches.label, "graph", context.generator("bench"))
    module, optimiser = _copy(stage.module, context, stage.config.optim)

    def step(_: int) -> None:
        optimiser.zero_grad(set_to_none=True)
        with context.autocast():
            embeddings = module(pixels)
        unit = F.normalize(embeddings.float(), dim=1)
        near = (unit - unit[graph.positive]).square().sum(dim=1)
        far = (unit - unit[graph.negative]).square().sum(dim=1)
        F.relu(near - far + stage.config.margin).mean().backward()
        optimiser.step()

    return step


def bare_segment(stage: SegmentStage) -> Callable[[int], object]:
    """The segmentation network on crops that lie ready, with fixed pixels."""
    context, config = stage.context, stage.config
    images, labels, generator = stage._batch(0)
    ys, xs = (sample_pixels(labels, config.pixels, config.pixel_margin, generator) for _ in range(2))
    target = labels[torch.arange(len(labels), device=labels.device)[:, None], ys, xs]
    inputs = normalise(images, context.recipe.model.input)
    module, optimiser = _copy(stage.module, context, config.optim)

    def step(_: int) -> None:
        optimiser.zero_grad(set_to_none=True)
        for _part in range(config.accumulate):
            with context.autocast():
                logits = module(inputs, ys, xs) if getattr(module, "sparse", True) else module(inputs)
            loss = pixel_loss(logits.float(), target) if logits.ndim == 3 else _dense(logits.float(), labels)
            (loss / config.accumulate).backward()
        optimiser.step()

    return step


def _dense(logits: Tensor, labels: Tensor) -> Tensor:
    flat = logits.permute(0, 2, 3, 1).flatten(0, 2)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=255)


def _copy(module: nn.Module, context: Context, optim: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    import copy

    twin = copy.deepcopy(module).train()
    return twin, build_optimiser(twin, optim)


def count_flops(step: Callable[[int], object]) -> int:
    """FLOPs of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step(0)
    return int(counter.get_total_flops())


def matmul_peak(context: Context) -> float:
    """FLOP/s of a large matrix product in the recipe's precision: what this machine can really do."""
    size = 8192 if context.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if context.recipe.runtime.precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=context.device, dtype=dtype) for _ in range(2))
    times = take_turns(context.device, 5, 3, product=lambda _: left @ right)["product"]
    return 2 * size**3 / (times.median / 1e3)


def parts_of_match(stage: MatchStage, rounds: int, steps: int) -> dict[str, Timed]:
    """What the step does beside the network, part by part."""
    context, config = stage.context, stage.config
    generator = context.generator("bench")
    indices = epoch_indices(0, 0, config.images, len(stage.data))
    narrow = {"label_dtype": torch.uint8, "channels_last": True}
    images, labels = sample_crops(stage.data, indices, config.crop, generator, **narrow)
    buffer = Buffer()

    def sample(_: int) -> Any:
        with one_thread():
            return sample_patches(
                labels,
                config.patches_per_image,
                config.patch_size,
                config.background,
                generator=generator,
                purity=False,  # as at all steps but those of a graph event
            )

    def cut(_: int) -> Tensor:
        return patch_inputs(images, patches, config.output_size, context.recipe.model.input, buffer)

    def measure(_: int) -> Any:
        windows = patches.image, patches.cy, patches.cx, patches.size, patches.label
        with one_thread():
            measured = replace(patches, purity=class_share(labels, *windows))
        return graph_statistics(patches.label, graph, embeddings, config.margin, measured, stage.data.num_classes)

    patches = sample(0)
    graph = build_match_graph(patches.label, config.strategy, generator)
    with torch.no_grad():
        embeddings = stage.embedder(cut(0))
    return take_turns(
        context.device,
        rounds,
        steps,
        crops=lambda _: sample_crops(stage.data, indices, config.crop, generator, **narrow),
        sampling=sample,
        cutting=cut,
        graph=lambda _: build_match_graph(patches.label, config.strategy, generator),
        statistics=measure,
        loss=lambda _: triplet_loss(embeddings, graph, config.margin),
    )


def report(name: str, stage: Any, bare: Callable[[int], object], images: int, rounds: int, steps: int) -> Timed:
    """Print one stage's step beside the bare loop."""
    context = stage.context
    if context.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.device)
    waits: list[float] = []

    def counted(number: int) -> None:
        before = waiting.seconds()
        stage.step(number)
        waits.append(waiting.seconds() - before)

    times = take_turns(context.device, rounds, steps, ours=counted, bare=bare)
    flops = count_flops(bare)
    ours, floor = times["ours"], times["bare"]
    print(Timed(f"{name} step, engine", ours.rounds))
    print(Timed(f"{name} step, bare loop on ready data", floor.rounds))
    # Round by round: a machine that grows slower for a while does so for both.
    over = sorted(100 * (a / b - 1) for a, b in zip(ours.rounds, floor.rounds, strict=True))
    low, high = over[len(over) // 4], over[-1 - len(over) // 4]
    middle = f"middle half of {len(over)} rounds: {low:.1f} to {high:.1f}"
    print(f"{'  overhead over the bare loop, median':<46}{statistics.median(over):>10.1f} %   [{middle}]")
    print(f"{'  images per second':<46}{1e3 * images / ours.median:>10.1f}")
    share = 1e3 * statistics.median(waits) / ours.median
    print(f"{'  share of the step that the data are waited for':<46}{100 * share:>10.1f} %")
    rate, peak = flops / (ours.median / 1e3), matmul_peak(context)
    print(f"{'  counted FLOPs a step':<46}{flops / 1e9:>10.1f} G")
    print(
        f"{'  share of a matrix product of this machine':<46}{100 * rate / peak:>10.1f} %  ({peak / 1e12:.2f} TFLOP/s)"
    )
    if context.device.type == "cuda":
        card = torch.cuda.get_device_name(context.device)
        for key, published in PUBLISHED_PEAK.items():
            if key in card:
                print(f"{'  MFU against the data sheet (bf16)':<46}{100 * rate / published:>10.1f} %")
        print(f"{'  peak GPU memory':<46}{torch.cuda.max_memory_allocated(context.device) / 2**30:>10.2f} GiB")
    else:
        peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{'  peak memory of the process':<46}{peak_memory:>10.2f} GiB")
    return ours


def header(recipe: Recipe, device: torch.device, threads: int) -> None:
    """What was measured on."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}, {threads} CPU threads")
    print(f"recipe {recipe.name}, {recipe.model.backbone} x {recipe.model.width:g}, {recipe.runtime.precision}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="shapes_mixmatch", help="recipe with a match and a segment stage")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5, help="rounds after one warm-up")
    parser.add_argument("--steps", type=int, default=8, help="steps of a round")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, [f"runtime.device={options.device}", *options.set], [FOLDER])
    threads = determinism.configure(recipe.runtime.threads, recipe.runtime.deterministic)
    device = torch.device(options.device)
    header(recipe, device, threads)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(recipe, Path(folder), device, SilentWriter(), lambda: False)
        match = build_stage(context, "match")
        assert isinstance(match, MatchStage)
        step = report("match", match, bare_match(match), match.images_per_step, options.rounds, options.steps)
        nodes = match.images_per_step * match.config.patches_per_image
        print(f"{'  patches per second':<46}{1e3 * nodes / step.median:>10.0f}")
        parts = parts_of_match(match, options.rounds, options.steps)
        for timed in parts.values():
            print(Timed(f"  of which {timed.name}", timed.rounds))
        every = recipe.runtime.graph_every
        ours = parts["sampling"].median + parts["graph"].median + parts["statistics"].median / every
        share = 100 * match.config.graphs * ours / step.median
        print(f"{f'  sampling + graph + statistics every {every} steps':<46}{share:>10.1f} % of the step\n")
        segment = build_stage(context, "segment")
        assert isinstance(segment, SegmentStage)
        report("segment", segment, bare_segment(segment), segment.images_per_step, options.rounds, options.steps)


if __name__ == "__main__":
    main()
