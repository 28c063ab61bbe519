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
CONTRAST = ("match=null", "segment=null", "proxy.queue=10", "proxy.projection=16", "proxy.key_momentum=0.9")
VARIANTS = {f"proxy_{kind}": (f"proxy.kind={kind}", *CONTRAST) for kind in ("moco", "densecl")}
"""Further curves of the proxy stage, each with what it changes in the recipe."""


def curves() -> dict[str, dict[int, float]]:
    """Losses by curve and step, computed now on one CPU thread: those of each stage, and the variants."""
    found = _losses(())
    for name, changes in VARIANTS.items():
        found[name] = _losses(changes)["proxy"]
    return found


def _losses(changes: tuple[str, ...]) -> dict[str, dict[int, float]]:
    """Losses of recipes/shapes_smoke.yaml by stage and step."""
    from engine.config import load_recipe
    from engine.events import EventWriter, read_events
    from engine.loop import train

    options = ["runtime.device=cpu", "runtime.threads=1", "runtime.log_every=1", "segment.eval_every=0"]
    recipe = load_recipe("shapes_smoke", [*options, "evaluate=null", *changes], [ROOT / "recipes"])
    found: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder:
        writer = EventWriter.open_for_attempt(Path(folder), 1)
        train(recipe, Path(folder), writer, 1, lambda: False, lambda _line: None)
        writer.close()
        for _, event in read_events(writer.path):
            if event is not None and event["kind"] == "metrics":
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
