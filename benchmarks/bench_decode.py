"""Decoding a data set: the engine's threads against a pool of processes, and against Pillow alone; all in one run.

    python benchmarks/bench_decode.py [--pairs CAMVID] [--images FOLDER] [--repeat 3] [--rounds 7]

The works take turns and write the same arrays, which is checked. Milliseconds an image, by the clock on the wall.

- floor: one thread that lets Pillow decode image and mask and throws them away.
- one thread, threads: what the engine does, with one thread and with as many as it takes.
- processes: the rival. As many processes, which import neither torch nor the engine, decode in the same way into shared
  memory and send nothing back; the indices are dealt out in chunks. "warm": the pool is there already. "spawn" and
  "forkserver": with starting and ending it, as a training would have to. (fork is not safe beside threads.)
- processes, engine's: ``squares_in_processes``, with starting and ending, as it decodes many small pictures.

CAMVID is a folder with images/SPLIT/*.jpg and labels/SPLIT/*.png, FOLDER one of small pictures, of which each is taken
``--repeat`` times. Without either, pictures are made: 400 pairs of 480 x 360 and 4,000 pictures of 64 x 64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import Pool
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# torch and the engine are imported where they are used: the rival's processes read this file and shall start quickly.
Bytes = NDArray[np.uint8]
VOID, CHUNK = 255, 16
TABLE = np.array([*range(32), *[VOID] * 224], np.uint8)
WORKERS = len(os.sched_getaffinity(0))
_job: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """Pictures, with masks or without, all of one size."""

    name: str
    files: list[str]
    masks: list[str]
    side: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of all pictures: (N, 3, H, W)."""
        return len(self.files), 3, *self.side


def rival(index: int) -> None:
    """Decode one picture into shared memory, as the engine does."""
    with Image.open(_job["files"][index]) as picture:
        picture.draft("RGB", _job["images"].shape[:1:-1])
        picture.load()
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    for plane, band in zip(_job["images"][index], "RGB", strict=True):
        plane[:] = np.frombuffer(picture.tobytes("raw", band), np.uint8).reshape(plane.shape)
    if _job["masks"]:
        with Image.open(_job["masks"][index]) as mask:
            mask.load()
        indices = TABLE.take(np.asarray(mask, np.uint8))
        if (indices == VOID - 1).any():
            raise ValueError(_job["masks"][index])
        _job["labels"][index] = indices


def attach(case: Case, names: tuple[str, str]) -> None:
    """Make shared memory what ``rival`` writes into, in a process of the pool or in this one."""
    memory = [SharedMemory(name) for name in names]
    _job.update(files=case.files, masks=case.masks, memory=memory)
    _job["images"] = np.ndarray(case.shape, np.uint8, memory[0].buf)
    _job["labels"] = np.ndarray((case.shape[0], *case.side), np.uint8, memory[1].buf)


def run_pool(case: Case, pool: Pool) -> None:
    """Let the processes decode everything."""
    for _ in pool.imap_unordered(rival, range(len(case.files)), CHUNK):
        pass


def start_pool(case: Case, names: tuple[str, str], way: str) -> Pool:
    """A pool whose processes are there."""
    context: Any = multiprocessing.get_context(way)
    pool: Pool = context.Pool(WORKERS, attach, (case, names))
    return pool


def cold(case: Case, names: tuple[str, str], way: str) -> None:
    """Start a pool, decode, end it."""
    pool = start_pool(case, names, way)
    run_pool(case, pool)
    pool.close()
    pool.join()


def floor(case: Case) -> None:
    """Pillow's decoders alone."""
    for path in [*case.files, *case.masks]:
        with Image.open(path) as picture:
            if not case.masks:
                picture.draft("RGB", case.side[::-1])
            picture.load()


def engines(case: Case) -> Callable[[], tuple[Bytes, Bytes | None]]:
    """What the engine does with the same files."""
    from engine.data.pairs import LabelRule, Pair, load_pair
    from engine.data.pictures import square
    from engine.data.source import Source, decode
    from engine.data.threads import in_threads

    rule = LabelRule(("a",), tuple(int(value) for value in TABLE), "", lambda _: "")
    pairs = [Pair(mask, Path(file), Path(mask)) for file, mask in zip(case.files, case.masks, strict=False)]
    files = [Path(file) for file in case.files]
    source = Source(
        split="train",
        what="",
        doing="decoding",
        advice="",
        names=case.files,
        classes=("a",),
        sizes=[case.side] * len(files),
        read=lambda index: load_pair(pairs[index], rule, 1.0),
        digest=lambda _: "",
    )

    def with_masks() -> tuple[Bytes, Bytes | None]:
        images, labels = np.zeros(source.image_shape, np.uint8), np.empty(source.label_shape, np.uint8)
        decode(source, images, labels)
        return images, labels

    def without() -> tuple[Bytes, Bytes | None]:
        images = np.empty(case.shape, np.uint8)

        def one(index: int) -> None:
            images[index] = square(files[index], case.side[0]).transpose(2, 0, 1)

        in_threads(one, len(files), "decoding")
        return images, None

    return with_masks if case.masks else without


def single(work: Callable[[], object]) -> None:
    """The same with one thread."""
    from engine.data import threads

    before, threads.MOST_THREADS = threads.MOST_THREADS, 1
    try:
        work()
    finally:
        threads.MOST_THREADS = before


def measure(case: Case, rounds: int) -> None:
    """Print what each way takes."""
    from engine.data.processes import squares_in_processes

    ours = engines(case)
    memory = [SharedMemory(create=True, size=int(np.prod(case.shape)) // part) for part in (1, 3)]
    names = (memory[0].name, memory[1].name)
    warm = start_pool(case, names, "spawn")
    works: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(case),
        "one thread": lambda: single(ours),
        "threads": ours,
        "processes, warm": lambda: run_pool(case, warm),
        "processes, spawn": lambda: cold(case, names, "spawn"),
        "processes, forkserver": lambda: cold(case, names, "forkserver"),
    }
    if not case.masks:
        works["processes, engine's"] = lambda: squares_in_processes(
            [Path(file) for file in case.files], case.side[0], ""
        )
    found: dict[str, list[float]] = {name: [] for name in works}
    try:
        for turn in range(rounds + 1):
            for name, work in works.items():
                began = time.perf_counter()
                work()
                if turn:
                    found[name].append(1e3 * (time.perf_counter() - began) / len(case.files))
        attach(case, names)
        images, labels = ours()
        assert np.array_equal(images, _job["images"]), "both decode the same"
        assert labels is None or np.array_equal(labels, _job["labels"])
    finally:
        warm.terminate()
        warm.join()
        for held in [_job.pop(key, None) for key in ("images", "labels")]:
            del held
        for part in [*_job.pop("memory", []), *memory]:
            part.close()
        for part in memory:
            part.unlink()
    print(f"\n{case.name}: {len(case.files)} files of {case.side[1]} x {case.side[0]}, {WORKERS} cores")
    for name, times in found.items():
        ratio = statistics.median(t / o for t, o in zip(times, found["threads"], strict=True))
        spread = f"{statistics.median(times):8.3f} ms an image  [{min(times):.3f}-{max(times):.3f}]"
        print(f"{name:<24}{spread}   / threads {ratio:5.2f}")


def camvid(folder: Path) -> Case:
    """All splits of a data set of pairs of one size."""
    files = sorted(folder.glob("images/*/*.jpg"))
    masks = [folder / "labels" / file.parent.name / f"{file.stem}.png" for file in files]
    with Image.open(files[0]) as first:
        side = first.height, first.width
    return Case("pairs", [str(file) for file in files], [str(mask) for mask in masks], side)


def small(folder: Path, repeat: int, side: int = 64) -> Case:
    """All square pictures of a folder, each so many times."""
    files = sorted(str(file) for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return Case("small images", files * repeat, [], (side, side))


def make(folder: Path) -> tuple[Path, Path]:
    """Pictures of smooth noise, as photographs are: a folder of pairs and one of small ones."""
    rng = np.random.default_rng(0)
    for part in ("images/all", "labels/all", "small"):
        (folder / part).mkdir(parents=True)

    def noise(width: int, height: int, mode: str, grain: int, top: int) -> Image.Image:
        shape = (height // grain, width // grain, 3) if mode == "RGB" else (height // grain, width // grain)
        coarse = Image.fromarray(rng.integers(0, top, shape, dtype=np.uint8))
        how = Image.Resampling.BICUBIC if mode == "RGB" else Image.Resampling.NEAREST
        return coarse.resize((width, height), how)

    for number in range(400):
        noise(480, 360, "RGB", 6, 256).save(folder / f"images/all/{number}.jpg", quality=90)
        noise(480, 360, "L", 12, 12).save(folder / f"labels/all/{number}.png")
    for number in range(4000):
        noise(64, 64, "RGB", 4, 256).save(folder / f"small/{number}.jpg", quality=90)
    return folder, folder / "small"


def main() -> None:
    """Measure both kinds of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="a folder as CamVid's")
    parser.add_argument("--images", type=Path, help="a folder of small square pictures, 64 x 64")
    parser.add_argument("--repeat", type=int, default=1, help="how often each small picture is taken")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs, images = options.pairs, options.images
        if pairs is None and images is None:
            pairs, images = make(Path(folder))
        if pairs is not None:
            measure(camvid(pairs), options.rounds)
        if images is not None:
            measure(small(images, options.repeat), options.rounds)


if __name__ == "__main__":
    main()
