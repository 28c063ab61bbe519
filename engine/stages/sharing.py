"""How the batches of a step are shared out over several processes, so that together they compute what one would.

Whole batches go to each process where their number allows it. Else every process draws each batch, which is little
work, and computes its part of it: the same random numbers, the same images, the same patches and pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from engine import dist
from engine.config.checks import too_few_values
from engine.config.schema import MatchConfig, Recipe
from engine.errors import RecipeError


@dataclass(frozen=True)
class Share:
    """This process's share of the batches of each step.

    Attributes:
        per_step: batches of a step, of all processes.
        whole: whether they are shared out as wholes; else each process computes a part of each.
        count: batches that this process draws.
        first: the first of them within a step.
        rank: number of this process, 0 to world - 1.
        world: number of processes.
    """

    per_step: int
    whole: bool
    count: int
    first: int
    rank: int
    world: int

    @classmethod
    def of(cls, per_step: int) -> Share:
        """The share of this process."""
        rank, world = dist.rank(), dist.world_size()
        whole = per_step % world == 0
        count = per_step // world if whole else per_step
        return cls(per_step, whole, count, rank * count if whole else 0, rank, world)

    def draws(self, step: int) -> range:
        """Numbers of the batches that this process draws in a step."""
        begin = step * self.per_step + self.first
        return range(begin, begin + self.count)

    def following(self, draw: int) -> int:
        """The batch that this process draws after that one."""
        last = draw % self.per_step == self.first + self.count - 1
        return draw + 1 + (self.per_step - self.count if last else 0)

    def rows(self, size: int) -> slice:
        """Which of the ``size`` rows of a batch that it draws this process computes."""
        return slice(0, size) if self.whole else self._rows(size, self.rank)

    def order(self, sizes: list[int], device: torch.device) -> Tensor | None:
        """Where the rows of batches stand after they were gathered in rank order, int64; None = as in the batches.

        Args:
            sizes: rows of each batch.
            device: where the result is made; a GPU is not waited for.
        """
        if self.whole or len(sizes) == 1:
            return None
        parts = torch.arange(sum(sizes), device=device).split(sizes)
        gathered = [part[self._rows(len(part), rank)] for rank in range(self.world) for part in parts]
        return torch.cat(gathered).argsort()

    def _rows(self, size: int, rank: int) -> slice:
        return slice(size * rank // self.world, size * (rank + 1) // self.world)


def check_shares(recipe: Recipe, stages: Collection[str]) -> None:
    """Refuse what cannot be shared out over the processes at hand, before any stage trains.

    Args:
        stages: those that are to be trained here; the others may have been trained anywhere.

    Raises:
        RecipeError: a batch is no multiple of the processes, or has too little for each, or for batch normalisation; or
            memories of each process's own would be needed, of which a checkpoint holds one.
    """
    world = dist.world_size()
    proxy, match, segment = (
        getattr(recipe, name) if name in stages else None for name in ("proxy", "match", "segment")
    )
    if proxy is not None:
        _require_multiple(proxy.batch_size, "proxy.batch_size", world)
    if match is not None:
        _require_patches(match, world)
    if segment is not None and segment.accumulate % world:
        _require_multiple(segment.batch_size, "segment.batch_size or segment.accumulate", world)
    for problem in too_few_values(recipe, world, stages):
        raise RecipeError(problem)


def _require_patches(match: MatchConfig, world: int) -> None:
    whole, patches = match.graphs % world == 0, match.images * match.patches_per_image
    if whole and world > 1 and match.memory and match.graph_scope == "local":
        raise RecipeError("match.memory on several processes needs match.graph_scope=global, or set match.memory=0")
    if not whole and patches < 2 * world:  # batch normalisation needs two
        raise RecipeError(
            f"match.images times match.patches_per_image of {patches} is too little for {world} processes: make it"
            f" at least {2 * world}"
        )


def _require_multiple(total: int, key: str, world: int) -> None:
    if total % world:
        raise RecipeError(f"{key} of {total} cannot be shared out over {world} processes: make it a multiple")
