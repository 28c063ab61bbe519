"""Decoded data on disk: the same batches as from memory, made once, checked, and made anew when damaged."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config.schema import FolderData, Recipe, ShapesData
from engine.data import registry
from engine.data.cache import load_cached
from engine.data.dataset import SegmentationData
from engine.data.feed import Feed
from engine.data.pipeline import epoch_indices, sample_crops
from engine.data.registry import build_data
from engine.data.source import Source
from engine.errors import DataError
from engine.events import EventWriter
from tests.event_lines import event_lines

SHAPES = ShapesData(height=40, width=56, train=7, val=3, unlabelled=4)


@pytest.fixture
def folder(tmp_path: Path) -> FolderData:
    """Five JPEG images of three sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for part in ("images", "labels"):
            (tmp_path / "data" / part / split).mkdir(parents=True)
        for index in range(count):
            size = (20 + 6 * (index % 3), 31)
            picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"data/images/{split}/{index}.jpg")
            mask = rng.integers(0, 3, size, dtype=np.uint8)
            Image.fromarray(mask).save(tmp_path / f"data/labels/{split}/{index}.png")
    (tmp_path / "data/classes.txt").write_text("a\nb\nc\n")
    return FolderData(root=str(tmp_path / "data"), scale=0.8)


def from_cache(config: FolderData | ShapesData, cache: Path, warnings: list[str] | None = None) -> SegmentationData:
    told = [] if warnings is None else warnings
    return build_data(config, "train", 1, None, cache, told.append)


def same(first: SegmentationData, second: SegmentationData) -> bool:
    parts = ("images", "labels", "sizes")
    return first.names == second.names and all(torch.equal(getattr(first, p), getattr(second, p)) for p in parts)


def batches(data: SegmentationData, **options: object) -> list[torch.Tensor]:
    """Ten batches as a stage takes them, the next one expected each time."""
    result = []
    for draw in range(10):
        generator = torch.Generator().manual_seed(draw)
        indices = epoch_indices(5, draw, 3, len(data))
        result += sample_crops(data, indices, 24, generator, **options)  # type: ignore[arg-type]
        data.expect(lambda draw=draw: epoch_indices(5, draw + 1, 3, len(data)))  # type: ignore[misc]
    return result


@pytest.mark.parametrize("options", [{}, {"scale_jitter": (0.5, 2.0), "colour_jitter": 0.4}])
def test_cached_data_give_the_batches_of_data_in_memory(
    folder: FolderData, tmp_path: Path, options: dict[str, object]
) -> None:
    memory = build_data(folder, "train")
    first, again = (from_cache(folder, tmp_path / "cache") for _ in range(2))
    fed = replace(again, feed=Feed("cpu"))
    assert same(memory, first) and same(memory, again) and again.mapped and not memory.mapped
    for data in (first, again, fed):
        assert all(torch.equal(a, b) for a, b in zip(batches(memory, **options), batches(data, **options), strict=True))


def test_fed_batch_that_failed_on_its_way_is_brought_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch computed again for lack of memory must not find the failure of the first time."""
    feed, images, labels = Feed("cpu"), torch.arange(6).view(6, 1, 1, 1), torch.arange(6).view(6, 1, 1)
    bring = feed._bring

    def failing(*_: object) -> object:
        raise torch.OutOfMemoryError("a test says so")

    monkeypatch.setattr(feed, "_bring", failing)
    feed.expect(images, labels, torch.tensor([4, 1]))
    with pytest.raises(torch.OutOfMemoryError):
        feed.take(images, labels, torch.tensor([4, 1]))
    monkeypatch.setattr(feed, "_bring", bring)
    assert feed.take(images, labels, torch.tensor([4, 1]))[0].flatten().tolist() == [4, 1]


def test_cached_shapes_keep_unlabelled_images_without_a_copy(tmp_path: Path) -> None:
    memory, cached = build_data(SHAPES, "train"), from_cache(SHAPES, tmp_path)
    fed = replace(cached, feed=Feed("cpu"))
    assert cached.unlabelled is not None and memory.unlabelled is not None
    assert torch.equal(cached.unlabelled, memory.unlabelled)
    assert cached.proxy_view().images.data_ptr() == cached.images.data_ptr()
    for data in (memory, cached, fed):
        view = data.proxy_view()
        assert len(view) == 11 and bool((view.labels == 255).all())
    want, got = batches(memory.proxy_view()), batches(fed.proxy_view())
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_fed_batches_do_not_depend_on_what_was_expected(folder: FolderData, tmp_path: Path) -> None:
    fed = replace(from_cache(folder, tmp_path), feed=Feed("cpu"))
    memory = build_data(folder, "train")
    for wrong in ([4, 4], [0], [1, 2, 3]):
        fed.expect(lambda wrong=wrong: torch.tensor(wrong))  # type: ignore[misc]
        taken = fed.take(torch.tensor([2, 0]))
        assert torch.equal(taken.images, memory.images[[2, 0]]) and torch.equal(taken.labels, memory.labels[[2, 0]])
        assert taken.names == ["2", "0"] and torch.equal(taken.sizes, memory.sizes[[2, 0]])
    for start in range(0, 5, 2):
        images, labels = fed.batch(start, start + 2)
        assert torch.equal(images, memory.images[start : start + 2])
        assert torch.equal(labels, memory.labels[start : start + 2])


def test_data_in_memory_are_asked_for_nothing_ahead() -> None:
    def never() -> torch.Tensor:
        raise AssertionError("asked")

    build_data(SHAPES, "val").expect(never)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cached_data_on_a_gpu_give_the_batches_of_data_in_its_memory(folder: FolderData, tmp_path: Path) -> None:
    resident, fed = build_data(folder, "train").to("cuda"), from_cache(folder, tmp_path).to("cuda")
    assert fed.images.device.type == "cpu" and fed.device.type == "cuda" == resident.device.type
    jitter: dict[str, object] = {"scale_jitter": (0.5, 2.0), "colour_jitter": 0.4}
    assert all(torch.equal(a, b) for a, b in zip(batches(resident, **jitter), batches(fed, **jitter), strict=True))
    cpu = batches(build_data(folder, "train"), **jitter)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(cpu, batches(fed, **jitter), strict=True))


Damage = Callable[[Path, Path], object]


def flip(offset: int) -> Damage:
    def damage(data: Path, _header: Path) -> None:
        content = bytearray(data.read_bytes())
        content[offset] ^= 1
        data.write_bytes(content)

    return damage


def forge(key: str, value: object) -> Damage:
    return lambda _data, header: header.write_text(json.dumps({**json.loads(header.read_text()), key: value}))


DAMAGE: dict[str, tuple[Damage, str]] = {
    "first_byte": (flip(0), "a checksum differs"),
    "last_byte": (flip(-1), "a checksum differs"),
    "cut": (lambda data, _header: data.write_bytes(data.read_bytes()[:-1]), "its size is wrong"),
    "gone": (lambda data, _header: data.unlink(), "its size is wrong"),
    "header_cut": (lambda _data, header: header.write_text(header.read_text()[:-9]), "is no JSON file"),
    "header_is_a_list": (lambda _data, header: header.write_text("[]"), "describes other data"),
    "other_names": (forge("names", ["x"]), "describes other data"),
    "other_checksums": (forge("sha256", []), "a checksum differs"),
}


@pytest.mark.parametrize("case", sorted(DAMAGE))
def test_damaged_cache_is_made_anew_with_a_warning(folder: FolderData, tmp_path: Path, case: str) -> None:
    damage, why = DAMAGE[case]
    warnings: list[str] = []
    memory, cache = build_data(folder, "train"), tmp_path / "cache"
    from_cache(folder, cache, warnings)
    (data,), (header,) = cache.glob("*.bin"), cache.glob("*.json")
    good = data.read_bytes()
    damage(data, header)
    assert same(from_cache(folder, cache, warnings), memory)
    assert len(warnings) == 1 and str(data) in warnings[0] and why in warnings[0]
    assert data.read_bytes() == good
    assert same(from_cache(folder, cache, warnings), memory) and len(warnings) == 1


def test_cache_that_lost_its_header_is_made_anew(folder: FolderData, tmp_path: Path) -> None:
    """What a power cut between the two renames leaves."""
    from_cache(folder, tmp_path / "cache")
    next((tmp_path / "cache").glob("*.json")).unlink()
    next((tmp_path / "cache").glob("*.bin")).write_bytes(b"half")
    assert same(from_cache(folder, tmp_path / "cache"), build_data(folder, "train"))


def test_changed_file_or_scale_gets_an_entry_of_its_own(folder: FolderData, tmp_path: Path) -> None:
    cache, root = tmp_path / "cache", Path(folder.root)
    before = from_cache(folder, cache).images.clone()
    Image.new("RGB", (31, 20), (9, 9, 9)).save(root / "images/train/0.jpg")
    assert not torch.equal(from_cache(folder, cache).images, before)
    from_cache(folder.model_copy(update={"scale": 0.5}), cache)
    assert len(list(cache.glob("*.bin"))) == 3
    from_cache(folder.model_copy(update={"max_val": 1}), cache)
    root.rename(tmp_path / "moved")
    moved = folder.model_copy(update={"root": str(tmp_path / "moved")})
    from_cache(moved, cache)
    assert len(list(cache.glob("*.bin"))) == 3


def counted(source: Source, slow: float = 0.0) -> tuple[Source, list[int]]:
    """The source, and the list of the images that it was asked to read."""
    asked: list[int] = []

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append(index)
        time.sleep(slow)
        return source.read(index)

    return replace(source, read=read), asked


def test_cache_wanted_by_three_runs_at_once_is_decoded_once(folder: FolderData, tmp_path: Path) -> None:
    source, asked = counted(registry.BUILDERS["folder"](folder, "train"), slow=0.02)
    found: list[SegmentationData] = []
    waits: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(load_cached(source, tmp_path / "cache", lambda text, *_: waits.append(text)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asked) == [0, 1, 2, 3, 4]
    assert len(found) == 3 and all(same(data, build_data(folder, "train")) for data in found)
    assert any("waiting for another run" in text for text in waits)


class LeaveError(Exception):
    """What a progress report raises when a run is asked to leave."""


def test_run_that_leaves_while_decoding_leaves_nothing_half_done(folder: FolderData, tmp_path: Path) -> None:
    def leave(text: str, done: int, total: int) -> None:
        if text == "decoding train images":
            raise LeaveError

    with pytest.raises(LeaveError):
        build_data(folder, "train", 1, leave, tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir() if path.name != "digests"} == {".lock"}
    assert same(from_cache(folder, tmp_path / "cache"), build_data(folder, "train"))


def test_cache_on_a_full_disk_says_so(folder: FolderData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"the disk is full.*set runtime\.data_cache to a folder"):
        from_cache(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.writing"))


def test_cache_that_is_no_folder_is_named(folder: FolderData, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"tmp.*/cache could not be written.*runtime\.data_cache"):
        from_cache(folder, tmp_path / "cache")


def test_bad_image_is_named_and_nothing_is_cached(folder: FolderData, tmp_path: Path) -> None:
    path = Path(folder.root) / "images/train/3.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"3\.jpg cannot be read"):
        from_cache(folder, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json"))


def test_data_within_the_budget_are_not_cached(folder: FolderData, tmp_path: Path) -> None:
    data = build_data(folder, "train", 10**6, None, tmp_path / "cache")
    assert not data.mapped and not (tmp_path / "cache").exists()


def test_data_over_the_budget_without_cache_name_the_key(folder: FolderData) -> None:
    with pytest.raises(DataError, match=r"memory_budget_gib.*runtime\.data_cache.*data\.max_train"):
        build_data(folder, "train", 1)


def losses(recipe: Recipe, run_dir: Path) -> tuple[list[float], list[object], list[dict[str, object]]]:
    from engine.loop import train

    writer = EventWriter.open_for_attempt(run_dir, 1)
    train(recipe, run_dir, writer, 1, lambda: False, lambda _line: None)
    writer.close()
    events = event_lines(writer.path)
    found = [event["values"]["loss"] for event in events if event["kind"] == "metrics" and "loss" in event["values"]]
    matrices = [event["values"]["matrix"] for event in events if event["kind"] == "confusion"]
    return found, matrices, [event["values"] for event in events if event["kind"] == "progress"]


def test_train_from_the_cache_is_train_from_memory(tmp_path: Path) -> None:
    data = {
        "data": {"kind": "shapes", "height": 32, "width": 32, "train": 5, "val": 3, "unlabelled": 2},
        "model": {"backbone": "tiny_vgg", "width": 0.25, "head_channels": 8, "fc_channels": 0, "extra_channels": 0},
        "proxy": {"steps": 2, "batch_size": 2, "crop": 32, "pixels": 8, "head_channels": 8},
        "match": {
            "steps": 2,
            "images": 3,
            "patches_per_image": 4,
            "crop": 32,
            "patch_size": [8, 16],
            "output_size": 16,
        },
        "segment": {"steps": 2, "batch_size": 2, "crop": 32, "pixels": 16, "scale_jitter": [0.5, 2]},
        "evaluate": {"batch_size": 2, "show_images": 1},
        "runtime": {"device": "cpu", "threads": 1, "log_every": 1},
    }
    recipe = Recipe.model_validate(data)
    small = {"memory_budget_gib": 1e-9, "data_cache": str(tmp_path / "cache")}
    cached = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=small)})
    want, got = losses(recipe, tmp_path / "memory"), losses(cached, tmp_path / "cached")
    assert len(want[0]) == 6 and got[:2] == want[:2] and len(list((tmp_path / "cache").glob("*.json"))) == 2
    assert {"drawing train images", "drawing val images"} <= {str(values["text"]) for values in got[2]}
