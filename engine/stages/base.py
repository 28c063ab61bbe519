"""What every stage has, and what the loop gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine import determinism, dist
from engine.checkpoint import read_meta
from engine.config.checkpoint_meta import CheckpointMeta, ForkedFrom, Remembered
from engine.config.forking import TRAINED_WITH
from engine.config.schema import Recipe
from engine.data.cache import CacheUse, cache_folder
from engine.data.dataset import SegmentationData
from engine.data.limits import GIB, data_budget
from engine.data.listings import Split
from engine.data.pipeline import epoch_indices
from engine.data.progress import Paced
from engine.data.registry import build_data
from engine.data.supervision import Labels
from engine.events import EventWriter
from engine.json_types import JsonObject
from engine.models import Backbone, build_backbone
from engine.models.weights import LoadReport, load_backbone
from engine.stage_cache import StageCache
from engine.stages.best import BestSoFar
from engine.watch import Work, memory_for


class StopRequestedError(Exception):
    """The run was asked to leave; raised only where nothing is lost by it."""


@dataclass
class Context:
    """What the stages of a run share.

    Attributes:
        recipe: the resolved recipe.
        run_dir: where everything of the run is written.
        device: where tensors live.
        writer: the attempt's event file.
        stop_requested: whether the run was asked to leave.
        rank: number of this process, 0 when alone.
        attempt: number of this process life of the run, from 1.
        cache: outputs of stages that other runs have trained; None = every stage is trained here.
        lineage: checkpoints that this run and its forebears were forked from, oldest first.
        data_digest: what identifies the data, "" = not computed.
        doubts: what makes what is trained doubtful, and so the score of whoever takes it over.
        label_counts: what the label maps of splits hold, by split, as far as they were counted.
        echo: takes plain lines for who looks at the trainer's output.
    """

    recipe: Recipe
    run_dir: Path
    device: torch.device
    writer: EventWriter
    stop_requested: Callable[[], bool]
    rank: int = 0
    attempt: int = 1
    cache: StageCache | None = None
    lineage: Sequence[ForkedFrom] = ()
    data_digest: str = ""
    doubts: list[str] = field(default_factory=list)
    label_counts: dict[Split, Labels] = field(default_factory=dict)
    echo: Callable[[str], None] = lambda _line: None
    _data: dict[str, SegmentationData] = field(default_factory=dict)

    def data(self, split: Split) -> SegmentationData:
        """A split, decoded once and kept on the device; or mapped from ``runtime.data_cache`` if it is too large."""
        if split not in self._data:
            self._data[split] = self.placed(self._decoded(split), f"the {split} images")
        return self._data[split]

    def glance(self, split: Split) -> SegmentationData:
        """A split on the host that is not kept, where it takes memory; the one that is kept if there is."""
        if split in self._data:
            return self._data[split]
        found = self._decoded(split)
        if found.mapped:
            self._data[split] = found.to(self.device)
        return found

    def _decoded(self, split: Split) -> SegmentationData:
        cache = cache_folder(self.recipe.runtime.data_cache)
        with self.memory_for("data", lambda: f"the {split} images"):
            return build_data(self.recipe.data, split, self.budget, self.told(), cache, self.warn, self.tell_cached)

    def placed(self, data: SegmentationData, name: str) -> SegmentationData:
        """The same data on the device; mapped ones stay where they are.

        Raises:
            OutOfMemoryError: they do not fit there.
        """
        if data.mapped:
            return data.to(self.device)
        with self.memory_for("data", lambda: f"placing {name} ({data.nbytes / GIB:.3g} GiB)"):
            return data.to(self.device)

    def memory_for(self, work: Work, what: Callable[[], str] = str) -> AbstractContextManager[None]:
        """Around what needs memory: see ``engine.watch.memory_for``."""
        return memory_for(work, self.recipe, self.device, what)

    @property
    def budget(self) -> int:
        """Bytes of further decoded data that may be held in memory."""
        held = sum(data.nbytes for data in self._data.values() if not data.mapped)
        return data_budget(self.recipe.runtime.memory_budget_gib, held, dist.local_size())

    def told(self) -> Paced:
        """Where work that is not training steps reports how far it is; it leaves if asked to."""
        return Paced(self._tell, self.leave_if_asked)

    def progress(self, text: str, done: int, total: int) -> None:
        """Report work that is not training steps; leaves if asked to."""
        self.writer.emit("progress", {"text": text, "done": done, "total": total})
        self.leave_if_asked()

    def _tell(self, text: str, done: int, total: int, left: float | None) -> None:
        eta = {} if left is None else {"eta_seconds": round(left, 1)}
        self.writer.emit("progress", {"text": text, "done": done, "total": total, **eta})

    def warn(self, text: str) -> None:
        """Say what is not as it should be, and does no harm."""
        self.writer.emit("warning", {"text": text})

    def tell_cached(self, use: CacheUse) -> None:
        """Say that data do not fit the budget, how large they are and where they lie."""
        values = {"label": use.label, "folder": str(use.folder), "bytes": use.nbytes, "found": use.found}
        self.writer.emit("data_cache", values)
        how = "read from" if use.found else "decoded into"
        self.echo(
            f"{use.label} images: {use.nbytes / GIB:.2f} GiB, over the {self.budget / GIB:.2f} GiB left for data"
            f" (runtime.memory_budget_gib, at most half of the memory): {how} {use.folder} (runtime.data_cache)"
        )

    def leave_if_asked(self) -> None:
        """Raises StopRequestedError if the run was asked to leave: only for work that can be done again."""
        if self.stop_requested():
            raise StopRequestedError

    def backbone(self) -> Backbone:
        """The backbone with the weights of the last finished stage, else those of the recipe.

        Its random weights depend on the seed alone, so runs that differ in their stages start alike.
        """
        before, config = self.output_of_last_stage(), self.recipe.model
        if before is not None:
            config = config.model_copy(update={"weights": ""})
        backbone = build_backbone(config, determinism.generator(self.recipe.seed, "init/backbone"), self._tell_weights)
        if before is not None:
            load_backbone(backbone, before)
        if isinstance(self.recipe.model.freeze, int):
            backbone.freeze(self.recipe.model.freeze)
        return backbone

    def backbone_before_match(self) -> Backbone:
        """The backbone as it was before it was matched, on the CPU: after the proxy task, else as it began."""
        tuned: CheckpointMeta = read_meta(self._output("match").parent) if self._output("match").is_file() else {}
        # A fork may have taken over what was trained with another seed.
        seed = tuned.get(TRAINED_WITH, tuned.get("recipe", {})).get("seed", self.recipe.seed)
        proxy = self._output("proxy") if self.recipe.proxy is not None else None
        config = self.recipe.model if proxy is None else self.recipe.model.model_copy(update={"weights": ""})
        backbone = build_backbone(config, determinism.generator(seed, "init/backbone"))
        if proxy is not None:
            load_backbone(backbone, proxy)
        return backbone

    def _tell_weights(self, report: LoadReport) -> None:
        """Say what the recipe's weight file has filled; what it has not is worth a warning."""
        file, partial = self.recipe.model.weights, not report.complete
        self.writer.emit("weights", {"file": file, "partial": partial, **report.values()})
        self.echo(f"{self.writer.stage} weights of {file}: {report.counts()}")
        if partial:
            total = len(report.loaded) + len(report.missing) + len(report.mismatched)
            text = f"{file} fills {len(report.loaded)} of {total} keys of the backbone ({report.problems()})"
            self.warn(f"{text}; the others keep their random weights")

    def output_of_last_stage(self) -> Path | None:
        """Weights of the last training stage that has finished."""
        found = None
        for name, _ in self.recipe.stages():
            if self._output(name).is_file():
                found = self._output(name)
        return found

    def _output(self, stage: str) -> Path:
        return self.run_dir / "checkpoints" / stage / "final" / "model.safetensors"

    def indices(self, order_seed: int, draw: int, batch_size: int, count: int) -> Tensor:
        """This process's share of the images of one draw, int64; all shares together are what one process would see."""
        share = self.share_of(batch_size)
        joined = epoch_indices(order_seed, draw, batch_size, count)
        return joined[self.rank * share : (self.rank + 1) * share]

    def share_of(self, total: int) -> int:
        """``total`` divided by the number of processes: ``engine.stages.sharing.check_shares`` found that it can be."""
        return total // dist.world_size()

    def distribute(self, module: nn.Module) -> DistributedDataParallel:
        """The module to call in training, where PyTorch averages the gradients over the processes.

        Buffers are not sent: nothing in training depends on running statistics of batches, and who evaluates takes
        those of rank 0 (PAPER 1.5). A queue of keys is megabytes, and alike in all processes anyway.
        """
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def generator(self, purpose: str, step: int = 0, rank: int | None = None) -> torch.Generator:
        """Randomness for one purpose at one step, on the device; of this process unless ``rank`` says otherwise."""
        rank = self.rank if rank is None else rank
        return determinism.generator(self.recipe.seed, purpose, rank=rank, step=step, device=self.device)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory layout that is fastest there."""
        if self.device.type == "cuda":
            return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        return module.to(self.device)

    def autocast(self) -> torch.autocast:
        """bf16 where the recipe asks for it."""
        enabled = self.recipe.runtime.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


class Stage(Protocol):
    """One stage of a run. The loop calls step(0), step(1), ..., and observe after each."""

    name: str
    total_steps: int
    images_per_step: int
    images_per_epoch: int
    """Images the stage draws from: so many make one pass over all of them. 0 if it does not train."""
    module: nn.Module
    splits: int
    """Into how many portions a batch is cut because memory did not suffice; a resumed stage is told before its first
    step."""

    @property
    def optimiser(self) -> torch.optim.Optimizer | None:
        """What a checkpoint stores beside the weights; None if the stage trains nothing."""

    @property
    def best(self) -> BestSoFar | None:
        """Which evaluation on the way was the best; None if the stage keeps none."""

    def step(self, step: int) -> dict[str, Tensor | float]:
        """Do step ``step`` (0-based): forward, backward, update. Values stay on the device."""

    def observe(self, done: int) -> dict[str, float]:
        """Report what only this stage knows, after ``done`` steps; must not change what later steps compute.

        May raise StopRequestedError; the next attempt then calls it again before it goes on.
        """

    def remembered(self) -> Remembered:
        """What a checkpoint keeps beside weights and optimiser, ready for JSON; all processes call it together."""

    def recall(self, remembered: Remembered) -> None:
        """Take back what ``remembered`` gave, before the first step; {} from a checkpoint that kept nothing."""

    def output(self) -> nn.Module | None:
        """The module whose weights the stage hands on, None if it trains nothing."""

    def summary(self) -> JsonObject:
        """What stands in the meta file of the stage's output."""
