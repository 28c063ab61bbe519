"""Before the first stage trains: whether the labels of this run can teach and measure anything."""

from __future__ import annotations

from collections.abc import Collection

from engine.checkpoint import final_checkpoint, read_meta
from engine.config.checks import background_problem
from engine.config.schema import Recipe
from engine.data import supervision
from engine.data.label_counts import count_labels
from engine.data.listings import Split, class_names
from engine.data.supervision import Labels
from engine.errors import RecipeError
from engine.events import SUPERVISION
from engine.stages.base import Context

MOST_INHERITED = 20
LONGEST = 1000
"""Characters."""


def check_background(recipe: Recipe) -> None:
    """Raises RecipeError if the background class is none of the data set's: found out before anything is trained."""
    if recipe.match is not None:
        for problem in background_problem(recipe.match, len(class_names(recipe.data))):
            raise RecipeError(problem)


def check_supervision(context: Context, stages: Collection[str], *, resumed: bool) -> None:
    """Refuse labels that teach or measure nothing, and warn of what makes learning or the score doubtful.

    Args:
        stages: those that are still to be done.
        resumed: whether the next one goes on from a checkpoint; then the val split, which is decoded for this alone,
            has been looked at before.

    Raises:
        DataError: nothing can come of them, or they cannot be read.
        StopRequestedError: the run was asked to leave.
    """
    recipe, doubts = context.recipe, list[tuple[str, bool]]()
    splits: list[Split] = ["train"] if {"match", "segment"} & set(stages) else []
    on_the_way = recipe.segment is not None and recipe.segment.eval_every > 0
    if not resumed and ("evaluate" in stages or ("segment" in stages and on_the_way)):
        splits.append("val")
    for split in splits:
        labels, classes = _counted(context, split)
        supervision.refuse(recipe.data, labels, classes)
        doubts += [(text, split == "train") for text in supervision.doubts(recipe.data, labels, classes)]
    if "val" in splits:
        doubts += [(text, False)] if (text := supervision.shared_pictures(recipe.data)) else []
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
    told = read_meta(final).get("doubts") if final is not None else None
    for text in (told if isinstance(told, list) else [])[:MOST_INHERITED]:
        if isinstance(text, str) and len(text) <= LONGEST:
            doubt(context, text)


def _counted(context: Context, split: Split) -> tuple[Labels, tuple[str, ...]]:
    """Of the split that training reads next, which is kept, or of another one, which would take room meanwhile."""
    data = context.data(split) if split == "train" else context.glance(split)
    return count_labels(data, split), data.classes
