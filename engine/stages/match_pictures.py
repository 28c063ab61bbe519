"""Pictures that the match stage keeps in ``RUN/images``, a handful of times; the newest replaces the last.

- ``match_patches.png``: patches of the last graph, by class.
- ``match_boxes.png``: their windows over the crops they were cut from.
- ``match_graph.json`` and ``match_nodes.png``: nodes and edges of that graph and a thumbnail of every node, from which
  ``python -m engine pictures`` draws it.

The crops are drawn again from the step's own generators, so training does not notice.
"""

from __future__ import annotations

import json
from typing import Protocol

import torch
from torch import Tensor

from engine.config.schema import MatchConfig
from engine.data.dataset import SegmentationData
from engine.data.pipeline import epoch_indices, sample_crops
from engine.json_types import JsonObject
from engine.mixmatch.graph import MatchGraph
from engine.mixmatch.patches import crop_patches
from engine.mixmatch.windows import Patches
from engine.stages.base import Context
from engine.stages.match_report import Matched
from engine.stages.palette import palette_of
from engine.stages.pictures import box_sheet, node_sheet, patch_sheet
from engine.stages.predictions import write_png, write_text
from engine.stages.sharing import Share

TIMES = 4
"""Pictures are made after the first step and at so many later ones, evenly spread."""
PATCH_SIDE, NODE_SIDE, BOX_IMAGES = 64, 32, 4


class Mixing(Protocol):
    """What is drawn: a match stage after a step.

    Attributes:
        matched: the step's graphs.
        order_seed: seed of the order in which images are drawn.
        outside: R, G and B of what a crop holds outside of its image.
    """

    context: Context
    config: MatchConfig
    total_steps: int
    data: SegmentationData
    share: Share
    matched: list[Matched]
    order_seed: int
    outside: tuple[int, int, int]


def due(done: int, total: int) -> bool:
    """Whether pictures are made after ``done`` of ``total`` steps."""
    return done == 1 or done % max(1, total // TIMES) == 0


@torch.no_grad()
def save_match_pictures(stage: Mixing, done: int) -> None:
    """Write the pictures of the last graph and their events, if they are due; one process does.

    Raises:
        OSError: the disk does not take them.
    """
    context = stage.context
    if not stage.matched or context.rank > 0 or not due(done, stage.total_steps):
        return
    last = stage.matched[-1]
    patches, labels, graph = last.patches, last.labels, last.graph
    images = _crops(stage, done)
    own = _of_first_images(patches, len(images))
    classes, folder = stage.data.classes, context.run_dir / "images"
    palette = palette_of(classes)
    write_png(folder / "match_patches.png", patch_sheet(_cut(images, own, PATCH_SIDE), own.label, classes, palette))
    write_png(folder / "match_boxes.png", box_sheet(images, own, classes, palette, BOX_IMAGES))
    whole = len(own) == len(labels)
    if whole:
        write_png(folder / "match_nodes.png", node_sheet(_cut(images, own, NODE_SIDE)))
    write_text(folder / "match_graph.json", json.dumps(_snapshot(labels, graph, classes, done, whole)))
    for number, name in enumerate(("match_patches", "match_boxes")):
        values = {"index": number, "name": name, "kind": name, "image": f"images/{name}.png"}
        context.writer.emit("image", {**values, "truth": "", "prediction": ""})


def _crops(stage: Mixing, done: int) -> Tensor:
    """The images of the draw that the last graph's first patches come from, uint8 (B, 3, crop, crop)."""
    config = stage.config
    draws = stage.share.draws(done - 1)
    draw = draws[0] if config.graph_scope == "global" else draws[-1]
    indices = epoch_indices(stage.order_seed, draw, config.images, len(stage.data))
    generator = stage.context.generator("match/crop", draw, rank=0)
    jitter = True, config.scale_jitter, config.colour_jitter
    images, _ = sample_crops(stage.data, indices, config.crop, generator, *jitter, fill=stage.outside)
    return images


def _of_first_images(patches: Patches, count: int) -> Patches:
    """The patches of images 0 .. count - 1."""
    return patches.part(patches.image < count)


def _cut(images: Tensor, patches: Patches, side: int) -> Tensor:
    """Pixels of the patches, uint8 (N, 3, side, side)."""
    return crop_patches(images, patches, output_size=side).round_().clamp_(0, 255).to(torch.uint8)


def _snapshot(labels: Tensor, graph: MatchGraph, classes: tuple[str, ...], done: int, nodes: bool) -> JsonObject:
    return {
        "step": done,
        "classes": list(classes),
        "labels": labels.tolist(),
        "positive": graph.positive.tolist(),
        "negative": graph.negative.tolist(),
        "has_negative": graph.has_negative.tolist(),
        "thumbnails": NODE_SIDE if nodes else 0,
    }
