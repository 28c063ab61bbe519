"""What of a recipe determines what a stage computes. Needs no torch: the queue asks it too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from engine.config.schema import STAGE_ORDER, Recipe
from engine.json_types import Json, JsonObject

FREE_KEYS = frozenset(
    {
        "data.root",
        "segment.eval_every",
        "evaluate.batch_size",
        "evaluate.overlays",
        "evaluate.save_predictions",
        "evaluate.show_images",
    }
)
"""Keys that may change between two attempts: they do not change what is computed."""
UNLESS_PATIENT = "segment.eval_every"
"""One of them that does where patience counts evaluations."""
REUSED_STAGES = ("proxy", "match")
"""Stages whose output another run may take over. Fine-tuning is what runs are compared by, so each does its own."""


FORMER_WORDS: Mapping[str, Mapping[str, str]] = {"match.loss": {"info_nce": "supcon"}}
"""Values of keys by what they were called before: both words are read, kept as they are written, and mean the same."""


def meaning(key: str, value: Json) -> Json:
    """A value by today's word for it, so that recipes can be compared."""
    return next((now for now, before in FORMER_WORDS.get(key, {}).items() if before == value), value)


def lasting(key: str, value: Json) -> Json:
    """A value by the word that it had first: names that are made of it stay what they were."""
    return FORMER_WORDS[key].get(value, value) if key in FORMER_WORDS and isinstance(value, str) else value


TRAINED = ("proxy", "match", "segment")
_LATER_OPTIM: Mapping[str, Json] = {
    "optim.optimiser": "sgd",
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "optim.layer_decay": 1.0,
}
LATER_KEYS: Mapping[str, Json] = {
    "model.freeze": "none",
    "proxy.optim.backbone_lr_factor": 1.0,
    "segment.optim.backbone_lr_factor": 1.0,
    "segment.ema": 0.0,
    "segment.auxiliary_head": 0.0,
    "segment.loss": "ce",
    "segment.focal_gamma": 2.0,
    "segment.ohem_threshold": 0.7,
    "segment.ohem_keep": 0.2,
    "segment.label_smoothing": 0.0,
    "segment.class_weights": {},
    "segment.class_weighting": "given",
    "segment.keep_best": None,
    "segment.patience": 0,
    "evaluate.checkpoint": "final",
    **{f"{stage}.{key}": value for stage in TRAINED for key, value in _LATER_OPTIM.items()},
}
"""Keys that came later, with the value at which all is computed as before there were such: names that are kept leave
them out then, and stay what they were."""


def determining(recipe: Recipe, stage: str) -> Iterator[tuple[str, Json]]:
    """Every key that determines the network after ``stage``, with its value; the stages before it count."""
    data = recipe.model_dump(mode="json")
    yield "seed", data["seed"]
    yield "reference_compat", data["reference_compat"]
    yield "runtime.precision", data["runtime"]["precision"]
    for section in ("data", "model", *STAGE_ORDER[: STAGE_ORDER.index(stage) + 1]):
        for key, value in flat(data[section], section):
            if determines(key, data[section]):
                yield key, frozen_in(recipe.model.freeze, stage) if key == "model.freeze" else meaning(key, value)


def frozen_in(freeze: str | int, stage: str) -> str | int:
    """What ``model.freeze`` means for a stage: proxy and match train the backbone in any case."""
    return "none" if freeze == "backbone" and stage in REUSED_STAGES else freeze


def determines(key: str, section: Mapping[str, Json]) -> bool:
    """Whether a key of a section decides what is computed."""
    return key not in FREE_KEYS or (key == UNLESS_PATIENT and bool(section.get("patience")))


def named_by(recipe: Recipe, stage: str) -> list[tuple[str, Json]]:
    """The same for a name of the stage's work that is kept for longer than a version of this program."""
    return [(key, lasting(key, value)) for key, value in determining(recipe, stage) if not says_nothing(key, value)]


def says_nothing(key: str, value: Json) -> bool:
    """Whether a key came later and its value is as if there were no such key."""
    return key in LATER_KEYS and LATER_KEYS[key] == value


def stage_names(recipe: Recipe) -> dict[str, str]:
    """A name for the work of each stage that can be shared: equal names promise equal work on unchanged files.

    The queue goes by it to let one run train what several need; whether an output is taken over is decided by
    ``engine.stage_cache``, which looks into the files.
    """
    found = {}
    for stage, _ in recipe.stages():
        if stage in REUSED_STAGES and recipe.runtime.reuse_stages:
            keys = [*named_by(recipe, stage), ("data.root", getattr(recipe.data, "root", ""))]
            runtime = recipe.runtime.model_dump(mode="json", include={"device", "threads", "deterministic"})
            text = json.dumps([stage, keys, runtime], sort_keys=True)
            found[stage] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


LOSS_SETTINGS = (
    *("focal_gamma", "ohem_threshold", "ohem_keep"),
    *("label_smoothing", "class_weights", "class_weighting"),
)
"""Keys of fine-tuning that change how its loss is computed, but for its kind."""
_WITHOUT_WEIGHT = {
    "proxy": ("steps", "optim", "max_images", "temperature", "key_momentum", "dense_weight"),
    "match": ("steps", "optim", "margin", "normalizer", "temperature"),
    "segment": ("steps", "optim", "eval_every", "patience", "reset_layers", *LOSS_SETTINGS),
    "evaluate": ("save_predictions", "overlays", "show_images", "checkpoint"),
}
"""Keys of a stage that change neither how long a step takes nor how much memory."""


def work_name(recipe: Recipe) -> str:
    """A name for what a recipe asks of a device: equal names need equal memory and equal time for a step."""
    data = recipe.model_dump(mode="json")
    for stage in _WITHOUT_WEIGHT:
        data[stage] = _weighty(stage, data[stage])
    runtime = {key: data["runtime"][key] for key in ("device", "precision", "threads", "deterministic")}
    model = {key: value for key, value in data["model"].items() if not says_nothing(f"model.{key}", value)}
    kept = [runtime, data["data"], model, *(data[section] for section in STAGE_ORDER)]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _weighty(stage: str, section: Mapping[str, Json] | None) -> JsonObject | None:
    """What of a stage's section weighs, by the words that each value had first."""
    if section is None:
        return None
    # Of the optimiser, how many numbers it keeps for each weight.
    optim = section.get("optim")
    state = {"optim.optimiser": optim["optimiser"]} if isinstance(optim, Mapping) else {}
    found: JsonObject = {}
    for key, value in {**section, **state}.items():
        name = f"{stage}.{key}"
        if key not in _WITHOUT_WEIGHT[stage] and not says_nothing(name, value):
            found[key] = lasting(name, meaning(name, value))
    return found


def flat(value: Json, key: str) -> Iterator[tuple[str, Json]]:
    """Every value below a key, by its full name."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}")
    else:
        yield key, value
