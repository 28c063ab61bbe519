"""The stages of a run, in the order of the paper: proxy, match, segment, evaluate."""

from __future__ import annotations

from engine.config.schema import Recipe
from engine.stages.base import Context, Stage


def build_stage(context: Context, name: str) -> Stage:
    """The stage of that name, from its section of the recipe."""
    from engine.stages.ensemble import check_evaluation
    from engine.stages.evaluate import EvaluateStage
    from engine.stages.match import MatchStage
    from engine.stages.proxy import ProxyStage
    from engine.stages.segment import SegmentStage

    recipe: Recipe = context.recipe
    check_evaluation(recipe)
    if name == "proxy" and recipe.proxy is not None:
        return ProxyStage(context, recipe.proxy)
    if name == "match" and recipe.match is not None:
        return MatchStage(context, recipe.match)
    if name == "segment" and recipe.segment is not None:
        return SegmentStage(context, recipe.segment)
    if name == "evaluate" and recipe.evaluate is not None:
        return EvaluateStage(context, recipe.evaluate)
    raise ValueError(f"the recipe has no stage called {name!r}")


__all__ = ["Context", "Stage", "build_stage"]
