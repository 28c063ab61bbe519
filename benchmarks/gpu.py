"""All that a GPU is needed for, in one go: checks, measurements, a profile, a training. Everything is kept in a folder.

    python benchmarks/gpu.py --out FOLDER [--minutes 25] [--parts checks vgg16 ...]

A part that fails or takes too long does not stop the others. With ``--device cpu --quick`` it only shows that the
parts work; what it measures then says nothing. Needs torch, numpy, pillow, pyyaml, pydantic, and pytest for the checks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("data.kind=shapes", "data.height=512", "data.width=512", "data.train=64", "data.val=8", "data.objects=[1,2]")
"""Stands in for a data set of photographs, which has to be fetched; the network's work is the same."""
QUICK = (
    *("data.height=64", "data.width=64", "data.train=8", "data.val=4", "model.width=0.125", "match.crop=64"),
    *("match.patch_size=[16,32]", "match.output_size=32", "segment.crop=64", "segment.pixel_margin=0"),
    *("model.head_channels=32", "model.fc_channels=32", "model.extra_channels=0"),
)


def checks(options: argparse.Namespace) -> list[str]:
    """The tests of the engine with its device for the CPU: exact resume, retries, statistics, evaluation."""
    where = ["tests/unit/engine_run/test_loop.py"] if options.quick else ["tests/unit/engine_run", "tests/numerics"]
    return ["-m", "pytest", "-q", "-x" if options.quick else "-ra", "-p", "no:cacheprovider", *where]


def bench(recipe: str, *changes: str) -> Callable[[argparse.Namespace], list[str]]:
    """Steps of a recipe beside bare loops, with FLOP use and memory."""

    def command(options: argparse.Namespace) -> list[str]:
        words = ["benchmarks/bench_engine.py", "--device", options.device, "--recipe", recipe]
        if options.quick:
            words += ["--rounds", "1", "--steps", "1"]
        precision = () if options.device == "cpu" else ("runtime.precision=bf16",)
        for change in (*changes, *precision, *(QUICK if options.quick and changes else ())):
            words += ["--set", change]
        return words

    return command


def profile(options: argparse.Namespace) -> list[str]:
    """Kernels of some match steps, by the time they take."""
    return [__file__, "--profile", "--device", options.device, "--out", str(options.out), *_flags(options)]


def training(recipe: str) -> Callable[[argparse.Namespace], list[str]]:
    """A whole run of a study's recipe."""

    def command(options: argparse.Namespace) -> list[str]:
        words = ["-m", "engine", "train", "--recipe", recipe, "--run-dir", str(options.out / f"run_{recipe}")]
        for change in (f"runtime.device={options.device}", "runtime.threads=0", "data.train=100"):
            words += ["--set", change]
        return [*words, *(["--set", "match.steps=2", "--set", "segment.steps=2"] if options.quick else []), "--quiet"]

    return command


PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "checks": checks,
    "tiny": bench("shapes_mixmatch"),
    "vgg16": bench("voc_vgg16_random_mixmatch", *SHAPES, "match.graphs=4"),
    "alexnet": bench("voc_alexnet_random_mixmatch", *SHAPES),
    "profile": profile,
    "objects": training("objects_graph"),
}


def _flags(options: argparse.Namespace) -> list[str]:
    return ["--quick"] if options.quick else []


def run(name: str, options: argparse.Namespace, left: float) -> dict[str, Any]:
    """One part as a process of its own; its output is kept."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MMTUI_TEST_DEVICE": options.device}
    began = time.monotonic()
    with (options.out / f"{name}.txt").open("w") as file:
        try:
            command = [sys.executable, *PARTS[name](options)]
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, timeout=max(left, 1), check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    found = {"part": name, "exit": code, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(found), flush=True)
    return found


def record_profile(options: argparse.Namespace) -> None:
    """A table of kernels and a trace for chrome://tracing."""
    import tempfile

    import torch
    from torch.profiler import ProfilerActivity, profile

    from engine import determinism
    from engine.config import load_recipe
    from engine.events import SilentWriter
    from engine.stages import Context, build_stage

    changes = [f"runtime.device={options.device}", *SHAPES, *(QUICK if options.quick else ())]
    changes += ["runtime.precision=bf16"] if options.device == "cuda" else []
    recipe = load_recipe("voc_vgg16_random_mixmatch", changes, [ROOT / "recipes"])
    determinism.configure(recipe.runtime.threads, recipe.runtime.deterministic)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device == "cuda" else [])]
    with tempfile.TemporaryDirectory() as folder:
        context = Context(recipe, Path(folder), torch.device(options.device), SilentWriter(), lambda: False)
        stage = build_stage(context, "match")
        stage.step(0)
        with profile(activities=activities) as found:
            for step in range(1, 2 if options.quick else 6):
                stage.step(step)
            if options.device == "cuda":
                torch.cuda.synchronize()
    by = "self_cuda_time_total" if options.device == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=by, row_limit=40))
    found.export_chrome_trace(str(options.out / "match_trace.json"))


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Hardware, versions and date."""
    import torch

    card = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": card, "quick": options.quick, **versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that comes of it")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--minutes", type=float, default=25.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="show that it works, measure nothing")
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.profile:
        record_profile(options)
        return 0
    end = time.monotonic() + 60 * options.minutes
    told = about(options)
    found = [run(name, options, end - time.monotonic()) for name in options.parts]
    (options.out / "summary.json").write_text(json.dumps({**told, "parts": found}, indent=1))
    return int(any(part["exit"] for part in found))


if __name__ == "__main__":
    sys.exit(main())
