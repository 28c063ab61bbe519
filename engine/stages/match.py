"""Stage b: mix-and-match tuning. Patches of all images are mixed, tied in a class-wise connected graph, and the
backbone is tuned so that patches of one class come together and those of different classes part (PAPER 1.2-1.5)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from engine import determinism, dist
from engine.config.checkpoint_meta import Remembered
from engine.config.schema import MatchConfig
from engine.data.pipeline import OUTSIDE_PIXEL, epoch_indices, sample_crops
from engine.host import one_thread
from engine.json_types import JsonObject
from engine.mixmatch.bank import Bank
from engine.mixmatch.graph import build_match_graph
from engine.mixmatch.loss import contrast_loss, triplet_loss
from engine.mixmatch.patches import sample_patches
from engine.mixmatch.stats import project_2d
from engine.mixmatch.windows import Patches, join
from engine.models import Backbone
from engine.stages.ahead import Ahead
from engine.stages.base import Context
from engine.stages.match_pictures import save_match_pictures
from engine.stages.match_report import GraphReport, Matched
from engine.stages.memory import InPortions, MemoryGuard, in_portions
from engine.stages.patch_inputs import Buffer, patch_inputs
from engine.stages.sharing import Share
from engine.stages.training import Updater, backward

PROJECTIONS = 8
"""How many 2-D projections of the embeddings a stage reports, beside the one of its first step."""


class Embedder(nn.Module):
    """The backbone alone: a node's feature is its flattened last map."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.embed(x)


class Remembering(nn.Module):
    """The same backbone with what is remembered: what a checkpoint of a stage with a memory holds."""

    def __init__(self, embedder: Embedder, bank: Bank) -> None:
        super().__init__()
        self.backbone, self.bank = embedder.backbone, bank


class MatchStage(InPortions):
    """Tunes the backbone for ``match.steps`` steps."""

    name = "match"

    def __init__(self, context: Context, config: MatchConfig) -> None:
        self.context, self.config = context, config
        self.compat = context.recipe.reference_compat
        self.outside = OUTSIDE_PIXEL[context.recipe.model.input]
        self.total_steps, self.images_per_step = config.steps, config.images * config.graphs
        self.share = Share.of(config.graphs)
        # Embeddings of several processes are gathered.
        self.gathers = config.graph_scope == "global" or not self.share.whole
        self.data = context.data("train")
        self.images_per_epoch = len(self.data)
        self.embedder = Embedder(context.backbone())
        self.trained: nn.Module = context.place(self.embedder).train()
        self.bank = self._new_bank()
        self.module = self.trained if self.bank is None else Remembering(self.embedder, self.bank)
        self.updater = Updater(self.trained, config.optim, config.steps)
        self.optimiser = self.updater.optimiser
        nodes = config.images * config.patches_per_image
        nodes = nodes if self.share.whole else nodes // self.share.world
        self.guard = MemoryGuard(context, self.trained, self.name, nodes)
        self.network = self.guard.network
        self.order_seed = determinism.derive_seed(context.recipe.seed, "order/match", 0)
        self.report = GraphReport(context, config, self.data.num_classes, self.share)
        self.ahead: Ahead[tuple[Patches, Tensor]] = Ahead(context.device)
        self.buffers = [Buffer() for _ in range(self.share.count)]
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.matched: list[Matched] = []

    def _new_bank(self) -> Bank | None:
        """An empty memory, if the recipe wants one."""
        config, context = self.config, self.context
        if not config.memory:
            return None
        channels = 1 if context.recipe.model.input == "gray" else 3
        picture = torch.zeros((1, channels, config.output_size, config.output_size), device=context.device)
        with torch.no_grad():
            dimensions = self.embedder.eval()(picture).shape[1]
        self.embedder.train()
        nodes = config.memory * config.graphs * config.images * config.patches_per_image
        with context.memory_for("bank", lambda: f"{nodes} remembered embeddings of {dimensions} numbers"):
            return Bank(nodes, dimensions).to(context.device)

    def step(self, step: int) -> dict[str, Tensor | float]:
        lr = self.updater.begin(step)
        loss = self.guard.run(step, lambda: self._loss_and_gradients(step))
        self.updater.apply()
        self.report.note(self.matched, step + 1)
        if self.bank is not None:
            for embeddings, labels in self.seen:
                self.bank.store(embeddings, labels)
        return {"loss": loss, "lr": lr}

    def _loss_and_gradients(self, step: int) -> Tensor:
        """The step's loss without gradient; gradients are left in the parameters."""
        draws, self.seen, self.matched = self.share.draws(step), [], []
        if self.gathers:
            return self._joined(step, draws)
        losses = []
        for draw in draws:
            patches, pixels = self._mix(draw)
            with self.guard.quiet(draw != draws[-1]):
                losses.append(self._tune(patches, pixels, draw, last=draw == draws[-1]))
            self._mix_next(draw)
        return _mean(losses)

    def _tune(self, patches: Patches, pixels: Tensor, draw: int, *, last: bool) -> Tensor:
        """One graph: embed its patches, tie them, pull and push; its gradients count one share of all graphs'."""
        embeddings = self._embed_all([pixels])
        loss = self._loss(patches, patches.label, embeddings, draw)
        self._differentiate(loss, 1 / self.share.count, [pixels], embeddings, last=last)
        return loss.detach()

    def _joined(self, step: int, draws: range) -> Tensor:
        """Graphs over what several processes embed: rows are gathered, each process differentiates its own."""
        mixed = [self._mix(draw) for draw in draws]
        batches, patches = [pixels for _, pixels in mixed], [patches for patches, _ in mixed]
        own = self._embed_all(batches)
        labels = torch.cat([part.label[self.share.rows(len(part))] for part in patches])
        # A process has one row more than its part of a batch where that does not come out even.
        capacity = self.share.count * (self.guard.size + 1)
        labels, embeddings = dist.gather_rows([labels, own], capacity, self.guard.meet)
        order = self.share.order([len(part) for part in patches], labels.device)
        if order is not None:
            labels, embeddings = labels[order], embeddings[order]
        if self.config.graph_scope == "global":
            loss = self._loss(join(patches, self.config.images), labels, embeddings, step)
        else:
            each = zip(patches, embeddings.split([len(part) for part in patches]), draws, strict=True)
            loss = _mean([self._loss(part, part.label, rows, draw) for part, rows, draw in each])
        # The mean over processes that follows is of gradients that add up.
        self._differentiate(loss, dist.world_size(), batches, own, last=True)
        self._mix_next(draws[-1], len(draws))  # of all that a step's graphs join
        return loss.detach()

    def _embed_all(self, batches: list[Tensor]) -> Tensor:
        """Embeddings of all patches, joined; in portions they are a leaf, as the network keeps nothing of them then."""
        if self.splits == 1:
            embeddings = [self._embed(pixels) for pixels in batches]
            return torch.cat(embeddings) if len(embeddings) > 1 else embeddings[0]
        was = [buffer.clone() for buffer in self.trained.buffers()]
        with torch.no_grad():
            joined = torch.cat([self._embed(portion) for portion in self._portions(batches)])
            for buffer, old in zip(self.trained.buffers(), was, strict=True):
                buffer.copy_(old)  # the second pass counts, not both
        return joined.requires_grad_()

    def _differentiate(
        self, loss: Tensor, share: float, batches: list[Tensor], embeddings: Tensor, *, last: bool
    ) -> None:
        """Gradients of ``share * loss``; in portions each one is embedded again, which needs memory for one alone.

        Args:
            embeddings: what ``_embed_all`` made of the batches.
            last: whether it is the last of the step.
        """
        if self.splits == 1:
            with self.guard.last(last):
                backward(loss, share)
            return
        backward(loss, share)
        assert embeddings.grad is not None
        portions = self._portions(batches)
        grads = embeddings.grad.split([len(portion) for portion in portions])
        for number, (portion, grad) in enumerate(zip(portions, grads, strict=True), 1):
            final = last and number == len(portions)
            with self.guard.quiet(not final):
                again = self._embed(portion)
                with self.guard.last(final):
                    again.backward(grad)

    def _portions(self, batches: list[Tensor]) -> list[Tensor]:
        return [portion for pixels in batches for portion in in_portions(pixels, self.splits)]

    def _embed(self, pixels: Tensor) -> Tensor:
        with self.context.autocast():
            embeddings: Tensor = self.network(pixels)
        return embeddings.float()

    def _loss(self, patches: Patches, labels: Tensor, embeddings: Tensor, draw: int) -> Tensor:
        """Loss of the graph of one draw. Its random numbers do not depend on the process that computes it."""
        config = self.config
        graph = build_match_graph(
            labels,
            strategy=config.strategy,
            generator=self.context.generator("match/graph", draw, rank=0),
            embeddings=embeddings,
        )
        self.matched.append(Matched(patches, labels, graph, embeddings.detach()))
        normalizer = "reference" if self.compat else config.normalizer
        if self.bank is None:
            if config.loss != "triplet":
                return contrast_loss(embeddings, labels, graph, config.temperature)
            return triplet_loss(embeddings, graph, margin=config.margin, normalizer=normalizer)
        # Stored at the end of the step, so that a step that is computed again finds the same memory.
        self.seen.append((embeddings.detach(), labels))
        generator = self.context.generator("match/memory", draw, rank=0)
        if config.loss != "triplet":
            near, _ = self.bank.draw(labels, generator)
            past = self.bank.embeddings, self.bank.labels, near
            return contrast_loss(embeddings, labels, graph, config.temperature, past)
        embeddings, graph = self.bank.extend(embeddings, labels, graph, generator)
        return triplet_loss(embeddings, graph, margin=config.margin, normalizer=normalizer)

    def _mix(self, draw: int) -> tuple[Patches, Tensor]:
        """``_mix_now``, or what it has prepared while the network was busy with the step before."""
        return self.ahead.take(draw, self._mix_now)

    def _mix_next(self, draw: int, count: int = 1) -> None:
        """Prepare the ``count`` batches that this process mixes after ``draw``, where that is worth while."""
        following = self.share.following(draw)
        if self.ahead.active and following < self.total_steps * self.config.graphs:
            self.ahead.prepare(range(following, following + count), self._mix_now)

    def _mix_now(self, draw: int) -> tuple[Patches, Tensor]:
        """Patches of one batch of images, and the pixels (n, C, output_size, output_size) of this process's part."""
        config, generator = self.config, partial(self.context.generator, step=draw, rank=0)
        indices = epoch_indices(self.order_seed, draw, config.images, len(self.data))
        crops = generator("match/crop")
        jitter = True, config.scale_jitter, config.colour_jitter
        images, labels = sample_crops(
            self.data,
            indices,
            config.crop,
            crops,
            *jitter,
            label_dtype=torch.uint8,
            channels_last=True,
            fill=self.outside,
        )
        following = self.share.following(draw)
        self.data.expect(lambda: epoch_indices(self.order_seed, following, config.images, len(self.data)))
        with one_thread():  # many operations on little data
            patches = sample_patches(
                labels,
                config.patches_per_image,
                size=config.patch_size,
                background=config.background,
                background_ratio=config.background_ratio,
                overlap=config.overlap,
                generator=generator("match/patches"),
                reference_compat=self.compat,
                centres=config.centres,
                candidates=config.candidates,
                purity=self._told(draw // config.graphs + 1),
            )
        # Only where embeddings are gathered are the patches of several batches needed at once.
        into = self.buffers[draw % self.share.count if self.gathers else 0]
        own = patches if self.share.whole else patches.part(self.share.rows(len(patches)))
        return patches, patch_inputs(images, own, config.output_size, self.context.recipe.model.input, into)

    def _told(self, done: int) -> bool:
        """Whether there is a graph event after that many steps."""
        return done % self.context.recipe.runtime.graph_every == 0 or done == self.total_steps

    def observe(self, done: int) -> dict[str, float]:
        if not self.matched:
            return {}
        if self._told(done):
            self.report.tell(self.matched, done)
        if done == 1 or done % max(1, self.total_steps // PROJECTIONS) == 0:
            self._report_projection(self.matched[-1])
        save_match_pictures(self, done)
        return {}

    def remembered(self) -> Remembered:
        return self.report.remembered()

    def recall(self, remembered: Remembered) -> None:
        self.report.recall(remembered)

    def _report_projection(self, matched: Matched) -> None:
        """Of one graph: nodes of several would not have edges to each other."""
        labels, graph, embeddings = matched.labels, matched.graph, matched.embeddings
        with torch.no_grad():
            points = project_2d(embeddings.float()).cpu()
        values = {
            "x": [round(v, 4) for v in points[:, 0].tolist()],
            "y": [round(v, 4) for v in points[:, 1].tolist()],
            "label": labels.tolist(),
            "positive": graph.positive.tolist(),
            "negative": torch.where(graph.has_negative, graph.negative, -1).tolist(),
            "order": graph.order.tolist(),
        }
        self.context.writer.emit("projection", values)

    def output(self) -> nn.Module:
        return self.trained

    def summary(self) -> JsonObject:
        return {"strategy": self.config.strategy, "margin": self.config.margin}


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean() if len(losses) > 1 else losses[0]
