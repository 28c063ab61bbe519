"""Where decoded data over the budget go by themselves, what is told of it, and when they are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.config import Recipe, load_recipe
from engine.config.schema import FolderData, ProxyConfig, ShapesData
from engine.data import digests, images, processes, threads
from engine.data.cache import CacheUse, cache_folder, load_cached
from engine.data.feed import Feed
from engine.data.images import ProxyImages, load_images
from engine.data.pictures import square
from engine.data.pipeline import epoch_indices, sample_crops
from engine.data.registry import BUILDERS, build_data
from engine.data.source import Source
from engine.errors import DataError
from tests.unit.engine_run.conftest import Runner, tiny_recipe

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
PAPER = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem.startswith(("voc_", "cityscapes_")))
OFFICIAL = {"voc": (10_582, 1_449, 500, 500), "cityscapes": (2_975, 500, 1024, 2048)}
"""Images of train (VOC: with SBD) and val, and the largest height and width among them."""
KINDS = ("colorization", "jigsaw", "rotation", "moco", "densecl", "classification")


def draw_folder(root: Path) -> Path:
    """Five training and two validation images of three sizes, with their masks."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for index in range(count):
            size = (30 + 4 * (index % 3), 36)
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / f"images/{split}/{index}.jpg")
            Image.fromarray(rng.integers(0, 3, size, np.uint8)).save(root / f"labels/{split}/{index}.png")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven pictures of two classes, of several sizes."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(7):
        found.append(tmp_path / "pictures" / ("ant" if number < 3 else "bee") / "deep" / f"{number}.jpg")
        found[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + number, 44, 3), np.uint8)).save(found[-1])
    return found


def decoded(recipe: Recipe) -> Recipe:
    """The recipe with a budget that no data fit."""
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"memory_budget_gib": 1e-9})})


def texts(runner: Runner) -> set[str]:
    return {str(event["values"]["text"]) for event in runner.kind("progress")}


def test_cache_folder_is_the_one_that_was_set_else_a_usual_one(
    monkeypatch: pytest.MonkeyPatch, private_home: Path, tmp_path: Path
) -> None:
    assert cache_folder("/some/folder") == Path("/some/folder") and cache_folder("none") is None
    assert cache_folder("") == private_home / "decoded"
    monkeypatch.delenv("MMTUI_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("") == tmp_path / "xdg/mmtui/decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("") == tmp_path / ".cache/mmtui/decoded"


def test_recipe_may_refuse_the_cache_or_name_a_folder() -> None:
    def setting(text: str) -> str:
        return load_recipe("shapes_smoke", [f"runtime.data_cache={text}"], [RECIPES]).runtime.data_cache

    assert setting("none") == "none" and setting("./none") == str(Path.cwd() / "none") and setting("") == ""


def test_data_over_the_budget_are_decoded_once_and_train_the_same(
    tmp_path: Path, private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(data={"kind": "folder", "root": str(draw_folder(tmp_path / "data"))}, proxy=None, match=None)
    memory, first, second = (Runner(tmp_path / name) for name in ("memory", "first", "second"))
    for runner, asked in ((memory, recipe), (first, decoded(recipe)), (second, decoded(recipe))):
        assert runner.train(asked) == "succeeded"
    assert memory.losses() == first.losses() == second.losses() and len(memory.losses()) == 6
    assert memory.weights("segment") == first.weights("segment") == second.weights("segment")
    assert memory.kind("data_cache") == [] and "decoding train images" in texts(first)
    folder = private_home / "decoded"
    for runner, found in ((first, False), (second, True)):
        told = [event["values"] for event in runner.kind("data_cache")]
        sizes = {"train": 5 * 4 * 38 * 36, "val": 2 * 4 * 34 * 36}
        expected = [{"label": k, "folder": str(folder), "bytes": n, "found": found} for k, n in sizes.items()]
        assert sorted(told, key=lambda values: str(values["label"])) == expected
    assert not {"decoding train images", "decoding val images"} & texts(second)
    assert {"checking cached train images", "checking cached val images"} <= texts(second)
    assert private_home.stat().st_mode & 0o077 == 0 == folder.stat().st_mode & 0o077


def test_trainer_says_in_one_line_where_decoded_data_lie(tmp_path: Path, private_home: Path) -> None:
    from engine.events import EventWriter
    from engine.loop import train

    recipe = decoded(tiny_recipe(proxy=None, match=None, segment__steps=1, segment__eval_every=0))
    lines: list[str] = []
    writer = EventWriter.open_for_attempt(tmp_path / "run", 1)
    train(recipe, tmp_path / "run", writer, 1, lambda: False, lines.append)
    writer.close()
    (line,) = [line for line in lines if line.startswith("train images")]
    assert "GiB" in line and f"decoded into {private_home / 'decoded'} (runtime.data_cache)" in line


def test_cache_none_refuses_data_over_the_budget(tmp_path: Path, private_home: Path) -> None:
    runner = Runner(tmp_path / "run")
    with pytest.raises(DataError, match=r"runtime\.memory_budget_gib.*raise the budget, set runtime\.data_cache to"):
        runner.train(decoded(tiny_recipe(runtime__data_cache="none")))
    assert not (private_home / "decoded").exists()


def enormous(pixels: int = 10**8) -> Source:
    """Data of which one image is 10^8 x 10^8 pixels; nothing of them may be read."""

    def never(*_: object) -> Any:
        raise AssertionError("read")

    source = BUILDERS["shapes"](ShapesData(train=2, val=1), "train")
    return replace(source, sizes=[(pixels, pixels)] * 2, read=never, digest=never)


def test_disk_without_room_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_cached(enormous(), tmp_path / "cache")
    text = str(caught.value)
    assert "set runtime.data_cache to a folder with room, or lower data.train" in text and "\n" not in text
    assert f"needs {8 * 10**16 / 2**30:.2f} GiB" in text and str(tmp_path / "cache") in text
    (tmp_path / "cache/val_x.bin").write_bytes(bytes(2**20))
    with pytest.raises(DataError, match=r"or delete what no run needs there \(0\.00 GiB\)"):
        load_cached(enormous(), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.writing"))


def test_disk_without_room_is_told_when_another_run_has_just_filled_it(tmp_path: Path) -> None:
    """An entry of the same size makes the first look pass; the second one, under the lock, does not."""
    source = replace(enormous(10**6), digest=lambda _progress: "0" * 64)  # 8 TB: as a sparse file on any disk
    (tmp_path / "cache").mkdir()
    with (tmp_path / "cache/train_other.bin").open("wb") as file:
        try:
            file.truncate(8 * 10**12)
        except OSError:
            pytest.skip("the file system knows no sparse file of 8 TB")
    with pytest.raises(DataError, match=r"set runtime\.data_cache to a folder with room"):
        load_cached(source, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.writing"))


def test_checksums_of_files_are_remembered_beside_the_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FolderData(root=str(draw_folder(tmp_path / "data")))
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)  # else files would have to be two seconds old
    build_data(config, "train", 1, None, tmp_path / "cache")
    stored = json.loads((tmp_path / "cache/digests").read_text())
    for file in (tmp_path / "data/images/train").iterdir():
        assert stored[str(file)][1] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PAPER)
def test_recipe_of_the_paper_has_a_way_to_the_official_data(name: str) -> None:
    recipe = load_recipe(name, ["data.root=/data"], [RECIPES])
    train, val, height, width = OFFICIAL[recipe.data.kind]
    height, width = round(height * recipe.data.scale), round(width * recipe.data.scale)  # type: ignore[union-attr]
    budget = recipe.runtime.memory_budget_gib * 2**30
    folder = cache_folder(recipe.runtime.data_cache)
    for split, count in (("train", train), ("val", val)):
        source = replace(BUILDERS["shapes"](ShapesData(), split), names=["x"] * count, sizes=[(height, width)] * count)
        source = replace(source, unlabelled=0)
        assert source.nbytes == count * 4 * height * width  # three colours and a label
        assert source.nbytes <= budget or folder is not None
        assert (source.nbytes > budget) == (split == "train"), "what this test is for"


def test_recipe_of_the_paper_trains_over_the_budget_on_files_in_the_layout_of_voc(
    tmp_path: Path, private_home: Path
) -> None:
    root = tmp_path / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, part in enumerate(["SegmentationClassAug"] * 2 + ["SegmentationClass"]):
        Image.fromarray(rng.integers(0, 256, (50, 50, 3), np.uint8)).save(root / f"JPEGImages/{number}.jpg")
        Image.fromarray(rng.integers(0, 21, (50, 50), np.uint8)).save(root / part / f"{number}.png")
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("0\n1\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("2\n")
    given = ["data.root=" + str(root), "runtime.memory_budget_gib=0.00001", "runtime.device=cpu", "runtime.threads=1"]
    small = ["model.width=0.0625", "model.fc_channels=8", "segment.steps=1", "segment.crop=64", "segment.batch_size=2"]
    small += ["segment.accumulate=1", "evaluate.side=64"]
    recipe = load_recipe("voc_alexnet_random_baseline", [*given, *small], [RECIPES])
    runner = Runner(tmp_path / "run")
    assert runner.train(recipe) == "succeeded"
    assert [e["values"]["label"] for e in runner.kind("data_cache")] == ["train"], "the validation image fits"
    assert len(list((private_home / "decoded").glob("train_*.bin"))) == 1


def proxy(folder: Path, **changes: Any) -> ProxyConfig:
    return ProxyConfig(**{"kind": "classification", "images": str(folder), "image_side": 16, "crop": 16, **changes})


def squares(files: list[Path], side: int = 16) -> NDArray[np.uint8]:
    """The images as (N, 3, side, side), one after the other."""
    return np.stack([square(file, side).transpose(2, 0, 1) for file in sorted(files)])


def from_cache(config: ProxyConfig, cache: Path, told: list[CacheUse] | None = None) -> ProxyImages:
    return load_images(config, 0, 1, None, cache, None, (told if told is not None else []).append)


@pytest.mark.parametrize("many", [7, 8])
@pytest.mark.processes
def test_images_of_a_proxy_task_over_the_budget_are_mapped(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """``many`` = 7 decodes in processes, which write into the file."""
    monkeypatch.setattr(images, "MANY", many)
    monkeypatch.setattr(images, "thread_count", lambda: 2)
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    monkeypatch.setattr(processes, "PIECE", 3)
    told: list[CacheUse] = []
    config, cache = proxy(tmp_path / "pictures"), tmp_path / "cache"
    memory = load_images(config, 0, 10**6, None, cache)
    assert not memory.data.mapped and not cache.exists()
    for _ in range(2):
        found = from_cache(config, cache, told)
        assert found.data.mapped and np.array_equal(found.data.images.numpy(), squares(pictures))
        assert found.classes == memory.classes == ("ant", "bee") and found.data.names == memory.data.names
        assert found.targets is not None and found.targets.tolist() == [0, 0, 0, 1, 1, 1, 1]
        assert torch.equal(found.data.labels, memory.data.labels) and torch.equal(found.data.sizes, memory.data.sizes)
    assert told == [CacheUse("proxy", cache, 7 * 3 * 16 * 16, found) for found in (False, True)]


def test_images_of_a_proxy_task_are_fed_as_they_are_in_memory(pictures: list[Path], tmp_path: Path) -> None:
    """What a GPU gets of mapped images, seen on the CPU."""
    config = proxy(tmp_path / "pictures", image_side=24)
    memory = load_images(config, 0, None, None).data
    fed = replace(from_cache(config, tmp_path / "cache").data, feed=Feed("cpu"))
    for draw in range(6):
        indices = epoch_indices(3, draw, 4, 7)
        want, got = (sample_crops(data, indices, 16, torch.Generator().manual_seed(draw)) for data in (memory, fed))
        assert torch.equal(want[0], got[0]) and torch.equal(want[1], got[1])
        fed.expect(lambda draw=draw: epoch_indices(3, draw + 1, 4, 7))  # type: ignore[misc]


def test_images_of_a_proxy_task_have_an_entry_for_each_content(pictures: list[Path], tmp_path: Path) -> None:
    config, cache = proxy(tmp_path / "pictures"), tmp_path / "cache"

    def entries(config: ProxyConfig) -> int:
        found = from_cache(config, cache)
        names = [tmp_path / "pictures" / name for name in found.data.names]
        assert np.array_equal(found.data.images.numpy(), squares(names, config.image_side))
        return len(list(cache.glob("*.bin")))

    assert entries(config) == 1 == entries(proxy(tmp_path / "pictures", kind="jigsaw"))
    assert entries(proxy(tmp_path / "pictures", image_side=32)) == 2
    assert entries(proxy(tmp_path / "pictures", max_images=3)) == 3
    Image.new("RGB", (20, 20), (1, 2, 3)).save(pictures[4])
    assert entries(config) == 4
    pictures[0].rename(pictures[0].with_name("9.jpg"))
    assert entries(config) == 5
    (tmp_path / "pictures").rename(tmp_path / "moved")
    from_cache(proxy(tmp_path / "moved"), cache)
    assert len(list(cache.glob("*.bin"))) == 5


def test_images_of_a_proxy_task_that_are_refused_name_the_keys(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raise the budget, set runtime\.data_cache to.*proxy\.max_images"):
        load_images(proxy(tmp_path / "pictures"), 0, 1, None)
    pictures[5].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"5\.jpg cannot be read as a picture"):
        from_cache(proxy(tmp_path / "pictures"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.json")) and not list((tmp_path / "cache").glob("*.bin*"))


@pytest.mark.parametrize("kind", KINDS)
def test_proxy_stage_trains_and_goes_on_from_mapped_images_to_the_same_bits(
    kind: str, pictures: list[Path], tmp_path: Path, private_home: Path
) -> None:
    folder = {"images": str(tmp_path / "pictures"), "image_side": 36, "crop": 32, "queue": 16}
    small = {"tile": 8, "gap": 2, "permutations": 4, "projection": 8, "pixels": 8, "head_channels": 8}
    stage = {"kind": kind, "steps": 4, "batch_size": 3, **folder, **small}
    recipe = tiny_recipe(proxy=stage, match=None, segment__steps=1, segment__eval_every=0)
    memory, mapped = Runner(tmp_path / "memory"), Runner(tmp_path / "mapped")
    assert memory.train(recipe) == "succeeded" and not memory.kind("data_cache")
    assert mapped.train(decoded(recipe), stopping_after("proxy", 2)) == "stopped"
    assert mapped.train(decoded(recipe)) == "succeeded"
    assert [step for stage, step in mapped.losses() if stage == "proxy"] == [1, 2, 3, 4]
    assert mapped.losses() == memory.losses() and mapped.weights("proxy") == memory.weights("proxy")
    told = [event["values"] for event in mapped.kind("data_cache", "proxy")]
    assert [(values["label"], values["found"]) for values in told] == [("proxy", False), ("proxy", True)]
    assert {values["folder"] for values in told} == {str(private_home / "decoded")}


def stopping_after(stage: str, step: int) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda events: any(e["kind"] == "metrics" and e["stage"] == stage and e["step"] >= step for e in events)
