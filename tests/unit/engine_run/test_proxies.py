"""Proxy tasks: jigsaw, rotation, classification; what they compute and what they learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config.schema import ProxyConfig
from engine.data.images import load_images
from engine.data.pipeline import normalise
from engine.errors import DataError, RecipeError
from engine.models import tiny_vgg
from engine.proxies import BUILDERS, Classification, Jigsaw, Rotation, build_proxy
from engine.proxies.jigsaw import permutation_set
from tests.unit.engine_run.conftest import Runner, tiny_recipe

pytestmark = pytest.mark.slow


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, side: int = 36, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=generator(seed), dtype=torch.uint8)


def naive_permutations(count: int, tiles: int) -> list[tuple[int, ...]]:
    """The greedy rule with sets and loops."""
    everything = list(itertools.permutations(range(tiles)))
    chosen = [everything[1]]
    while len(chosen) < count:
        left = [p for p in everything if p not in chosen]

        def merit(p: tuple[int, ...]) -> tuple[int, int]:
            distances = [sum(a != b for a, b in zip(p, q, strict=True)) for q in chosen]
            return sum(distances), min(distances)

        chosen.append(max(left, key=merit))  # max takes the first of equals, and the list is in lexical order
    return chosen


@pytest.mark.parametrize(("count", "tiles"), [(1, 4), (10, 4), (24, 4), (12, 5)])
def test_permutations_are_those_of_the_greedy_rule(count: int, tiles: int) -> None:
    assert [tuple(p) for p in permutation_set(count, tiles).tolist()] == naive_permutations(count, tiles)


def test_permutations_of_nine_tiles_differ_in_nearly_all_places() -> None:
    found = permutation_set(64)
    assert len({tuple(p) for p in found.tolist()}) == 64
    assert all(sorted(p) == list(range(9)) for p in found.tolist())
    distances = (found[:, None] != found[None]).sum(axis=2)[np.triu_indices(64, 1)]
    chance = 9 * (1 - 1 / 9)  # expected distance of two random permutations
    assert distances.mean() > chance and distances.min() >= 5


def test_permutations_more_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="have 24 permutations, 25 were asked for"):
        permutation_set(25, 4)


def jigsaw(**changes: int) -> Jigsaw:
    config = ProxyConfig(kind="jigsaw", permutations=6, tile=8, head_channels=8, gap=3).model_copy(update=changes)
    task = build_proxy(config, tiny_vgg(3, 0.25, generator()), generator(1))
    assert isinstance(task, Jigsaw)
    return task


def test_jigsaw_without_gap_cuts_the_image_into_its_nine_cells() -> None:
    images = pictures(2, side=24)
    tiles = jigsaw(gap=0).tiles(images, generator())
    values = normalise(images, "rgb")
    for image, row, column in itertools.product(range(2), range(3), range(3)):
        cell = values[image, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        cell = (cell - cell.mean()) / cell.std(correction=0)
        torch.testing.assert_close(tiles[image, 3 * row + column], cell, rtol=1e-4, atol=1e-4)


def map_of_itself(count: int, side: int) -> torch.Tensor:
    """Images whose red tells the row, whose green tells the column, and whose blue is the same everywhere."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([6 * rows, 6 * columns, torch.full_like(rows, 100)]).to(torch.uint8)
    return image.expand(count, 3, side, side).contiguous()


def places(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every pixel of tiles (B, 9, 3, s, s) of ``map_of_itself`` that were not resized.

    A tile is its own values less their mean, over their deviation. Rows are known to be a pixel apart, which gives the
    deviation, and blue is known, which gives the mean.
    """
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    red, green, blue = tiles.double().unbind(2)
    deviation = 6 / 255 / std[0] / (red[..., 1:2, :1] - red[..., :1, :1])
    level = (100 / 255 - mean[2]) / std[2] - deviation * blue[..., :1, :1]
    found = [(part * deviation + level) * std[k] + mean[k] for k, part in enumerate((red, green))]
    rows, columns = (255 * part / 6 for part in found)
    return rows, columns


@pytest.mark.parametrize(("side", "gap", "used"), [(38, 4, 4), (24, 40, 4)])
def test_jigsaw_tiles_lie_anywhere_in_their_cells_and_never_beyond(side: int, gap: int, used: int) -> None:
    """What is left over at the end belongs to no cell; a gap never takes more than half of a cell."""
    cell = side // 3
    length = cell - used
    tiles = jigsaw(gap=gap, tile=length).tiles(map_of_itself(300, side), generator(2))
    assert tiles.shape == (300, 9, 3, length, length)
    rows, columns = (part.round().long() for part in places(tiles))
    for found, exact in zip((rows, columns), places(tiles), strict=True):
        assert float((found - exact).abs().max()) < 0.02, "a pixel of a tile is one of the image"
    within = torch.arange(length)
    tops, lefts = rows[:, :, 0, 0], columns[:, :, 0, 0]
    assert torch.equal(rows, (tops[:, :, None, None] + within[:, None]).expand_as(rows))
    assert torch.equal(columns, (lefts[:, :, None, None] + within).expand_as(columns))

    number = torch.arange(9)
    shifts = {"down": tops - cell * (number // 3), "right": lefts - cell * (number % 3)}
    for shift in shifts.values():
        counts = torch.stack([torch.bincount(shift[:, tile], minlength=used + 1) for tile in range(9)]).double()
        assert counts.shape == (9, used + 1) and bool((counts > 0).all()), "every place of a cell, and none beyond it"
        even = 300 * 9 / (used + 1)
        # Chi-square, 4 degrees of freedom: p = 1e-6 at 33.4.
        assert float(((counts.sum(0) - even) ** 2 / even).sum()) < 33.4
    # Neither do the two directions of a tile hang together, nor do two tiles of an image.
    every = set(itertools.product(range(used + 1), repeat=2))
    down, right = shifts["down"], shifts["right"]
    assert set(zip(down[:, 0].tolist(), right[:, 0].tolist(), strict=True)) == every
    assert set(zip(down[:, 0].tolist(), down[:, 8].tolist(), strict=True)) == every
    between = lefts[:, 1:] - lefts[:, :-1] - length
    between = between[:, number[:8] % 3 < 2]
    assert (int(between.min()), int(between.max())) == (0, 2 * used)
    assert float(between.double().mean()) == pytest.approx(used, rel=0.05)


def naive_resize(plane: list[list[float]], side: int) -> list[list[float]]:
    """Bilinear with half-pixel centres and without antialiasing, pixel by pixel."""
    size = len(plane)

    def taps(at: int) -> tuple[int, int, float]:
        position = max((at + 0.5) * size / side - 0.5, 0.0)
        low = int(position)
        return low, min(low + 1, size - 1), position - low

    out = []
    for top, bottom, down in map(taps, range(side)):
        line = []
        for left, right, along in map(taps, range(side)):
            upper = plane[top][left] * (1 - along) + plane[top][right] * along
            lower = plane[bottom][left] * (1 - along) + plane[bottom][right] * along
            line.append(upper * (1 - down) + lower * down)
        out.append(line)
    return out


def naive_tile(image: torch.Tensor, top: int, left: int, length: int, side: int) -> torch.Tensor:
    """A window of an image (C, H, W), resized to ``side`` and normalised by itself."""
    window = image[:, top : top + length, left : left + length]
    tile = torch.tensor([naive_resize(plane.tolist(), side) for plane in window])
    return (tile - tile.mean()) / tile.std(correction=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [8, 13])
def test_jigsaw_tiles_are_cut_first_and_then_resized(tile: int, channels: int) -> None:
    """Cells of 12 less a gap of 1: to 8 they shrink, to 13 they grow."""
    images = pictures(1)
    config = ProxyConfig(kind="jigsaw", permutations=6, tile=8, head_channels=8, gap=1)
    config = config.model_copy(update={"tile": tile})
    task = build_proxy(config, tiny_vgg(channels, 0.25, generator()), generator(1))
    assert isinstance(task, Jigsaw)
    tiles = task.tiles(images, generator(4))
    assert tiles.shape == (1, 9, channels, tile, tile)
    values = normalise(images, "gray" if channels == 1 else "rgb")[0].double()
    for number in range(9):
        top, left = 12 * (number // 3), 12 * (number % 3)
        allowed = [naive_tile(values, top + y, left + x, 11, tile) for y in range(2) for x in range(2)]
        far = [float((tiles[0, number] - one).abs().max()) for one in allowed]
        assert sum(distance < 1e-4 for distance in far) == 1


def test_jigsaw_targets_name_the_permutation_that_was_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that can read the order off the tiles gets everything right."""
    task = jigsaw(gap=0)
    images = torch.stack([torch.full((3, 24, 24), 0, dtype=torch.uint8) for _ in range(5)])

    def numbered(rgb: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return torch.arange(9.0).view(1, 9, 1, 1, 1).expand(len(rgb), 9, 3, 8, 8)

    def read(tiles: torch.Tensor) -> torch.Tensor:
        order = tiles[:, :, 0, 0, 0].long()
        return torch.stack([(order == p).all(dim=1) for p in task.permutations], dim=1).float() * 50

    monkeypatch.setattr(task, "tiles", numbered)
    monkeypatch.setattr(task, "scores", read)
    loss, metrics = task(images, generator(3))
    assert metrics["accuracy"].item() == 1.0 and loss.item() < 1e-6


def test_rotation_targets_are_quarter_turns_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    task = build_proxy(ProxyConfig(kind="rotation", head_channels=8), tiny_vgg(3, 0.25, generator()), generator())
    assert isinstance(task, Rotation)
    images, seen = pictures(3), []
    monkeypatch.setattr(task, "scores", lambda rgb: seen.append(rgb) or torch.zeros(len(rgb), 4))
    loss, _ = task(images, generator())
    assert loss.item() == pytest.approx(np.log(4))
    for turns in range(4):
        expected = np.rot90(images.numpy(), turns, (2, 3))
        np.testing.assert_array_equal(seen[0][3 * turns : 3 * turns + 3].numpy(), expected)


@pytest.mark.parametrize("kind", sorted(BUILDERS))
@pytest.mark.parametrize("channels", [1, 3])
def test_proxy_learns_a_handful_of_images_by_heart(kind: str, channels: int) -> None:
    torch.manual_seed(0)
    config = ProxyConfig.model_validate(
        {"kind": kind, "permutations": 4, "tile": 16, "gap": 2, "head_channels": 32, "pixels": 32, "queue": 7}
    )
    task = build_proxy(config, tiny_vgg(channels, 0.5, generator()), generator(1), 4)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=0.02, momentum=0.9)
    images = pictures(8, side=48)
    targets = torch.arange(8) % 4
    task.begin(lambda: images)
    losses = []
    for step in range(40):
        source = generator(step % 2)
        loss, metrics = task(task.prepare(images, source), source, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        task.after_step()
        losses.append(loss.item())
        assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    # Colours of noise cannot be told from its grey; how often each bin occurs can.
    assert np.mean(losses[-5:]) < (0.95 if kind == "colorization" else 0.8) * np.mean(losses[:3])


@pytest.mark.parametrize("kind", ["jigsaw", "rotation", "moco", "densecl"])
def test_proxy_stage_passes_its_backbone_on(kind: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(proxy__kind=kind, proxy__tile=16, proxy__permutations=4, proxy__crop=32, match=None)
    runner = Runner(tmp_path / "run")
    assert runner.train(recipe) == "succeeded"
    accuracies = [e["values"]["accuracy"] for e in runner.kind("metrics", "proxy")]
    assert len(accuracies) == recipe.proxy.steps and all(0 <= a <= 1 for a in accuracies)  # type: ignore[union-attr]


def folder_of_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for number in range(count):
            path = root / name / "deep" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            value = 40 * (1 + sorted(counts).index(name))
            Image.new("RGB", (40, 24), (value, value, value)).save(path)
    return root


def test_classification_stage_reads_class_folders(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path / "pictures", {"cat": 3, "ant": 2})
    recipe = tiny_recipe(
        proxy__kind="classification", proxy__images=str(root), proxy__image_side=32, match=None, segment__steps=1
    )
    runner = Runner(tmp_path / "run")
    assert runner.train(recipe) == "succeeded"
    (done,) = [e for e in runner.kind("stage_started") if e["stage"] == "proxy"]
    assert done["values"]["total_steps"] == 3


def test_load_images_resizes_cuts_the_middle_and_numbers_classes_by_name(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path, {"cat": 3, "ant": 2})
    config = ProxyConfig(kind="classification", images=str(root), image_side=16)
    found = load_images(config, 0, None, None)
    assert found.classes == ("ant", "cat")
    assert found.targets is not None and found.targets.tolist() == [0, 0, 1, 1, 1]
    assert found.data.images.shape == (5, 3, 16, 16)
    assert found.data.images[:, 0, 8, 8].tolist() == [40, 40, 80, 80, 80]
    few = load_images(config.model_copy(update={"max_images": 2}), 0, None, None)
    assert len(few.data) == 2 and set(few.data.names) < set(found.data.names)


def test_load_images_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    config = ProxyConfig(kind="classification", images=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"is no folder: set proxy\.images"):
        load_images(config, 0, None, None)
    folder_of_classes(tmp_path / "one", {"cat": 1})
    with pytest.raises(DataError, match="one class only, cat"):
        load_images(config.model_copy(update={"images": str(tmp_path / "one")}), 0, None, None)
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "x.png").write_text("no picture")
    with pytest.raises(DataError, match=r"x\.png cannot be read as a picture"):
        load_images(config.model_copy(update={"images": str(tmp_path / "bad"), "kind": "jigsaw"}), 0, None, None)
    Image.new("RGB", (4, 4)).save(tmp_path / "bad" / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png lies in no class folder"):
        load_images(config.model_copy(update={"images": str(tmp_path / "bad")}), 0, None, None)
    with pytest.raises(DataError, match="raise the budget"):
        load_images(config.model_copy(update={"images": str(tmp_path / "bad")}), 0, 10, None)


def test_classification_without_images_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"needs proxy\.images"):
        Runner(tmp_path / "run").train(tiny_recipe(proxy__kind="classification"))
    assert Classification is BUILDERS["classification"]
