"""What a recipe needs: a few real steps of every stage are timed, and the memory they take is read."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import torch

from engine import determinism, own_code
from engine.config.best import LOSS
from engine.config.schema import Recipe
from engine.data import pictures
from engine.data.cache import CacheUse
from engine.errors import EngineError
from engine.events import SilentWriter
from engine.json_types import JsonObject
from engine.models import Backbone
from engine.stages import Context, build_stage
from engine.stages.evaluate import adding_to
from engine.stages.protocols import Member, Predictor
from engine.stages.segmenter import build_segmenter
from engine.stages.validation_loss import ValidationLoss

STEPS = 3
"""The first step also loads kernels and takes its memory; the others are timed."""
CHILD_SECONDS = 900.0


class _Measurement(Context):
    """A run that only measures: no stage goes on from another.

    It decodes nothing into the data cache: a measurement has little time, and what was decoded until it is killed
    would be lost.
    """

    def backbone_before_match(self) -> Backbone:
        return self.backbone()

    def tell_cached(self, use: CacheUse) -> None:
        if not use.found:
            raise EngineError(
                f"{use.label} images are over runtime.memory_budget_gib and not decoded into {use.folder} yet: "
                "train the recipe once, which decodes them, or raise runtime.memory_budget_gib to measure without"
            )


class Needs(TypedDict):
    """What was measured of a recipe.

    Keys:
        stages: {stage: {``seconds_per_step``}}, for evaluate {``seconds``} of all images.
        peak_bytes: memory of the GPU that the process held at most, the driver's share included; on the CPU the
            process's largest resident size.
    """

    stages: dict[str, dict[str, float]]
    peak_bytes: int


def probe(recipe: Recipe, device: torch.device) -> Needs:
    """Take ``STEPS`` real steps of every training stage and predict one batch of the validation split.

    Raises:
        EngineError: bad data, or data over the budget that no run has decoded yet, or the memory does not suffice.
    """
    determinism.configure(recipe.runtime.threads, recipe.runtime.deterministic)
    pictures.allow(recipe.runtime.max_megapixels)
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="mmtui-probe-") as folder:
        context = _Measurement(recipe, Path(folder), device, SilentWriter(), lambda: False)
        for name, _ in recipe.stages():
            if name == "evaluate":
                stages[name] = {"seconds": round(_evaluation_seconds(context), 4)}
            else:
                stages[name] = {"seconds_per_step": round(_seconds_per_step(context, name), 6)}
    return {"stages": stages, "peak_bytes": peak_bytes(device)}


def _seconds_per_step(context: Context, name: str) -> float:
    stage = build_stage(context, name)
    began = 0.0
    for step in range(STEPS):
        if step == 1:
            _settle(context.device)
            began = time.perf_counter()
        determinism.seed_global(context.recipe.seed, name, rank=0, step=step)
        stage.step(step)
    _settle(context.device)
    return (time.perf_counter() - began) / (STEPS - 1)


def _evaluation_seconds(context: Context) -> float:
    config, data = context.recipe.evaluate, context.data("val")
    assert config is not None
    model = context.place(build_segmenter(context, data.num_classes)).eval()
    predictor = Predictor([Member.of(model, context.recipe.model)], config, context.autocast)  # type: ignore[arg-type]
    count = min(config.batch_size, len(data))
    images, labels = data.batch(0, count)
    sizes = [(height, width) for height, width in data.sizes[:count].tolist()]
    segment = context.recipe.segment
    by_loss = segment is not None and segment.keep_best == LOSS
    watch = adding_to(ValidationLoss(count), 0, labels) if by_loss else None  # takes memory of its own
    predictor.classes(images, sizes, watch)
    _settle(context.device)
    began = time.perf_counter()
    predictor.classes(images, sizes, watch)
    _settle(context.device)
    return (time.perf_counter() - began) * len(data) / count


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """Most memory that this process has held, bytes."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    free, total = torch.cuda.mem_get_info(device)
    # What the allocator does not know of: the driver's context, libraries, and other processes on the GPU.
    outside = total - free - torch.cuda.memory_reserved(device)
    return int(torch.cuda.max_memory_reserved(device) + max(outside, 0))


def probe_in_child(recipe_file: Path) -> JsonObject:
    """The same in a process of its own, whose memory is given back whole.

    Raises:
        EngineError: it failed; the message is its last line.
    """
    command = own_code.command("engine", "probe", "--json", "--recipe", str(recipe_file))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EngineError(f"the measurement did not end within {CHILD_SECONDS:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(f"the measurement failed: {last.removeprefix('error: ')}")
    found: JsonObject = json.loads(done.stdout)
    return found
