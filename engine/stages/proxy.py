"""Stage a: a self-supervised proxy task trains the backbone on images without labels (PAPER 1.1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engine import determinism
from engine.config.schema import ProxyConfig
from engine.data.pipeline import epoch_indices, sample_crops
from engine.proxies import build_proxy
from engine.stages.base import Context
from engine.stages.training import Updater, backward


class ProxyStage:
    """Trains ``proxy.kind`` for ``proxy.steps`` steps."""

    name = "proxy"

    def __init__(self, context: Context, config: ProxyConfig) -> None:
        self.context, self.config = context, config
        self.total_steps, self.images_per_step = config.steps, config.batch_size
        self.data = context.data("train").proxy_view()
        seed = context.recipe.seed
        self.task = build_proxy(config, context.backbone(), determinism.generator(seed, "init/proxy"))
        self.module: nn.Module = context.place(self.task).train()
        self.updater = Updater(self.module, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        self.order_seed = determinism.derive_seed(seed, "order/proxy", context.rank)

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        indices = epoch_indices(self.order_seed, step, self.config.batch_size, len(self.data))
        generator = self.context.generator("proxy", step)
        images, _ = sample_crops(self.data, indices, self.config.crop, generator)
        with self.context.autocast():
            loss, metrics = self.task.loss(images, generator)
        backward(loss)
        self.updater.apply()
        return {"loss": loss.detach(), "lr": lr, **metrics}

    def observe(self, done: int) -> dict[str, float]:
        return {}

    def output(self) -> nn.Module:
        return self.module

    def summary(self) -> dict[str, Any]:
        return {"kind": self.config.kind, "images": len(self.data)}
