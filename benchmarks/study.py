"""Does mix-and-match help where labels are few? Trains every arm of a study and prints the table.

    python benchmarks/study.py shapes --out FOLDER --labels 24 --seeds 0 1 2 3 4
    python benchmarks/study.py proxies --out FOLDER --labels 24 --seeds 0 1 2 3 4
    python benchmarks/study.py objects --out FOLDER --labels 100 --seeds 0 1 2
    python benchmarks/study.py streets --data CAMVID --out FOLDER --labels 367 --seeds 0 1 2
    python benchmarks/study.py camvid --data CAMVID --proxy-images FOLDER --out FOLDER --labels 50 367 --seeds 0 1 2

All arms have the same network, the same images and the same fine-tuning; they differ in what comes before it. Runs that
have finished are not trained again, so a study can be stopped and goes on. ``--table`` only prints what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [ROOT / "recipes", ROOT / "recipes" / "studies"]


@dataclass(frozen=True)
class Arm:
    """What comes before fine-tuning."""

    words: str
    recipe: str
    changes: tuple[str, ...] = ()


STUDIES: dict[str, dict[str, Arm]] = {
    "shapes": {
        "baseline": Arm("nothing", "shapes_baseline"),
        "graph": Arm("M&M, graph (paper)", "shapes_mixmatch"),
        "triplets": Arm("M&M, random triplets", "shapes_triplets"),
        "semi_hard": Arm("M&M, semi-hard rejective edges", "shapes_semi_hard"),
        "contrast": Arm("M&M, graph + contrast, balanced centres", "shapes_contrast"),
        "longer": Arm("nothing, but fine-tuning twice as long", "shapes_longer"),
    },
    "proxies": {
        "baseline": Arm("nothing", "shapes_baseline"),
        "colorization": Arm("colorization", "shapes_colorization"),
        "moco": Arm("MoCo", "shapes_moco"),
        "densecl": Arm("DenseCL", "shapes_densecl"),
    },
    "objects": {
        "baseline": Arm("nothing", "objects_baseline"),
        "graph": Arm("M&M, graph (paper)", "objects_graph"),
        "contrast": Arm("M&M, graph + contrast, balanced centres", "objects_contrast"),
        "triplets": Arm("M&M, random triplets", "objects_triplets"),
        "longer": Arm("nothing, but fine-tuning three times as long", "objects_longer"),
        "semi_hard": Arm("M&M, semi-hard rejective edges", "objects_semi_hard"),
        "graph_reset": Arm("M&M, graph (paper), last two convolutions reset", "objects_graph_reset"),
        "contrast_reset": Arm("M&M, contrast, balanced centres, last two convolutions reset", "objects_contrast_reset"),
        "graph_pure": Arm("M&M, graph (paper), purest candidates", "objects_graph", ("match.candidates=pure",)),
        "graph_margin": Arm("M&M, graph, margin 0.5", "objects_graph", ("match.margin=0.5",)),
        "graph_third": Arm("M&M, graph (paper), a third of the steps", "objects_graph", ("match.steps=100",)),
        "graph_three": Arm("M&M, graph (paper), three times the steps", "objects_graph", ("match.steps=900",)),
    },
    "streets": {
        "baseline": Arm("nothing", "streets_baseline"),
        "contrast": Arm("M&M, graph + contrast, balanced centres", "streets_contrast"),
        "graph": Arm("M&M, graph (paper)", "streets_graph"),
        "graph_balanced": Arm("M&M, graph, balanced centres", "streets_graph_balanced"),
        "longer": Arm("nothing, but fine-tuning three times as long", "streets_longer"),
        "graph_small": Arm("M&M, graph (paper), patches of 16 to 48 pixels", "streets_graph_small"),
        "graph_pure": Arm("M&M, graph (paper), purest candidates", "streets_graph_pure"),
        "graph_margin": Arm("M&M, graph, margin 0.5", "streets_graph_margin"),
        "contrast_small": Arm("M&M, graph + contrast, balanced centres, 16 to 48 pixels", "streets_contrast_small"),
        "contrast_pure": Arm("M&M, graph + contrast, balanced centres, purest", "streets_contrast_pure"),
        "graph_reset": Arm("M&M, graph (paper), last two convolutions reset", "streets_graph_reset"),
        "contrast_reset": Arm("M&M, contrast, balanced centres, last two convolutions reset", "streets_contrast_reset"),
    },
    "camvid": {
        "baseline": Arm("nothing", "few_labels_baseline"),
        "triplets": Arm("M&M, random triplets", "few_labels_triplets"),
        "graph": Arm("M&M, graph (paper)", "few_labels_graph"),
        "contrast": Arm("M&M, graph + contrast, balanced centres", "few_labels_contrast"),
        "colorization": Arm("colorization", "few_labels_colorization"),
        "colorization_graph": Arm("colorization, M&M, graph (paper)", "few_labels_colorization_graph"),
        "colorization_contrast": Arm("colorization, M&M, graph + contrast", "few_labels_colorization_contrast"),
    },
}


@dataclass(frozen=True)
class Result:
    """What one run came to.

    Attributes:
        curve: mIoU in percent at each evaluation during fine-tuning, and at the end.
        classes: IoU in percent of each class, NaN where absent.
        seconds: training time of all stages.
    """

    curve: list[float]
    classes: dict[str, float]
    seconds: float


def overrides(options: argparse.Namespace, arm: str, labels: int, seed: int) -> list[str]:
    """What a run changes of its recipe; the choice of labelled images goes with the seed."""
    changes = [f"seed={seed}", f"data.data_seed={seed}", "runtime.threads=1", *STUDIES[options.study][arm].changes]
    if options.data is None:
        return [*changes, f"data.train={labels}"]
    changes += [f"data.root={options.data}", f"data.max_train={labels}"]
    return changes + ([f"proxy.images={options.proxy_images}"] if arm.startswith("colorization") else [])


def tuned(study: str) -> list[str]:
    """Arms that have a match stage."""
    from engine.config import load_recipe

    arms = STUDIES[study].items()
    return [arm for arm, what in arms if load_recipe(what.recipe, what.changes, FOLDERS).match is not None]


def train(options: argparse.Namespace, arm: str, labels: int, seed: int) -> None:
    """Train one run to its end, if it has not come to it."""
    run_dir = options.out / f"{arm}_{labels}_{seed}"
    if read(run_dir) is not None:
        return
    recipe = STUDIES[options.study][arm].recipe
    command = [sys.executable, "-m", "engine", "train", "--recipe", recipe, "--run-dir", str(run_dir)]
    for text in overrides(options, arm, labels, seed):
        command += ["--set", text]
    began = time.monotonic()
    subprocess.run([*command, "--quiet"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    result = read(run_dir)
    assert result is not None, f"{run_dir} has no result"
    print(f"{run_dir.name}: mIoU {result.curve[-1]:.1f} in {time.monotonic() - began:.0f} s", file=sys.stderr)


def read(run_dir: Path) -> Result | None:
    """The result of a finished run, None if it has not finished."""
    events = [
        json.loads(line)
        for file in sorted(run_dir.glob("attempts/*/events.jsonl"))
        for line in file.read_text().splitlines()
    ]
    if not any(e["kind"] == "run_finished" and e["values"].get("status") == "succeeded" for e in events):
        return None
    curve = [e["values"]["miou"] for e in events if e["kind"] == "metrics" and "miou" in e["values"]]
    confusion = [e["values"] for e in events if e["kind"] == "confusion"][-1]
    seconds = sum(e["values"]["seconds"] for e in events if e["kind"] == "stage_finished")
    return Result(curve, dict(zip(confusion["classes"], iou(confusion["matrix"]), strict=True)), seconds)


def iou(matrix: list[list[int]]) -> list[float]:
    """IoU in percent from rows = truth, columns = prediction."""
    found = []
    for c, row in enumerate(matrix):
        union = sum(row) + sum(other[c] for other in matrix) - row[c]
        found.append(100 * row[c] / union if union else math.nan)
    return found


def welch(ours: list[float], base: list[float]) -> float:
    """Two-sided p-value of Welch's t-test."""
    from scipy import stats

    return float(stats.ttest_ind(ours, base, equal_var=False).pvalue)


def table(options: argparse.Namespace) -> str:
    """Markdown: one table of means for each number of labels, and one of classes."""
    lines: list[str] = []
    for labels in options.labels:
        results = {arm: _results(options, arm, labels) for arm in STUDIES[options.study]}
        base = [result.curve[-1] for result in results["baseline"]]
        lines += [f"### {labels} labelled images", ""]
        curve = "at 1/4, 1/2, 3/4 of the first row's steps"
        lines += [f"| before fine-tuning | seeds | mIoU % | sd | gain | p (Welch) | {curve} | seconds |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [_row(STUDIES[options.study][arm].words, arm, found, base) for arm, found in results.items() if found]
        lines += ["", *_classes(results), ""]
    return "\n".join(lines)


def _results(options: argparse.Namespace, arm: str, labels: int) -> list[Result]:
    found = [read(options.out / f"{arm}_{labels}_{seed}") for seed in options.seeds]
    return [result for result in found if result is not None]


def _row(words: str, arm: str, found: list[Result], base: list[float]) -> str:
    last = [result.curve[-1] for result in found]
    spread = f"{statistics.stdev(last):.1f}" if len(last) > 1 else "-"
    gain, chance = "", ""
    if arm != "baseline" and base:
        gain = f"{statistics.mean(last) - statistics.mean(base):+.1f}"
        chance = f"{welch(last, base):.3f}" if min(len(last), len(base)) > 1 else "-"
    steps = [f"{statistics.mean(result.curve[k] for result in found):.1f}" for k in range(3)]
    seconds = f"{statistics.mean(result.seconds for result in found):.0f}"
    cells = [
        words,
        str(len(found)),
        f"{statistics.mean(last):.1f}",
        spread,
        gain,
        chance,
        ", ".join(steps),
        seconds,
    ]
    return f"| {' | '.join(cells)} |"


def _classes(results: dict[str, list[Result]]) -> list[str]:
    arms = [arm for arm, found in results.items() if found]
    names = list(results[arms[0]][0].classes) if arms else []
    lines = [f"| IoU % | {' | '.join(arms)} |", f"|---|{'---|' * len(arms)}"]
    for name in names:
        values = [statistics.fmean(result.classes[name] for result in results[arm]) for arm in arms]
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", type=Path, help="CamVid folder")
    parser.add_argument("--proxy-images", type=Path, help="folder of images for colorization")
    parser.add_argument("--out", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--labels", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", help="train these alone, in this order; the table tells all there are")
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    options: Any = parser.parse_args()
    arms = options.arms or list(STUDIES[options.study])
    if unknown := set(arms) - set(STUDIES[options.study]):
        parser.error(f"no arms {sorted(unknown)}; {options.study} has {', '.join(STUDIES[options.study])}")
    if not options.table:
        if options.study in ("camvid", "streets") and options.data is None:
            parser.error("give --data, or --table")
        if options.study == "camvid" and options.proxy_images is None:
            parser.error("give --proxy-images, or --table")
        for seed in options.seeds:
            for labels in options.labels:
                for arm in arms:
                    train(options, arm, labels, seed)
    print(table(options))


if __name__ == "__main__":
    main()
