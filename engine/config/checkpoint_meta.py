"""What stands in the JSON files of a run's ``checkpoints`` folder. Needs no torch: the queue reads them too."""

from __future__ import annotations

from typing import TypedDict

from engine.json_types import JsonObject


class ForkedFrom(TypedDict):
    """A checkpoint that a run was forked from: the fields of ``engine.config.forking.Origin``."""

    run: str
    stage: str
    step: int
    global_step: int


class OriginFile(TypedDict, total=False):
    """``origin.json``: what a forked run began with.

    Keys:
        forked_from: the checkpoint.
        lineage: that of its parent and this one, oldest first.
        taken: names of the stages whose outputs were taken over.
        begun: stage and step of the checkpoint inside a stage; None if it begins with a whole stage.
    """

    format: int
    forked_from: ForkedFrom
    lineage: list[ForkedFrom]
    taken: list[str]
    begun: tuple[str, int] | None


class BestEvaluation(TypedDict, total=False):
    """The best evaluation so far: {} before the first; ``since``: evaluations after it, in step checkpoints alone."""

    metric: str
    step: int
    value: float
    since: int


class Remembered(TypedDict, total=False):
    """What a step checkpoint keeps beside weights and optimiser: each stage has keys of its own.

    Keys:
        last_sampled: match: the step of which each class last had a node.
        empty_graphs: match: graphs without nodes.
        one_class_graphs: match: graphs of one class.
        best: segment: the best evaluation so far.
    """

    last_sampled: list[int]
    empty_graphs: int
    one_class_graphs: int
    best: BestEvaluation


class StoredRecipe(TypedDict, total=False):
    """A recipe as ``Recipe.model_dump(mode="json")`` gives it: of its keys those that are read without being checked.

    Whatever else is wanted of it is read by ``engine.config.schema.stored_recipe``.
    """

    seed: int
    segment: JsonObject


class CheckpointMeta(TypedDict, total=False):
    """``meta.json`` of a checkpoint, as ``engine.checkpoint`` writes it. What older versions wrote has fewer keys.

    Keys:
        files: size in bytes and SHA-256 of each other file.
        recipe: that of the run.
        trained_with: the recipe it was trained with, where a fork took it over.
        step: finished steps of the stage; step checkpoints alone.
        kept: whether it is kept for good.
        observed: whether the stage's ``observe`` was done after that step.
        splits: portions that a batch was cut into.
        data: what identifies the data, "" = not computed.
        stopped_early: the step at which patience ended the stage.
        inputs, run, seconds, made_at: of shared outputs alone (``engine.stage_cache``).
    """

    format: int
    stage: str
    step: int
    kept: bool
    observed: bool
    splits: int
    remembered: Remembered
    doubts: list[str]
    forked_from: ForkedFrom
    lineage: list[ForkedFrom]
    recipe: StoredRecipe
    trained_with: StoredRecipe
    engine: str
    torch: str
    timm: str
    device: str
    data: str
    threads: int
    opencv: str
    processes: int
    classes: list[str]
    weights: str
    best: BestEvaluation
    stopped_early: int
    files: dict[str, tuple[int, str]]
    inputs: JsonObject
    run: str
    seconds: float
    made_at: float
