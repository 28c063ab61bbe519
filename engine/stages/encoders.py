"""What is found out about an encoder of timm before anything trains: mmtui, which loads no timm, could not know."""

from __future__ import annotations

from engine.config.backbones import is_timm
from engine.config.schema import Recipe
from engine.errors import RecipeError
from engine.models import check_scales
from engine.models.timm_backbone import unreadable, unseen


def check_encoder(recipe: Recipe) -> None:
    """Refuse an encoder that cannot be read, or not by the head, and counts of layers that it does not have.

    Raises:
        RecipeError: the recipe wants such; the sentence names the key.
    """
    model, segment = recipe.model, recipe.segment
    if not is_timm(model.backbone):
        return
    channels = 1 if model.input == "gray" else 3
    if problem := unreadable(model.backbone, channels, model.dilated):
        raise RecipeError(f"model.backbone {model.backbone} {problem}: write another encoder")
    if segment is not None:
        check_scales(model, unseen(model.backbone, channels, model.dilated).hyper_scales)
    reset = segment.reset_layers if segment is not None else 0
    frozen = model.freeze if isinstance(model.freeze, int) else 0
    trained = [part for part in (recipe.proxy, recipe.match, segment) if part is not None]
    if not reset and not frozen and all(part.optim.layer_decay == 1 for part in trained):
        return
    layers = len(unseen(model.backbone, channels, model.dilated).layer_keys())
    if reset > layers:
        raise RecipeError(f"segment.reset_layers {reset}: {model.backbone} has {layers} layers, write 0 to {layers}")
    if frozen >= layers:
        raise RecipeError(
            f"model.freeze {frozen}: {model.backbone} has {layers} layers, write 1 to {layers - 1}, or backbone"
        )
