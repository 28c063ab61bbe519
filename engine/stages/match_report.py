"""What the match stage tells of its graphs: of all of a step, in all processes (docs/events.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine import dist
from engine.config.checkpoint_meta import Remembered
from engine.config.schema import MatchConfig
from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.stats import StarvationCounter, Tally, tally_graph, tally_windows, told
from engine.mixmatch.windows import Patches
from engine.stages.base import Context
from engine.stages.sharing import Share
from engine.stages.supervision import doubt


@dataclass(frozen=True)
class Matched:
    """One match graph of a step.

    Attributes:
        patches: its nodes' windows; of a graph over whole batches of several processes those of this one alone.
        labels: int64 (N,), class of each node.
        graph: its triplets.
        embeddings: float32 (N, D) without gradient, not normalised.
    """

    patches: Patches
    labels: Tensor
    graph: MatchGraph
    embeddings: Tensor


class GraphReport:
    """Counts nodes at every step without waiting for a GPU; processes exchange their counts when they are told."""

    def __init__(self, context: Context, config: MatchConfig, num_classes: int, share: Share) -> None:
        self.context, self.margin, self.num_classes = context, config.margin, num_classes
        # What is the same in all processes is counted by one: a graph over all of them, and batches that all draw.
        self.windows = context.rank == 0 or share.whole
        self.counts = context.rank == 0 or (share.whole and config.graph_scope == "local")
        self.starvation = StarvationCounter(num_classes)
        self.empty, self.warned = 0, False
        self.per_step = 1 if config.graph_scope == "global" else config.graphs
        self.last, self.remembers = config.steps, config.memory > 0
        self.one_class = 0
        self.one_class_lately: Tensor | None = None
        """Graphs of one class that are not in ``one_class`` yet, on the device: counting them waits for nothing."""

    def note(self, graphs: Sequence[Matched], done: int) -> None:
        """Count the graphs of the step after which ``done`` are done."""
        for matched in graphs:
            self.starvation.update(matched.labels, done)
            if self.counts and not len(matched.labels):
                self.empty += 1
            elif self.counts:
                alone = (matched.labels == matched.labels[0]).all().long()
                self.one_class_lately = alone if self.one_class_lately is None else self.one_class_lately + alone

    def tell(self, graphs: Sequence[Matched], done: int) -> None:
        """Write the ``graph`` event of a step's graphs. All processes have to call it."""
        self._join()
        values = told(self._tally(graphs))
        values |= {"starved": self.starvation.starved(done), "empty_graphs": self.empty}
        self.context.writer.emit("graph", values)
        total, useless = done * self.per_step, self.empty + (0 if self.remembers else self.one_class)
        if done == self.last and 2 * useless > total:
            text = f"{useless} of {total} match graphs held patches of one class alone, or none"
            doubt(self.context, f"{text}: they pushed nothing apart; raise match.images, or look at the labels")

    def _tally(self, graphs: Sequence[Matched]) -> Tally:
        """Of the graphs of all processes."""
        sums: Tally | None = None
        for matched in graphs:
            graph = tally_graph(matched.labels, matched.graph, matched.embeddings, self.margin, self.num_classes)
            windows = tally_windows(matched.patches)
            tally = (graph if self.counts else graph.blank()) | (windows if self.windows else windows.blank())
            sums = tally if sums is None else sums + tally
        assert sums is not None, "a step has a graph"
        return sums.changed(dist.all_reduce_sum, dist.all_reduce_max) if dist.active() else sums

    def _join(self) -> None:
        """Have the counts of all processes: afterwards each knows when a class was last seen, rank 0 the other sum."""
        assert self.starvation.last is not None, "no step has been counted"
        dist.all_reduce_max(self.starvation.last)
        lately = 0 if self.one_class_lately is None else int(self.one_class_lately)
        one_class, self.one_class_lately = sum(dist.exchange(self.one_class + lately)), None
        self.one_class = one_class if self.context.rank == 0 else 0
        total = sum(dist.exchange(self.empty))
        self.empty = total if self.context.rank == 0 else 0
        if total and not self.warned:
            self.warned = True
            text = (
                f"{total} match graph{'s' if total > 1 else ''} had no nodes: no crop of the batch held a labelled"
                " pixel, so nothing was learnt from it; graph events count such graphs as empty_graphs"
            )
            self.context.writer.emit("warning", {"text": text})

    def remembered(self) -> Remembered:
        """What a checkpoint keeps, ready for JSON. All processes have to call it."""
        self._join()
        assert self.starvation.last is not None
        return {
            "last_sampled": self.starvation.last.tolist(),
            "empty_graphs": self.empty,
            "one_class_graphs": self.one_class,
        }

    def recall(self, remembered: Remembered) -> None:
        """Go on from what a checkpoint kept; one from before it existed kept nothing."""
        self.starvation.recall(remembered.get("last_sampled", ()), self.context.device)
        self.one_class = int(remembered.get("one_class_graphs", 0)) if self.context.rank == 0 else 0
        total = int(remembered.get("empty_graphs", 0))
        self.empty, self.warned = total if self.context.rank == 0 else 0, total > 0
