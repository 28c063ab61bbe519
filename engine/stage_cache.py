"""Outputs of finished stages, kept under the digest of everything that determines them, for other runs to take over.

    CACHE/<key>/  meta.json  model.safetensors
    CACHE/digests.json          checksums of data files that were read before

A key names every input: the recipe's keys of the stage and those before it, the content of data and weight files, the
engine's own source, library versions, device, threads and processes. Two runs share an output only where both would
compute the same bits. The inputs are also stored and compared whole, so that not even equal digests mislead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch

from engine import checkpoint, dist, run_folder
from engine.config.backbones import timm_used
from engine.config.determining import REUSED_STAGES, named_by
from engine.config.schema import Recipe
from engine.data import digests
from engine.data.fingerprint import fingerprint, images_fingerprint
from engine.data.values import Progress
from engine.files import link
from engine.json_types import Json, JsonObject
from engine.mixmatch.window_cutters import opencv_version
from engine.models.weights import weights_file
from engine.own_code import sources

FORMAT = 1
KEY_CHARACTERS = 32


@dataclass(frozen=True)
class Found:
    """An output that was taken over."""

    key: str
    run: str  # id or folder of the run that trained it
    seconds: float  # what its training took


def stage_inputs(recipe: Recipe, stage: str, device: str, progress: Progress | None = None) -> JsonObject:
    """Everything that determines the output of a stage, as JSON values.

    Args:
        device: what the stage runs on, in words: results of different GPUs differ in their last bits.

    Raises:
        DataError: a file of the data set cannot be read.
    """
    model, proxy = recipe.model, recipe.proxy
    images = Path(proxy.images) if proxy is not None and proxy.images else None
    return {
        "format": FORMAT,
        "stage": stage,
        "recipe": json.loads(json.dumps(named_by(recipe, stage))),
        "data": fingerprint(recipe.data, progress),
        "weights": digests.file_digest(weights_file(model)) if model.weights else "",
        "proxy_images": images_fingerprint(images, progress) if images else "",
        "engine": source_digest(),
        "libraries": [
            torch.__version__,
            np.__version__,
            PIL.__version__,
            opencv_version(),
            *timm_used(recipe.model.backbone).values(),
        ],
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": dist.world_size(),
        "deterministic": recipe.runtime.deterministic,
    }


def key_of(inputs: Mapping[str, Json]) -> str:
    """Digest of the inputs of a stage, hexadecimal."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:KEY_CHARACTERS]


def source_digest() -> str:
    """Digest of every source file of the engine that runs."""
    total = hashlib.sha256()
    for path, content in sorted(sources().items()):
        total.update(f"{path}\0".encode())
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


class StageCache:
    """The cache as one run uses it. A cache that cannot be read or written costs time, never a run.

    A forked run takes nothing from it and puts nothing into it: what it computes depends on its parent too.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, device: str, progress: Progress | None = None, *, forked: bool = False
    ) -> None:
        self.folder, self.recipe, self.device, self.progress = folder, recipe, device, progress
        self.forked = forked

    def covers(self, stage: str) -> bool:
        """Whether outputs of this stage are shared at all."""
        return stage in REUSED_STAGES and self.recipe.runtime.reuse_stages and not self.forked

    def inputs(self, stage: str) -> JsonObject:
        """See ``stage_inputs``; checksums of files that did not change are remembered from run to run."""
        run_folder.require()  # the list lies beside it: where one was moved, both were
        remembered = self.folder / "digests.json"
        digests.recall(remembered)
        found = stage_inputs(self.recipe, stage, self.device, self.progress)
        digests.remember(remembered)
        return found

    def data_fingerprint(self) -> str:
        """What identifies the run's data set."""
        run_folder.require()  # the list lies beside it: where one was moved, both were
        remembered = self.folder / "digests.json"
        digests.recall(remembered)
        found = fingerprint(self.recipe.data, self.progress)
        digests.remember(remembered)
        return found

    def take(self, run_dir: Path, stage: str) -> Found | None:
        """Put the stored output of a stage into a run's folder, if there is a sound one of the very same inputs."""
        inputs = self.inputs(stage)
        entry = self.folder / key_of(inputs)
        try:
            meta = json.loads((entry / "meta.json").read_text())
            if meta.get("inputs") != inputs or checkpoint.damage(entry):
                return None
            target = checkpoint.stage_folder(run_dir, stage) / "final"
            _copy(entry, target, {key: value for key, value in meta.items() if key not in ("inputs", "made_at")})
            os.utime(entry)  # eviction goes by the last use
        except (OSError, ValueError):
            return None
        return Found(entry.name, str(meta.get("run", "")), float(meta.get("seconds", 0.0)))

    def put(self, run_dir: Path, stage: str, run: str, seconds: float, before: Mapping[str, Json]) -> str:
        """Keep the output of a stage that has just finished; returns why it could not, "" if it was kept.

        Args:
            before: the inputs as they were when the stage began; files that changed meanwhile make it nobody's.
        """
        inputs = self.inputs(stage)
        if inputs != before:
            return "its files changed while it trained"
        entry = self.folder / key_of(inputs)
        if (entry / "meta.json").is_file() and not checkpoint.damage(entry):
            return ""
        final = checkpoint.stage_folder(run_dir, stage) / "final"
        extra = {"inputs": inputs, "run": run, "seconds": round(seconds, 3), "made_at": time.time()}
        try:
            _copy(final, entry, {**checkpoint.read_meta(final), **extra})
        except OSError as error:
            return error.strerror or str(error)
        return ""


def _copy(source: Path, target: Path, meta: Mapping[str, object]) -> None:
    """A checkpoint folder with another meta file. Large files are linked where the file system can: no file of a
    checkpoint is ever written twice."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    run_folder.make_folder(temporary, 0o700)
    try:
        for file in source.iterdir():
            if file.name != "meta.json":
                link(file, temporary / file.name)
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
        if target.exists():
            shutil.rmtree(target)  # a damaged one, or one without its meta file
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
