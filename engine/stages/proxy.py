"""Stage a: a proxy task trains the backbone, on images without segmentation labels (PAPER 1.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine import determinism
from engine.config.schema import ProxyConfig
from engine.data.cache import cache_folder
from engine.data.dataset import SegmentationData
from engine.data.images import load_images
from engine.data.pipeline import epoch_indices, sample_crops
from engine.errors import RecipeError
from engine.host import send
from engine.json_types import JsonObject
from engine.proxies import build_proxy
from engine.stages.base import Context
from engine.stages.memory import InPortions, MemoryGuard, in_portions
from engine.stages.training import Updater, backward

MOST_FIRST = 32
"""Images that a task is shown before the first step, at most."""


class ProxyStage(InPortions):
    """Trains ``proxy.kind`` for ``proxy.steps`` steps."""

    name = "proxy"

    def __init__(self, context: Context, config: ProxyConfig) -> None:
        self.context, self.config = context, config
        self.total_steps, self.images_per_step = config.steps, config.batch_size
        self.data, self.targets, self.classes = proxy_images(context, config)
        self.images_per_epoch = len(self.data)
        seed = context.recipe.seed
        init = determinism.generator(seed, "init/proxy")
        self.task = build_proxy(config, context.backbone(), init, len(self.classes))
        self.module: nn.Module = context.place(self.task).train()
        self.order_seed = determinism.derive_seed(seed, "order/proxy", 0)
        with context.memory_for("proxy"):
            self.task.begin(self._first_images)
        self.updater = Updater(self.module, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        share = context.share_of(config.batch_size)
        self.guard = MemoryGuard(context, self.module, self.name, share)
        self.network = self.guard.network

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        values = self.guard.run(step, lambda: self._loss_and_gradients(step))
        self.updater.apply()
        self.task.after_step()
        return {"lr": lr, **values}

    def _loss_and_gradients(self, step: int) -> dict[str, Tensor]:
        """The step's loss and metrics without gradient; gradients are left in the parameters."""
        indices = self.context.indices(self.order_seed, step, self.config.batch_size, len(self.data))
        generator = self.context.generator("proxy", step)
        jitter = True, self.config.scale_jitter, self.config.colour_jitter
        images, _ = sample_crops(self.data, indices, self.config.crop, generator, *jitter)
        self.data.expect(
            lambda: self.context.indices(self.order_seed, step + 1, self.config.batch_size, len(self.data))
        )
        targets = None if self.targets is None else self.targets[send(indices, self.targets.device)]
        images = self.task.prepare(images, generator)
        total: dict[str, Tensor] = {}
        portions = in_portions(torch.arange(len(images), device=images.device), self.splits)
        for number, chosen in enumerate(portions, 1):
            whole, share = len(chosen) == len(images), len(chosen) / len(images)
            labels = None if targets is None else targets[chosen]
            with self.guard.quiet(number < len(portions)):
                with self.context.autocast():
                    loss, metrics = self.network(images if whole else images[chosen], generator, labels)
                with self.guard.last(number == len(portions)):
                    backward(loss, share)
            for name, value in {"loss": loss.detach(), **metrics}.items():
                total[name] = value if whole else total.get(name, 0) + share * value
        return total

    def _first_images(self) -> Tensor:
        """A batch to look at before the first step, the same for all processes."""
        count = min(self.config.batch_size, MOST_FIRST)
        indices = epoch_indices(self.order_seed, 0, count, len(self.data))
        return sample_crops(self.data, indices, self.config.crop, self.context.generator("proxy/first", rank=0))[0]

    def observe(self, done: int) -> dict[str, float]:
        return {}

    def output(self) -> nn.Module:
        return self.task.handed_on()

    def summary(self) -> JsonObject:
        return {"kind": self.config.kind, "images": len(self.data)}


def proxy_images(context: Context, config: ProxyConfig) -> tuple[SegmentationData, Tensor | None, tuple[str, ...]]:
    """The images of a proxy task, their classes int64 (N,) and the names of these; without classes: None and ().

    Raises:
        RecipeError: a supervised task without a folder of its own.
        DataError: the folder cannot be read, or its images fit neither the budget nor the cache's disk.
    """
    if not config.images:
        if config.kind == "classification":
            raise RecipeError(
                "proxy.kind classification needs proxy.images: a folder with one folder of images a class"
            )
        return context.data("train").proxy_view(), None, ()
    seed, cache = context.recipe.seed, cache_folder(context.recipe.runtime.data_cache)
    with context.memory_for("data", lambda: "the images of the proxy task"):
        found = load_images(config, seed, context.budget, context.told(), cache, context.warn, context.tell_cached)
    data = context.placed(found.data, "the images of the proxy task")
    return data, None if found.targets is None else found.targets.to(context.device), found.classes
