"""Before the first stage trains: whether the labels of this run can teach and measure anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from engine.checkpoint import final_checkpoint, read_meta
from engine.config.named_classes import NamedClasses, named_classes
from engine.config.schema import Recipe
from engine.data import supervision
from engine.data.label_counts import count_labels
from engine.data.listings import Split, class_names
from engine.data.supervision import Labels
from engine.errors import RecipeError
from engine.events import SUPERVISION
from engine.resume import Position
from engine.stages.base import Context

MOST_INHERITED = 20
LONGEST = 1000
"""Characters."""


def check_named_classes(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe speaks of a class that the data set has not: found out before training."""
    named = named_classes(recipe)
    if named != NamedClasses():
        for problem in named.problems(class_names(recipe.data)):
            raise RecipeError(problem)


def look_at_labels(context: Context, stages: Collection[str], position: Position, *, same: bool) -> None:
    """Refuse labels that teach or measure nothing, and tell what makes learning or the score doubtful.

    What was doubtful about what is not trained again is told again.

    Args:
        stages: those that are still to be done.
        position: where the run goes on.
        same: whether the data are known to be those that every attempt before has told of; then the val split, which
            is decoded for this alone, has been looked at where the next stage goes on from a checkpoint.

    Raises:
        DataError: nothing can come of them, or they cannot be read.
        StopRequestedError: the run was asked to leave.
    """
    recipe, found = context.recipe, position.found
    splits = _splits(recipe, stages, seen=same and found is not None)
    if position.global_step and "val" in splits:
        context.writer.emit("supervision", {"splits": splits})
    for name, _ in recipe.stages():
        if name not in stages:
            inherit(context, name)
    if found is not None:
        _tell_again(context, found.meta())
    _check_supervision(context, splits)


def _splits(recipe: Recipe, stages: Collection[str], *, seen: bool) -> list[Split]:
    """Those whose labels are looked at; ``seen``: of val they have been."""
    splits: list[Split] = ["train"] if {"match", "segment"} & set(stages) else []
    on_the_way = recipe.segment is not None and recipe.segment.eval_every > 0
    measured = "evaluate" in stages or ("segment" in stages and on_the_way)
    return [*splits, "val"] if measured and not seen else splits


def _check_supervision(context: Context, splits: Sequence[Split]) -> None:
    recipe, doubts = context.recipe, list[tuple[str, bool]]()
    for split in splits:
        labels, classes = _counted(context, split)
        supervision.refuse(recipe.data, labels, classes)
        doubts += [(text, split == "train") for text in supervision.doubts(recipe.data, labels, classes)]
    if "val" in splits:
        doubts += [(text, False)] if (text := supervision.shared_pictures(recipe.data, context.told())) else []
    for text, lasting in doubts:
        doubt(context, text, lasting=lasting)


def doubt(context: Context, text: str, *, lasting: bool = True) -> None:
    """Say what makes a score doubtful, once.

    Args:
        lasting: it is about what is trained, so that it holds for those, too, who take that over.
    """
    if text in context.doubts:
        return
    if lasting:
        context.doubts.append(text)
    context.writer.emit("warning", {"text": text, "about": SUPERVISION})
    context.echo(f"warning: {text}")


def inherit(context: Context, name: str) -> None:
    """Say again what was doubtful about a stage that is not trained here; its checkpoint may be anybody's."""
    final = final_checkpoint(context.run_dir, name)
    if final is not None:
        _tell_again(context, read_meta(final))


def _tell_again(context: Context, meta: Mapping[str, object]) -> None:
    """The doubts of a checkpoint, which may be anybody's."""
    told = meta.get("doubts")
    for text in (told if isinstance(told, list) else [])[:MOST_INHERITED]:
        if isinstance(text, str) and len(text) <= LONGEST:
            doubt(context, text)


def _counted(context: Context, split: Split) -> tuple[Labels, tuple[str, ...]]:
    """Of the split that training reads next, which is kept, or of another one, which would take room meanwhile."""
    data = context.data(split) if split == "train" else context.glance(split)
    context.label_counts[split] = count_labels(data, split)
    return context.label_counts[split], data.classes
