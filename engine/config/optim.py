"""How a stage updates its weights: the optimiser, its rate, and who decays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from engine.config.section import Section

OptimiserName = Literal["sgd", "adamw"]
ADAMW_DEFAULTS: Mapping[str, float] = {"lr": 1e-3, "weight_decay": 1e-2}
"""What keys that a recipe does not write are with AdamW: PyTorch's own defaults. SGD's would not suit it."""


class OptimConfig(Section):
    """The optimiser, and the schedule of its learning rate."""

    optimiser: OptimiserName = Field(
        "sgd", description="sgd (paper): with momentum; adamw: decoupled weight decay, as PyTorch's AdamW"
    )
    lr: float = Field(0.01, gt=0, description="base learning rate; adamw: 0.001 where it is not written")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: momentum")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="adamw: decay rates of the running means of gradients and of their squares, 0-1"
    )
    eps: float = Field(1e-8, gt=0, le=1, description="adamw: added to the root of the mean square, for stability")
    weight_decay: float = Field(
        5e-4,
        ge=0,
        description="weight decay; biases and normalisations are exempt; adamw: 0.01 where it is not written",
    )
    bias_lr_factor: float = Field(
        2.0, gt=0, description="sgd: learning-rate factor of biases (reference: 2); adamw has none"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning-rate factor of a layer of the backbone for each layer above it, the head counting as one;"
        " 1 = all learn alike",
    )
    schedule: Literal["step", "poly", "cosine", "constant"] = Field("step", description="learning-rate schedule")
    milestones: tuple[float, ...] = Field(
        (0.75,), description="rising stage fractions, 0-1, at which lr is multiplied by gamma"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor applied at each milestone")
    warmup_steps: int = Field(
        0,
        ge=0,
        description="linear warm-up to the rate that the schedule has then, steps; poly and cosine begin after it",
    )
    clip_norm: float = Field(0.0, ge=0, description="gradient norm limit; 0 = off")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_optimiser(cls, written: object) -> object:
        """Keys that are not written take the values that suit the optimiser."""
        if isinstance(written, Mapping) and written.get("optimiser") == "adamw":
            return {**ADAMW_DEFAULTS, **written}
        return written


class HeadedOptimConfig(OptimConfig):
    """The same where a head is trained beside the backbone."""

    backbone_lr_factor: float = Field(
        1.0,
        gt=0,
        le=100,
        description="learning-rate factor of the whole backbone beside its head, such as 0.1; 1 = both learn alike",
    )


class SegmentOptimConfig(HeadedOptimConfig):
    """The same, with the milestones of fine-tuning: 24k, 36k and 40k of 42k steps."""

    milestones: tuple[float, ...] = Field(
        (24 / 42, 36 / 42, 40 / 42), description="rising stage fractions, 0-1, at which lr is multiplied by gamma"
    )
