"""What is wrong with a recipe whose every value is fine by itself: one sentence, that says what to write instead."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from pydantic import BaseModel

from engine.config import best
from engine.config.backbones import TIMM_WEIGHTS, is_timm
from engine.config.named_classes import background_problem
from engine.config.optim import OptimConfig
from engine.config.sections import MatchConfig, ModelConfig, ProxyConfig, RecipeFields, SegmentConfig

MOST_STEPS = 10**15
LARGEST_NUMBER = 2**63 - 1
"""Of whole numbers; databases and tensors hold no larger ones."""
CLASS_COUNTS = {"shapes": 9, "voc": 21, "cityscapes": 19}
"""Classes of the data sets that need no file to know them."""
LAYERS = {
    "tiny_vgg": 7,
    "vgg16": 13,
    "alexnet": 5,
    "alexnet_jigsaw": 5,
    "alexnet_torchvision": 5,
    "resnet18": 9,
    "resnet50": 17,
}
"""How many layers can be reset, by backbone."""
OWN_VIEWS = ("moco", "densecl")
"""Proxy tasks that draw views of their images, with other sizes and colours, themselves."""
LARGEST_FACTOR = 16.0
"""Of resizing: what is larger is a slip, and takes any memory."""
LARGEST_WEIGHT = 1e6
"""Of a class in the loss."""
DILATED = ("resnet18", "resnet50")
"""Backbones with a dilated form."""
SMALLEST_SIDE = {"alexnet": 29, "alexnet_torchvision": 7}
"""Sides below which a backbone's last pooling has nothing left, pixels; the others take any."""
ONE_CELL = {"tiny_vgg": 16, "vgg16": 16, "resnet18": 32, "resnet50": 32}
"""Sides up to which a backbone's last normalised map is one cell: batches of one image have no variance there."""
ONE_CELL_FOR_HEADS = {**ONE_CELL, "vgg16": 32, "alexnet": 60, "alexnet_torchvision": 94}
"""The same with the heads fcn, aspp and deeplabv3plus, which normalise the pooled map."""
ONE_CELL_EARLIER = {"alexnet_torchvision": 46}
"""The same of the earlier map that an auxiliary head normalises, of the crops that there may be (from 16 pixels on)."""
_ONE_CELL_BY_HEAD = {
    **dict.fromkeys(("fcn", "aspp", "deeplabv3plus"), ONE_CELL_FOR_HEADS),
    **dict.fromkeys(("upernet", "pyramid"), ONE_CELL | ONE_CELL_EARLIER),
}
SEVERAL_PICTURES = ("jigsaw", "rotation")
"""Proxy tasks that show the network several pictures of each image: nine tiles, four turns."""


def problems(recipe: RecipeFields) -> Iterator[str]:
    """Sentences, the first mistake first."""
    yield from _whole_numbers(recipe, "")
    if recipe.proxy is None and recipe.match is None and recipe.segment is None:
        yield "the recipe has no training stage: give proxy, match or segment"
    if recipe.evaluate is not None and recipe.segment is None:
        yield "evaluate needs segment: add a segment section, or set evaluate to null"
    if recipe.data.kind == "shapes" and not 0 <= recipe.data.objects[0] <= recipe.data.objects[1]:
        yield f"data.objects {_pair(recipe.data.objects)}: give the smaller number first, at least 0"
    yield from _model(recipe)
    if recipe.match is not None:
        yield from _match(recipe.match)
        yield from background_problem(recipe.match.background, CLASS_COUNTS.get(recipe.data.kind))
    if recipe.segment is not None:
        yield from _segment(recipe.segment, recipe.model)
        yield from _reset(recipe)
        yield from _best(recipe)
    for name in ("proxy", "match", "segment"):
        section = getattr(recipe, name)
        if section is not None:
            yield from _jitter(name, section.scale_jitter)
            yield from _milestones(name, section.optim)
            yield from _betas(name, section.optim)
    if recipe.proxy is not None:
        yield from _proxy(recipe.proxy, recipe.model)
    largest = max(recipe.evaluate.scales) if recipe.evaluate is not None else 0
    if largest > LARGEST_FACTOR:
        yield f"evaluate.scales holds {largest:g}: write resize factors of at most {LARGEST_FACTOR:g}"
    for name, percent in recipe.reference.per_class.items():
        if not 0 <= percent <= 100:
            yield f"reference.per_class.{name} is {percent:g}: write percent, 0 to 100"
    yield from _sizes(recipe)


def _whole_numbers(part: object, key: str) -> Iterator[str]:
    """Numbers that nothing could count with or store."""
    if isinstance(part, int):
        most = MOST_STEPS if key.endswith(".steps") else LARGEST_NUMBER
        if abs(part) > most:
            yield f"{key} {part}: write at most {most:,}"
    elif isinstance(part, tuple):
        for item in part:
            yield from _whole_numbers(item, key)
    elif isinstance(part, BaseModel):
        for name, value in part:
            yield from _whole_numbers(value, f"{key}.{name}" if key else name)


def _proxy(task: ProxyConfig, model: ModelConfig) -> Iterator[str]:
    if task.kind in OWN_VIEWS and (task.scale_jitter != (1.0, 1.0) or task.colour_jitter > 0):
        yield f"proxy.kind {task.kind} draws views of its own: leave proxy.scale_jitter and proxy.colour_jitter out"
    if model.input == "rgb255":
        yield "proxy tasks do not read model.input rgb255: set proxy=null, or write model.input=rgb"


def _model(recipe: RecipeFields) -> Iterator[str]:
    model = recipe.model
    if is_timm(model.backbone):
        yield from _timm(model)
    elif model.weights == TIMM_WEIGHTS:
        yield f"model.weights timm is for backbones of timm, not {model.backbone}: write a file, or timm/NAME there"
    if not is_timm(model.backbone) and model.dilated and model.backbone not in DILATED:
        yield f"model.dilated: {model.backbone} has no dilated form; write false, or use a ResNet"
    yield from _freeze(model)
    if recipe.segment is None:
        return
    if model.head == "fcn32" and not model.fc_channels:
        yield "model.head fcn32 needs fc6 and fc7: set model.fc_channels, for example to 4096"
    if model.head == "hypercolumn" and model.dilated:
        yield "model.head hypercolumn needs maps of doubling scale: set model.dilated=false, or model.head=fcn or aspp"


def _timm(model: ModelConfig) -> Iterator[str]:
    """What timm's encoders are not built with."""
    if model.width != 1:
        yield f"model.width {model.width:g} is not for {model.backbone}: write 1, or an encoder of another size"
    if model.input == "rgb255":
        yield f"model.input rgb255 is not for {model.backbone}: write rgb, which reads as its weights want it"


def _freeze(model: ModelConfig) -> Iterator[str]:
    """More layers than there are; of timm's encoders the trainer counts them."""
    layers = LAYERS.get(model.backbone, LARGEST_NUMBER)
    if isinstance(model.freeze, int) and model.freeze >= layers:
        yield f"model.freeze {model.freeze}: {model.backbone} has {layers} layers, write 1 to {layers - 1}, or backbone"


def _reset(recipe: RecipeFields) -> Iterator[str]:
    """Layers that go back to what they were before they were matched; of timm's encoders the trainer counts them."""
    count = recipe.segment.reset_layers if recipe.segment is not None else 0
    layers = LAYERS.get(recipe.model.backbone, LARGEST_NUMBER)
    if count > layers:
        yield f"segment.reset_layers {count}: {recipe.model.backbone} has {layers} layers, write 0 to {layers}"
    if count and recipe.match is None:
        yield f"segment.reset_layers {count} undoes what the match stage did, and there is none: write 0"


def _match(match: MatchConfig) -> Iterator[str]:
    low, high = match.patch_size
    if low > high or low < 2:
        yield f"match.patch_size {low}, {high}: give the smaller side first, at least 2"
    elif low + low % 2 > high:
        yield f"match.patch_size {low}, {high}: sides are even, write {low + 1}, {low + 1} or a wider range"


def _segment(segment: SegmentConfig, model: ModelConfig) -> Iterator[str]:
    if (model.input, model.head) == ("rgb255", "hypercolumn") and model.backbone != "vgg16":
        # Their norm is 58 times the usual: only the release's VGG-16, whose head starts near zero, gets on with them.
        yield (
            "model.head hypercolumn reads the pixels too, and rgb255 makes them too large for it: write model.head=fcn"
            " or fcn32, or model.input=rgb"
        )
    if 2 * segment.pixel_margin >= segment.crop:
        yield (
            f"segment.pixel_margin {segment.pixel_margin} leaves no pixel of a segment.crop of {segment.crop}:"
            f" write at most {(segment.crop - 1) // 2}"
        )
    if segment.auxiliary_head and model.head == "hypercolumn":
        yield (
            f"segment.auxiliary_head {segment.auxiliary_head:g} is not for model.head hypercolumn, which reads the"
            " earlier maps itself: write 0, or model.head=fcn, fcn32 or aspp"
        )
    yield from _loss(segment)


def _loss(segment: SegmentConfig) -> Iterator[str]:
    if segment.loss == "dice" and segment.label_smoothing:
        yield (
            f"segment.label_smoothing {segment.label_smoothing:g} is not for segment.loss dice: write 0, or ce,"
            " focal or ohem"
        )
    for name, weight in segment.class_weights.items():
        if not 0 < weight <= LARGEST_WEIGHT:
            most = f"{LARGEST_WEIGHT:,.0f}"
            yield f"segment.class_weights.{name} is {weight:g}: write a number above 0 and at most {most}"
    if segment.class_weights and segment.class_weighting == "balanced":
        yield (
            "segment.class_weighting balanced makes the weights itself: leave segment.class_weights out, or write"
            " segment.class_weighting=given"
        )


def _best(recipe: RecipeFields) -> Iterator[str]:
    """How the best checkpoint is kept, used and stopped by."""
    segment, measured = recipe.segment, recipe.evaluate
    metric = segment.keep_best if segment is not None else None
    if measured is not None and measured.checkpoint == best.BEST and segment is not None and metric is None:
        yield "evaluate.checkpoint best: this recipe keeps none; write segment.keep_best=miou, or final"
    if segment is None:
        return
    if segment.patience and metric is None:
        yield (
            f"segment.patience {segment.patience} needs to know what is better: write segment.keep_best=miou,"
            " class:NAME or loss"
        )
    if metric is None:
        return
    if measured is None:
        yield f"segment.keep_best {metric} compares evaluations: write an evaluate section, or leave keep_best out"
    elif not segment.eval_every:
        yield (
            f"segment.keep_best {metric} compares evaluations on the way, and segment.eval_every is 0: write after how"
            f" many steps to evaluate, such as segment.eval_every={max(1, segment.steps // 10)}"
        )
    elif metric == best.LOSS and (measured.protocol != "plain" or measured.scales != (1.0,) or measured.flip):
        yield (
            "segment.keep_best loss is that of each image as it is: write evaluate.protocol=plain with scales [1.0] and"
            " flip false, or keep_best=miou"
        )


def _jitter(name: str, factors: tuple[float, float]) -> Iterator[str]:
    least, most = factors
    if not 0 < least <= most <= LARGEST_FACTOR:
        yield (
            f"{name}.scale_jitter {least:g}, {most:g}: give the smaller factor first, above 0"
            f" and at most {LARGEST_FACTOR:g}"
        )


def _milestones(name: str, optim: OptimConfig) -> Iterator[str]:
    rising = all(before < after for before, after in pairwise(optim.milestones))
    if not rising or any(not 0 <= milestone <= 1 for milestone in optim.milestones):
        yield (
            f"{name}.optim.milestones {', '.join(f'{m:g}' for m in optim.milestones)}: write rising fractions of"
            " the stage, 0 to 1, such as 0.5, 0.75"
        )


def _betas(name: str, optim: OptimConfig) -> Iterator[str]:
    if any(not 0 <= beta < 1 for beta in optim.betas):
        yield (
            f"{name}.optim.betas {', '.join(f'{beta:g}' for beta in optim.betas)}: write two decay rates from 0 to"
            " below 1, such as 0.9, 0.999"
        )


def _sizes(recipe: RecipeFields) -> Iterator[str]:
    """What a backbone sees must leave something of its last map."""
    name = recipe.model.backbone
    least = SMALLEST_SIDE.get(name, 1)
    for key, side in _sides(recipe):
        if side < least:
            yield f"{key} {side} is too small for {name}: write at least {least}"
    yield from too_few_values(recipe, 1)


def one_cell(model: ModelConfig, *, head: bool) -> int:
    """Side up to which something is normalised that has one value a channel of an image, pixels; 0 = nothing is.

    Args:
        head: whether the segmentation head is trained, too.
    """
    if model.dilated or is_timm(model.backbone):
        return 0  # whether those of timm normalise over a batch, and how many cells, their trainer finds out
    return (_ONE_CELL_BY_HEAD.get(model.head, ONE_CELL) if head else ONE_CELL).get(model.backbone, 0)


def too_few_values(
    recipe: RecipeFields, world: int, stages: Collection[str] = ("proxy", "match", "segment")
) -> Iterator[str]:
    """Batches of which batch normalisation sees one value a channel in a process, which has no variance.

    Args:
        world: number of processes that share them.
        stages: those that are to be trained.
    """
    if recipe.proxy is not None and "proxy" in stages:
        yield from _values_of_proxy(recipe.proxy, recipe.model, world)
    if recipe.match is not None and "match" in stages:
        yield from _values_of_match(recipe.match, recipe.model, world)
    if recipe.segment is not None and "segment" in stages:
        yield from _values_of_segment(recipe.segment, recipe.model, world)


def _values_of_proxy(proxy: ProxyConfig, model: ModelConfig, world: int) -> Iterator[str]:
    limit = one_cell(model, head=False)
    if proxy.crop <= limit and proxy.batch_size // world == 1 and proxy.kind not in SEVERAL_PICTURES:
        yield _one_value(model.backbone, "proxy", proxy, world, limit, batch_size=2 * world)


def _values_of_match(match: MatchConfig, model: ModelConfig, world: int) -> Iterator[str]:
    """A graph may be of the patches of one image alone, where the others are void."""
    limit = one_cell(model, head=False)
    if match.output_size <= limit and match.graphs % world and match.patches_per_image < 2 * world:
        yield (
            f"match.patches_per_image {match.patches_per_image} may leave one of {world} processes a single patch, of"
            f" which {model.backbone} keeps one value a channel at match.output_size {match.output_size}, too little"
            f" for batch normalisation: write match.patches_per_image {2 * world} or more, match.graphs as a multiple"
            f" of {world}, or a match.output_size above {limit}"
        )


def _values_of_segment(segment: SegmentConfig, model: ModelConfig, world: int) -> Iterator[str]:
    limit = one_cell(model, head=True)
    if segment.auxiliary_head:
        limit = max(limit, ONE_CELL_EARLIER.get(model.backbone, 0))
    shared = 1 if segment.accumulate % world == 0 else world
    if segment.crop <= limit and segment.batch_size // shared == 1:
        name = f"{model.backbone} with model.head {model.head}"
        yield _one_value(name, "segment", segment, world, limit, batch_size=2 * shared)


def _one_value(
    name: str, stage: str, section: ProxyConfig | SegmentConfig, world: int, limit: int, *, batch_size: int
) -> str:
    """``batch_size``: the least that would do."""
    whose = "the network" if world == 1 else f"each of {world} processes"
    return (
        f"{stage}.batch_size {section.batch_size} gives {whose} one image at a time, of which {name} keeps one value a"
        f" channel at {stage}.crop {section.crop}, too little for batch normalisation: write {stage}.batch_size"
        f" {batch_size} or more, or a {stage}.crop above {limit}"
    )


def _sides(recipe: RecipeFields) -> Iterator[tuple[str, int]]:
    """Keys of what goes through the backbone, and their sides in pixels."""
    if recipe.proxy is not None:
        yield _proxy_side(recipe.proxy)
    if recipe.match is not None:
        yield "match.output_size", recipe.match.output_size
    if recipe.segment is not None:
        yield "segment.crop", recipe.segment.crop
    if recipe.evaluate is not None and recipe.evaluate.protocol != "plain":
        yield "evaluate.side", recipe.evaluate.side


def _proxy_side(proxy: ProxyConfig) -> tuple[str, int]:
    return ("proxy.tile", proxy.tile) if proxy.kind == "jigsaw" else ("proxy.crop", proxy.crop)


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}, {values[1]}"
