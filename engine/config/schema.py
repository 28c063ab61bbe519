"""The recipe: every setting of a run, typed, described, with units and defaults.

Defaults are those of the paper and its reference release wherever they are known
(settings tables of "Mix-and-Match Tuning for Self-Supervised Semantic Segmentation", AAAI 2018).
Nothing here imports torch: screens and command lines read this schema too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, model_validator

from engine.config.backbones import STORED
from engine.config.checks import problems
from engine.config.datasets import CityscapesData, DataConfig, FolderData, ShapesData, VocData
from engine.config.optim import OptimConfig
from engine.config.sections import (
    NO_CACHE,
    InputName,
    MatchConfig,
    ModelConfig,
    ProxyConfig,
    RecipeFields,
    RuntimeConfig,
    SegmentConfig,
    Strategy,
)

__all__ = [
    "NO_CACHE",
    "SCHEMA_VERSION",
    "STAGE_ORDER",
    "CityscapesData",
    "DataConfig",
    "FolderData",
    "InputName",
    "MatchConfig",
    "ModelConfig",
    "OptimConfig",
    "ProxyConfig",
    "Recipe",
    "RuntimeConfig",
    "SegmentConfig",
    "ShapesData",
    "StageName",
    "Strategy",
    "VocData",
    "stored_recipe",
]

SCHEMA_VERSION = 1
STAGE_ORDER = ("proxy", "match", "segment", "evaluate")
StageName = Literal["proxy", "match", "segment", "evaluate"]


class Recipe(RecipeFields):
    """A whole run. A stage that is null is left out."""

    @model_validator(mode="after")
    def _check_across_fields(self, info: ValidationInfo) -> Recipe:
        # A run that has trained stays readable, whatever is refused today.
        if not (info.context or {}).get(STORED):
            for problem in problems(self):
                raise ValueError(problem)
        return self

    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stages in order with their number of steps; evaluate counts as one step."""
        plan: list[tuple[str, int]] = []
        for name in ("proxy", "match", "segment"):
            section = getattr(self, name)
            if section is not None:
                plan.append((name, int(section.steps)))
        if self.evaluate is not None:
            plan.append(("evaluate", 1))
        return tuple(plan)


def stored_recipe(values: object) -> Recipe:
    """A recipe as a run has kept it, of this version of the engine or an older one.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return Recipe.model_validate(values, context={STORED: True})
