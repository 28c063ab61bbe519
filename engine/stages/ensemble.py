"""Networks of other runs whose class probabilities are added to this run's (PAPER 3.2, last row of Table 2).

How the paper's ensemble combines its two networks is not known; the mean of softmax probabilities is the usual way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from engine.checkpoint import final_checkpoint, read_meta
from engine.config.best import STAGE, best_folder, split
from engine.config.schema import Recipe, stored_recipe
from engine.data.listings import class_names
from engine.errors import RecipeError
from engine.json_types import JsonObject
from engine.stages.base import Context
from engine.stages.handed_on import load_network
from engine.stages.protocols import Member, check_protocol
from engine.stages.segmenter import build_segmenter

LOCAL_KEYS = frozenset({"root", "train", "val", "unlabelled", "max_train", "max_val"})
"""Keys of ``data`` that may differ between the runs of an ensemble: where the files lie and how many are used."""


def check_evaluation(recipe: Recipe) -> None:
    """Find out before the training what would stop the evaluation after it.

    A run of the ensemble that has not finished yet may do so until then.

    Raises:
        RecipeError: the protocol's settings contradict each other, or a run of the ensemble is not there or not alike.
    """
    if recipe.evaluate is None:
        return
    check_protocol(recipe.evaluate)
    for text in recipe.evaluate.ensemble:
        if not text:
            raise RecipeError("evaluate.ensemble names no run: write the directory of a run, or [] for none")
        run_dir, best = split(text)
        if not run_dir.is_dir():
            raise RecipeError(f"evaluate.ensemble names {text}, which is no folder: write the directory of a run")
        final = final_checkpoint(run_dir, STAGE)
        if final is not None:
            _recipe_of(text, best_folder(run_dir) if best else final, recipe)


def load_members(context: Context, folders: Sequence[str]) -> Iterator[Member]:
    """The segmentation network of each run directory, on the device and in evaluation mode.

    Raises:
        RecipeError: a run is missing, has not finished ``segment``, or has other classes or data.
        CheckpointError: its weights are damaged, or it has no best checkpoint where that is named.
    """
    for text in folders:
        run_dir, best = split(text)
        final = final_checkpoint(run_dir, STAGE)
        if final is None:
            raise RecipeError(
                f"evaluate.ensemble names {text}, which holds no finished segment stage (checkpoints/segment/final):"
                " write the directory of a run that has finished it"
            )
        recipe = _recipe_of(text, best_folder(run_dir) if best else final, context.recipe)
        # Its start weights may be gone by now; the checkpoint replaces them anyway.
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": ""})})
        theirs = replace(context, recipe=recipe, run_dir=run_dir, _data={})
        model = build_segmenter(theirs, context.data("val").num_classes)
        load_network(run_dir, model, best=best)
        context.place(model).eval()
        yield Member.of(model, recipe.model)


def _recipe_of(text: str, final: Path, ours: Recipe) -> Recipe:
    """The recipe that a checkpoint was made with.

    Raises:
        RecipeError: it cannot be read, or its classes or data are not those of ``ours``.
    """
    meta = read_meta(final)
    try:
        recipe = stored_recipe(meta["recipe"])
    except (KeyError, ValidationError):
        raise RecipeError(f"evaluate.ensemble names {text}, whose recipe cannot be read: leave it out") from None
    classes, expected = [str(name) for name in meta.get("classes", ())], list(class_names(ours.data))
    if classes != expected:
        raise RecipeError(
            f"evaluate.ensemble names {text}, whose classes are {_short(classes)} instead of {_short(expected)}:"
            " write runs with the same classes in the same order"
        )
    theirs, own = (_data_keys(each) for each in (recipe, ours))
    for key in [*own, *theirs]:
        if own.get(key) != theirs.get(key):
            raise RecipeError(
                f"evaluate.ensemble names {text}, whose data.{key} is {theirs.get(key)} instead of {own.get(key)}:"
                " write runs on the same data"
            )
    return recipe


def _data_keys(recipe: Recipe) -> JsonObject:
    data = recipe.data.model_dump(mode="json")
    return {key: value for key, value in data.items() if key not in LOCAL_KEYS}


def _short(names: Sequence[str]) -> str:
    """The names, of many only the first ones."""
    shown = ", ".join(names[:4])
    return f"{shown}, ... ({len(names)})" if len(names) > 4 else shown or "unknown"
