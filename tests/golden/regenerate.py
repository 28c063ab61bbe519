"""Write golden loss curves anew: ``python tests/golden/regenerate.py``, or some: ``... proxy_moco``. No test does it.

A curve is a text file of two columns, step and loss with all digits, so that a change shows in a diff. Commit it only
together with the change of the computation that it proves.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
STAGES = ("proxy", "match", "segment")
ALONE = ("match=null", "segment=null")
CONTRAST = (*ALONE, "proxy.queue=10", "proxy.projection=16", "proxy.key_momentum=0.9")
PICTURES = "PICTURES"
"""Stands for a folder of pictures, one folder a class, that is drawn for the curves."""
ALEXNET = (
    *("model.backbone=alexnet", "model.head=fcn32", "model.width=0.125", "model.fc_channels=16"),
    *("data.height=96", "data.width=96", "match.crop=96", "match.patch_size=[32,64]", "match.output_size=64"),
    *("segment.crop=96", "match.steps=5", "segment.steps=5"),
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "moco": ("proxy.kind=moco", *CONTRAST),
    "densecl": ("proxy.kind=densecl", *CONTRAST),
    "jigsaw": ("proxy.kind=jigsaw", *ALONE, "proxy.tile=16", "proxy.gap=3", "proxy.permutations=8"),
    "rotation": ("proxy.kind=rotation", *ALONE),
    "classification": ("proxy.kind=classification", *ALONE, f"proxy.images={PICTURES}", "proxy.image_side=48"),
    "global": ("proxy=null", "segment=null", "match.graphs=2", "match.graph_scope=global"),
    "alexnet": ("proxy=null", *ALEXNET),
}
"""Further curves, each with what it changes in the recipe; a file for every stage that is left."""


def curves() -> dict[str, dict[int, float]]:
    """Losses by curve and step, computed now on one CPU thread: those of each stage, and the variants."""
    found = _losses(())
    for name, changes in VARIANTS.items():
        found |= {f"{stage}_{name}": losses for stage, losses in _losses(changes).items() if losses}
    return found


def _pictures(root: Path) -> Path:
    """Two classes of eight pictures: noise of two brightnesses."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    for number in range(16):
        low, name = (0, "dark") if number % 2 else (64, "light")
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels = drawn.integers(low, low + 160, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def _losses(changes: tuple[str, ...]) -> dict[str, dict[int, float]]:
    """Losses of recipes/shapes_smoke.yaml by stage and step."""
    from engine.config import load_recipe
    from engine.events import EventWriter
    from engine.loop import train
    from tests.event_lines import event_lines

    options = ["runtime.device=cpu", "runtime.threads=1", "runtime.log_every=1", "segment.eval_every=0"]
    found: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder:
        if any(PICTURES in text for text in changes):
            pictures = _pictures(Path(folder) / "pictures")
            changes = tuple(text.replace(PICTURES, str(pictures)) for text in changes)
        recipe = load_recipe("shapes_smoke", [*options, "evaluate=null", *changes], [ROOT / "recipes"])
        writer = EventWriter.open_for_attempt(Path(folder), 1)
        train(recipe, Path(folder), writer, 1, lambda: False, lambda _line: None)
        writer.close()
        for event in event_lines(writer.path):
            if event["kind"] == "metrics":
                found[event["stage"]][event["step"]] = event["values"]["loss"]
    return found


def write(names: list[str]) -> None:
    """Replace the files of these curves, of all if none is named."""
    for name, losses in curves().items():
        lines = [f"{step} {loss!r}\n" for step, loss in sorted(losses.items())]
        if name in names or not names:
            (FOLDER / f"{name}.txt").write_text("".join(lines))


def read(name: str) -> dict[int, float]:
    """A stored curve."""
    rows = [line.split() for line in (FOLDER / f"{name}.txt").read_text().splitlines()]
    return {int(step): float(loss) for step, loss in rows}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write(sys.argv[1:])
