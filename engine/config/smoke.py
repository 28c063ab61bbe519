"""Any recipe made short: the same stages, networks and code paths in seconds, to see that everything is in place."""

from __future__ import annotations

from engine.config.backbones import is_timm
from engine.config.schema import Recipe

STEPS = 2
UNLABELLED = 16


def smoke_overrides(recipe: Recipe) -> list[str]:
    """Overrides that leave two steps of each stage, few images and a thin network.

    What determines whether a run works on this machine stays: data, weights, kinds, strategies and protocols.
    """
    found = ["runtime.log_every=1", "runtime.graph_every=1", "model.head_channels=16"]
    if not recipe.model.weights:
        found += [] if is_timm(recipe.model.backbone) else ["model.width=0.125"]
        found.append(f"model.fc_channels={16 if recipe.model.fc_channels else 0}")
        found.append(f"model.extra_channels={16 if recipe.model.extra_channels else 0}")
    found += ["data.train=8", "data.val=2"] if recipe.data.kind == "shapes" else ["data.max_train=8", "data.max_val=2"]
    if recipe.data.kind == "shapes" and recipe.data.unlabelled > UNLABELLED:
        found.append(f"data.unlabelled={UNLABELLED}")
    if recipe.proxy is not None:
        found += [f"proxy.steps={STEPS}", "proxy.batch_size=4", "proxy.head_channels=16", "proxy.permutations=4"]
        found += [f"proxy.crop={min(recipe.proxy.crop, 96)}", "proxy.tile=32", "proxy.image_side=96"]
        found.append(f"proxy.queue={min(recipe.proxy.queue, 64)}")
        found += ["proxy.max_images=64"] if recipe.proxy.images else []
    if recipe.match is not None:
        crop = min(recipe.match.crop, 128)
        low, high = (min(side, crop // 2) for side in recipe.match.patch_size)
        found += [f"match.steps={STEPS}", "match.images=4", "match.patches_per_image=4", f"match.crop={crop}"]
        found += [f"match.patch_size=[{low},{high}]", f"match.output_size={min(recipe.match.output_size, 64)}"]
    if recipe.segment is not None:
        crop = min(recipe.segment.crop, 128)
        found += [f"segment.steps={STEPS}", f"segment.batch_size={4}", f"segment.crop={crop}"]
        found.append(f"segment.eval_every={1 if recipe.segment.keep_best else 0}")
        found += [f"segment.accumulate={min(recipe.segment.accumulate, 2)}", "segment.pixels=32"]
        found.append(f"segment.pixel_margin={min(recipe.segment.pixel_margin, crop // 8)}")
    return found
