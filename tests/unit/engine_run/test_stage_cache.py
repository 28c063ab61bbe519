"""A stage that another run has trained is taken over only where the very same bits would come out."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine import checkpoint
from engine.config import Recipe, valid_keys
from engine.config.determining import FREE_KEYS, LATER_KEYS, determining, stage_names, work_name
from engine.stage_cache import key_of, stage_inputs
from tests.unit.engine_run.conftest import Runner, tiny_recipe

# A second value for every key that determines the match stage of the tiny recipe, and that the schema allows with it.
CHANGED: dict[str, Any] = {
    "seed": 1,
    "reference_compat": True,
    "runtime.precision": "bf16",
    "runtime.threads": 2,
    "runtime.deterministic": False,
    "data.height": 40,
    "data.width": 40,
    "data.train": 6,
    "data.val": 4,
    "data.objects": [1, 2],
    "data.data_seed": 7,
    "model.backbone": "resnet18",
    "model.width": 0.5,
    "model.input": "gray",
    "model.head": "fcn",
    "model.dilated": True,
    "model.head_channels": 16,
    "model.fc_channels": 16,
    "model.extra_channels": 8,
    "model.head_std": 0.1,
    "model.dropout": 0.25,
    "model.weights_partial": True,
}


def inputs_of(recipe: Recipe, stage: str = "match") -> dict[str, Any]:
    torch.set_num_threads(recipe.runtime.threads)
    return stage_inputs(recipe, stage, "CPU (here)")


def changes() -> list[tuple[str, Any]]:
    """Each determining key with another value than the tiny recipe's; the schema itself says which there are."""
    found = dict(CHANGED)
    for key, value in determining(tiny_recipe(), "match"):
        if key not in found and key not in ("data.kind", "model.weights"):
            found[key] = another(key, value)
    return sorted(found.items())


def another(key: str, value: Any) -> Any:
    named = {
        "proxy.kind": "rotation",
        "proxy.images": "",
        "match.strategy": "random",
        "match.loss": "info_nce",
        "match.centres": "balanced",
        "match.candidates": "pure",
        "match.graph_scope": "global",
        "match.normalizer": "reference",
        "match.background": None,
        "match.background_ratio": 0.3,
        "match.patch_size": [8, 12],
        "match.overlap": 0.5,
        "proxy.max_images": 3,
        "model.freeze": 2,
    }
    if key in named:
        return named[key]
    if key.endswith("milestones"):
        return [0.4]
    if key.endswith("scale_jitter"):
        return [0.5, 2.0]
    if key.endswith("schedule"):
        return "cosine"
    if key.endswith("optimiser"):
        return "adamw"
    if key.endswith("betas"):
        return [0.5, 0.999]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    assert isinstance(value, float), f"give another value for {key} = {value!r}"
    return value / 2 if value else 0.5


@pytest.mark.parametrize(("key", "value"), [item for item in changes() if item[1] != ""])
def test_stage_inputs_every_determining_key_changes_the_key(key: str, value: Any) -> None:
    # Only ResNets have a dilated form, and not with the head of the tiny recipe.
    base = {"model__backbone": "resnet18", "segment": None, "evaluate": None} if key == "model.dilated" else {}
    plain, changed = tiny_recipe(**base), tiny_recipe(**base, **{"__".join(key.split(".")): value})
    assert changed != plain, key
    assert key_of(inputs_of(changed)) != key_of(inputs_of(plain))


def test_former_name_of_a_loss_names_the_same_work() -> None:
    """Names that are kept (outputs, measured times) are made of the former one: they stay valid."""
    former, now = (tiny_recipe(match__loss=word) for word in ("supcon", "info_nce"))
    assert former.match is not None and former.match.loss == "supcon", "kept as it was written"
    assert inputs_of(now) == inputs_of(former) != inputs_of(tiny_recipe())
    assert ["match.loss", "supcon"] in inputs_of(now)["recipe"]
    assert stage_names(now) == stage_names(former) and work_name(now) == work_name(former)
    assert work_name(now) != work_name(tiny_recipe())


def test_keys_that_names_leave_out_have_the_value_of_the_schema() -> None:
    """Else a recipe that does not speak of them would be named as one that does."""
    defaults = {
        info.key: list(info.default) if isinstance(info.default, tuple) else info.default for info in valid_keys()
    }
    assert {key: defaults[key] for key in LATER_KEYS} == LATER_KEYS


def test_stage_inputs_what_comes_later_or_only_shows_does_not_count() -> None:
    for change in ({"segment__steps": 9}, {"segment__optim": {"lr": 0.3}}, {"evaluate": None}, {"name": "other"}):
        assert key_of(inputs_of(tiny_recipe(**change))) == key_of(inputs_of(tiny_recipe()))
    assert key_of(inputs_of(tiny_recipe(match__steps=9), "proxy")) == key_of(inputs_of(tiny_recipe(), "proxy"))
    assert "data.root" in FREE_KEYS


def test_stage_inputs_device_processes_and_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = inputs_of(tiny_recipe())
    assert stage_inputs(tiny_recipe(), "match", "NVIDIA H100") != plain
    monkeypatch.setattr("engine.dist.world_size", lambda: 2)
    assert stage_inputs(tiny_recipe(), "match", "CPU (here)")["processes"] == 2
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "0.1")
    assert inputs_of(tiny_recipe()) != plain


def test_stage_inputs_source_of_the_engine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs_of(tiny_recipe())
    (tmp_path / "loop.py").write_text("x = 1\n")
    monkeypatch.setattr("engine.own_code.__file__", str(tmp_path / "own_code.py"))
    assert inputs_of(tiny_recipe())["engine"] != before["engine"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    root = tmp_path / "photographs"
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (40 * number, 9, 9)).save(root / "images" / split / f"{number}.png")
            Image.new("L", (32, 32), number % 2).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("a\nb\n")
    return root


def folder_recipe(root: Path, **changes: Any) -> Recipe:
    return tiny_recipe(data={"kind": "folder", "root": str(root), "labels": "masks/{split}"}, **changes)


def test_stage_inputs_one_pixel_of_one_image_counts(photographs: Path) -> None:
    before = inputs_of(folder_recipe(photographs))
    file = photographs / "images" / "train" / "1.png"
    picture = Image.open(file)
    picture.putpixel((0, 0), (41, 9, 9))
    picture.save(file)
    assert inputs_of(folder_recipe(photographs)) != before


def test_run_that_goes_on_with_other_data_says_so_and_moved_data_are_the_same(
    photographs: Path, tmp_path: Path, runner: Runner
) -> None:
    cache, recipe = tmp_path / "cache", folder_recipe(photographs, proxy=None, match__steps=3, segment__steps=100_000)
    assert runner.kill_at(recipe, signal.SIGTERM, "segment", 1, "--stage-cache", str(cache)) == 143
    moved = photographs.rename(photographs.with_name("moved"))
    recipe = folder_recipe(moved, proxy=None, match__steps=3, segment__steps=100_000)
    assert runner.kill_at(recipe, signal.SIGTERM, "segment", 3, "--stage-cache", str(cache)) == 143

    def warnings() -> list[dict[str, Any]]:
        """But for those about the few labels of these data."""
        return [event for event in runner.kind("warning") if "about" not in event["values"]]

    assert warnings() == []
    Image.new("RGB", (32, 32), (77, 9, 9)).save(moved / "images" / "train" / "1.png")
    assert runner.kill_at(recipe, signal.SIGTERM, "segment", 5, "--stage-cache", str(cache)) == 143
    (warning,) = warnings()
    assert warning["values"]["text"].startswith("the data set is not the one that this run was trained on")


def test_stage_inputs_data_may_move(photographs: Path) -> None:
    before = inputs_of(folder_recipe(photographs))
    assert inputs_of(folder_recipe(photographs.rename(photographs.with_name("moved")))) == before


def test_stage_inputs_content_of_weights_and_proxy_images_counts(photographs: Path, tmp_path: Path) -> None:
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"one")
    recipe = tiny_recipe(model__weights=str(weights), proxy__images=str(photographs / "images" / "val"))
    before = inputs_of(recipe)
    weights.write_bytes(b"two")
    after = inputs_of(recipe)
    assert after["weights"] != before["weights"]
    images = photographs / "images" / "val"
    Image.new("RGB", (32, 32), (1, 2, 3)).save(images / "0.png")
    changed = inputs_of(recipe)["proxy_images"]
    assert changed != after["proxy_images"]
    assert len(changed) == 64, "one digest, however many images there are: each kept output stores it"
    moved = images.rename(photographs / "elsewhere")
    recipe = tiny_recipe(model__weights=str(weights), proxy__images=str(moved))
    assert inputs_of(recipe)["proxy_images"] == changed
    (moved / "0.png").rename(moved / "00.png")
    assert inputs_of(recipe)["proxy_images"] != changed


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def finish(runner: Runner, recipe: Recipe, cache: Path) -> None:
    code, _, err = runner.finish(recipe, "--stage-cache", str(cache))
    assert code == 0, err


def reused(runner: Runner) -> list[str]:
    return [event["stage"] for event in runner.kind("stage_reused")]


def test_second_run_takes_over_and_ends_as_if_it_had_trained(tmp_path: Path, cache: Path) -> None:
    first, second, alone = (Runner(tmp_path / name) for name in ("first", "second", "alone"))
    finish(first, tiny_recipe(), cache)
    other = tiny_recipe(segment__optim={"lr": 0.01})
    finish(second, other, cache)
    assert alone.finish(other)[0] == 0
    assert reused(first) == []
    assert reused(second) == ["proxy", "match"]
    assert second.kind("metrics", "match") == []
    assert [e["stage"] for e in second.kind("stage_finished")] == ["proxy", "match", "segment", "evaluate"]
    for stage in ("proxy", "match", "segment"):
        assert second.weights(stage) == alone.weights(stage)
    assert [e["values"]["matrix"] for e in second.kind("confusion")] == [
        e["values"]["matrix"] for e in alone.kind("confusion")
    ]
    steps = {e["stage"]: e["global_step"] for e in second.events() if e["kind"] == "stage_finished"}
    assert steps == {e["stage"]: e["global_step"] for e in alone.events() if e["kind"] == "stage_finished"}


def test_run_takes_over_what_was_trained_by_the_former_name_of_its_loss(tmp_path: Path, cache: Path) -> None:
    runs = [Runner(tmp_path / name) for name in ("former", "now", "former again")]
    for runner, word in zip(runs, ("supcon", "info_nce", "supcon"), strict=True):
        finish(runner, tiny_recipe(match__loss=word), cache)
    assert [reused(runner) for runner in runs] == [[], ["proxy", "match"], ["proxy", "match"]]
    assert runs[0].weights("segment") == runs[1].weights("segment")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runner]:
    """A cache with the stages of a run that has finished, and the run. Take a copy."""
    folder = tmp_path_factory.mktemp("filled")
    first = Runner(folder / "first")
    finish(first, tiny_recipe(), folder / "cache")
    return folder / "cache", first


@pytest.mark.parametrize("change", [{"seed": 1}, {"runtime__reuse_stages": False}])
def test_run_of_another_seed_or_with_reuse_switched_off_takes_nothing(
    tmp_path: Path, cache: Path, filled: tuple[Path, Runner], change: dict[str, Any]
) -> None:
    shutil.copytree(filled[0], cache)
    second = Runner(tmp_path / "second")
    finish(second, tiny_recipe(**change), cache)
    assert reused(second) == []


def entry_of(cache: Path, stage: str) -> Path:
    (found,) = (p.parent for p in cache.glob("*/meta.json") if json.loads(p.read_text())["stage"] == stage)
    return found


@pytest.mark.parametrize("harm", ["weights", "inputs", "meta", "missing"])
def test_damaged_entry_is_not_taken_and_is_replaced(
    tmp_path: Path, cache: Path, filled: tuple[Path, Runner], harm: str
) -> None:
    second, third = (Runner(tmp_path / name) for name in ("second", "third"))
    shutil.copytree(filled[0], cache)
    first = filled[1]
    entry = entry_of(cache, "proxy")
    if harm == "weights":
        content = bytearray((entry / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (entry / "model.safetensors").write_bytes(content)
    elif harm == "inputs":
        meta = json.loads((entry / "meta.json").read_text())
        meta["inputs"]["data"] = "0" * 64
        (entry / "meta.json").write_text(json.dumps(meta))
    elif harm == "meta":
        (entry / "meta.json").write_text("{")
    else:
        (entry / "model.safetensors").unlink()
    finish(second, tiny_recipe(), cache)
    # The match stage has an entry of its own, which is sound.
    assert reused(second) == ["match"]
    assert second.weights("proxy") == first.weights("proxy")
    if harm in ("meta", "missing"):
        assert not checkpoint.damage(entry_of(cache, "proxy"))
        return
    finish(third, tiny_recipe(), cache)
    assert reused(third) == ([] if harm == "inputs" else ["proxy"]) + ["match"]


def test_stage_that_was_cut_off_leaves_nothing_and_goes_on_from_its_own_checkpoint(
    runner: Runner, another_runner: Runner, cache: Path
) -> None:
    from engine.events import EventWriter
    from engine.loop import train

    def attempt(number: int, stop: Callable[[], bool]) -> str:
        writer = EventWriter.open_for_attempt(runner.run_dir, number)
        return train(tiny_recipe(), runner.run_dir, writer, number, stop, lambda _line: None, cache)

    assert attempt(1, lambda: bool(runner.kind("metrics", "match"))) == "stopped"
    assert sorted(json.loads(p.read_text())["stage"] for p in cache.glob("*/meta.json")) == ["proxy"]
    finish(another_runner, tiny_recipe(), cache)
    assert attempt(2, lambda: False) == "succeeded"
    # What another run has finished meanwhile does not take the place of what this one has begun.
    assert reused(runner) == []
    assert runner.weights("match") == another_runner.weights("match")


def test_data_that_change_while_a_stage_trains_are_told_and_shared_with_nobody(
    runner: Runner, photographs: Path, cache: Path
) -> None:
    from engine.events import EventWriter
    from engine.loop import train

    writer = EventWriter.open_for_attempt(runner.run_dir, 1)

    def meddle() -> bool:
        if runner.kind("metrics", "match"):
            Image.new("RGB", (32, 32), (200, 0, 0)).save(photographs / "images" / "train" / "0.png")
        return False

    recipe = folder_recipe(photographs, proxy=None)
    assert train(recipe, runner.run_dir, writer, 1, meddle, lambda _line: None, cache) == "succeeded"
    assert list(cache.glob("*/meta.json")) == []
    assert any("not shared" in e["values"]["text"] for e in runner.kind("warning"))


def test_full_disk_of_the_cache_costs_the_run_nothing(runner: Runner, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    finish(runner, tiny_recipe(), blocked / "cache")
    assert any("not shared" in e["values"]["text"] for e in runner.kind("warning"))


def test_stage_names_are_equal_for_equal_work_alone() -> None:
    one = stage_names(tiny_recipe())
    assert set(one) == {"proxy", "match"}
    assert stage_names(tiny_recipe(segment__steps=9)) == one
    assert stage_names(tiny_recipe(match__steps=9))["proxy"] == one["proxy"]
    assert stage_names(tiny_recipe(match__steps=9))["match"] != one["match"]
    assert stage_names(tiny_recipe(runtime__reuse_stages=False)) == {}
