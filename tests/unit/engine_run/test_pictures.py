"""Pictures: what stands where in them, that training does not notice them, and ``python -m engine pictures``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from PIL import Image

from engine.__main__ import main
from engine.config import Recipe
from engine.data.pipeline import normalise
from engine.errors import DataError
from engine.events import SilentWriter
from engine.mixmatch.patches import crop_patches
from engine.mixmatch.windows import Patches
from engine.pictures_cli import draw_runs
from engine.stages import Context, match_pictures, pictures
from engine.stages.match import MatchStage
from engine.stages.palette import voc_palette
from tests.process_state import file_size_limit

Make = Callable[..., Recipe]
PALETTE = voc_palette()
CLASSES = ("sky", "sea", "sand")
RED, GREEN = (128, 0, 0), (0, 128, 0)  # VOC's classes 1 and 2
MATCH_ALONE = {"proxy": None, "segment": None, "evaluate": None}


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...
    def losses(self) -> dict[tuple[str, int], float]: ...
    def weights(self, stage: str) -> bytes: ...


def flat(*values: int, side: int = 16) -> torch.Tensor:
    """One gray square for each value, uint8 (N, 3, side, side)."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(axis=2).sum())


# ---- sheets --------------------------------------------------------------------------------------------------------


def test_patch_sheet_has_a_row_for_each_class_with_framed_patches() -> None:
    sheet = pictures.patch_sheet(flat(10, 20, 30, 40, 50), torch.tensor([2, 1, 2, 2, 1]), CLASSES, PALETTE, per_class=2)
    cell, left = 16 + pictures.GAP, pictures.NAMES
    centres = [
        [sheet.getpixel((left + column * cell + 8, pictures.GAP + row * cell + 8)) for column in range(2)]
        for row in range(2)
    ]
    assert centres == [[(20,) * 3, (50,) * 3], [(10,) * 3, (30,) * 3]], "class 1 first; of class 2 the first two"
    for row, colour in enumerate((RED, GREEN)):
        top = pictures.GAP + row * cell
        assert sheet.getpixel((left - 1, top + 8)) == sheet.getpixel((left + 16, top + 8)) == colour
    assert count(sheet, (40,) * 3) < 200, "the third of class 2 is not shown; only text has this colour"


def test_patch_sheet_of_no_patches_is_a_picture() -> None:
    assert pictures.patch_sheet(flat(), torch.zeros(0, dtype=torch.int64), CLASSES, PALETTE).width > 0


def windows(image: list[int], cy: list[int], cx: list[int], size: list[int], label: list[int]) -> Patches:
    return Patches(*(torch.tensor(part) for part in (image, cy, cx, size, label)))


def test_box_sheet_draws_windows_and_centres_in_class_colours() -> None:
    images = flat(200, 90, side=256)
    patches = windows([0, 1, 1], [100, 50, 250], [120, 60, 250], [40, 20, 30], [1, 2, 1])
    sheet = pictures.box_sheet(images, patches, CLASSES, PALETTE)
    first, second = (np.asarray(sheet)[6:262, 6 + k * 262 : 262 + k * 262] for k in range(2))
    # [c - s/2, c + s/2): the last pixel of the window belongs to the frame.
    expected = np.zeros((256, 256), dtype=bool)
    expected[80:120, 100:140] = True
    expected[81:119, 101:139] = False
    assert (first[expected] == RED).all() and (first[100, 120] == RED).all()
    assert (first[~expected] == RED).all(axis=1).sum() < 20, "besides the frame only the dot"
    assert (second[40, 50:70] == GREEN).all() and (second[40:60, 69] == GREEN).all()
    assert (second[235, 235:] == RED).all(), "cut off at the border"
    assert (second[150, :200] == 90).all()


def test_box_sheet_enlarges_small_images_with_their_windows() -> None:
    sheet = pictures.box_sheet(flat(200, side=48), windows([0], [24], [24], [16], [1]), CLASSES, PALETTE)
    shown = np.asarray(sheet)[6:198, 6:198]
    assert (shown[0, 0] == 200).all() and (shown[64, 64:128] == RED).all() and (shown[64:128, 127] == RED).all()
    assert (shown[63, :] == 200).all() and (shown[128, :] == 200).all()


def test_node_sheet_holds_node_n_in_row_n_over_columns() -> None:
    pixels = torch.arange(5 * 3 * 4 * 4).reshape(5, 3, 4, 4).to(torch.uint8)
    sheet = np.asarray(pictures.node_sheet(pixels, columns=3))
    assert sheet.shape == (8, 12, 3)
    for node in range(5):
        top, left = node // 3 * 4, node % 3 * 4
        assert np.array_equal(sheet[top : top + 4, left : left + 4], pixels[node].permute(1, 2, 0).numpy())


# ---- graph and embeddings ------------------------------------------------------------------------------------------


def between(places: list[tuple[float, float]], a: int, b: int) -> tuple[int, int]:
    """A point a third of the way from a to b, where no other edge of the test passes."""
    return round((2 * places[a][0] + places[b][0]) / 3), round((2 * places[a][1] + places[b][1]) / 3)


def test_graph_drawing_attractive_edges_are_blue_and_rejective_ones_red() -> None:
    labels = torch.tensor([1, 1, 2, 2])
    positive, negative = torch.tensor([1, 1, 2, 3]), torch.tensor([2, 0, 0, 0])
    there = torch.tensor([True, False, False, False])
    drawing = pictures.graph_drawing(labels, positive, negative, there, CLASSES, PALETTE, side=400)
    places = pictures.node_places(labels.tolist(), 400)
    red, green, blue = drawing.getpixel(between(places, 0, 1))  # type: ignore[misc]
    assert blue > red + 100 and blue > green + 60
    red, green, blue = drawing.getpixel(between(places, 0, 2))  # type: ignore[misc]
    assert red > green + 30 and red > blue + 30
    assert drawing.getpixel(between(places, 2, 3)) == pictures.WHITE, "2 and 3 are their own positives"
    assert drawing.getpixel(between(places, 1, 3)) == pictures.WHITE, "node 1 has no negative"
    for node, colour in enumerate((RED, RED, GREEN, GREEN)):
        x, y = places[node]
        assert drawing.getpixel((round(x), round(y))) == colour


def test_graph_drawing_with_thumbnails_shows_them_at_the_nodes() -> None:
    labels, own = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])
    thumbnails = [Image.new("RGB", (20, 20), (0, 0, 100 + k)) for k in range(3)]
    drawing = pictures.graph_drawing(labels, own, own, own < 0, CLASSES, PALETTE, thumbnails, side=300)
    for node, (x, y) in enumerate(pictures.node_places([0, 1, 2], 300)):
        assert drawing.getpixel((round(x), round(y))) == (0, 0, 100 + node)


@pytest.mark.parametrize("counts", [[1], [7], [1, 1], [30, 1, 12], [20] * 21])
def test_node_places_are_apart_inside_and_classes_do_not_mix(counts: list[int]) -> None:
    labels = [label for label, n in enumerate(counts) for _ in range(n)]
    places = pictures.node_places(labels, 1000)
    assert len(set(places)) == len(labels)
    assert all(0 < x < 1000 and 0 < y < 1000 for x, y in places)
    centres = [
        tuple(sum(p[axis] for p, own in zip(places, labels, strict=True) if own == label) / n for axis in (0, 1))
        for label, n in enumerate(counts)
    ]
    for place, label in zip(places, labels, strict=True):
        distances = [math.dist(place, centre) for centre in centres]
        assert distances[label] <= min(distances) + 1e-6


def test_scatter_panels_put_points_where_they_belong_and_leave_out_what_is_no_number() -> None:
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [math.nan, 0.0]])
    picture = pictures.scatter_panels([("before", points, torch.tensor([1, 2, 2]))], CLASSES, PALETTE, side=200)
    panel = np.asarray(picture)[pictures.LINE + pictures.GAP :][:200, pictures.GAP : pictures.GAP + 200]
    ys, xs = (panel == RED).all(axis=2).nonzero()
    other_ys, other_xs = (panel == GREEN).all(axis=2).nonzero()
    assert len(xs) and len(other_xs)
    assert xs.max() < 30 and other_xs.min() > 170, "x goes to the right"
    assert ys.mean() > other_ys.mean() + 20, "y goes up"
    assert len(other_xs) < 2 * len(xs), "one dot of class 2, not two"


def test_prediction_grid_places_pictures_and_keeps_pure_colours() -> None:
    image = Image.new("RGB", (40, 20), (9, 8, 7))
    mask = Image.fromarray(np.array([[1, 2], [2, 1]], dtype=np.uint8))
    mask.putpalette(PALETTE)
    grid = pictures.prediction_grid(["image", "prediction"], [[image, mask], [image, mask]], cell=40)
    assert grid.width == 6 + 2 * 46 and grid.height == 14 + 12 + 2 * 46
    shown = np.asarray(grid)[20:60, 52:92]
    assert {tuple(p) for p in shown.reshape(-1, 3).tolist()} == {RED, GREEN}
    assert tuple(shown[0, 0]) == RED and tuple(shown[0, 39]) == GREEN
    assert grid.getpixel((10, 25)) == (9, 8, 7) and grid.getpixel((10, 20 + 46 + 5)) == (9, 8, 7)


def test_text_with_control_characters_and_no_end_stays_in_its_column() -> None:
    long = "\x1b[31m" + "w" * 500 + "\n"
    plain, wild = (pictures.patch_sheet(flat(9), torch.tensor([0]), (name,), PALETTE) for name in ("", long))
    assert plain.size == wild.size
    changed = (np.asarray(plain) != np.asarray(wild)).any(axis=(0, 2)).nonzero()[0]
    assert len(changed) and changed.max() < pictures.NAMES


# ---- in the match stage --------------------------------------------------------------------------------------------


def test_match_stage_writes_pictures_and_tells_of_them(runner: Runner, make_recipe: Make) -> None:
    runner.train(make_recipe(**MATCH_ALONE, match__steps=9))
    events = runner.kind("image", "match")
    assert [e["step"] for e in events] == [1, 1, 2, 2, 4, 4, 6, 6, 8, 8]
    assert {e["values"]["kind"] for e in events} == {"match_patches", "match_boxes"}
    for event in events:
        with Image.open(runner.run_dir / event["values"]["image"]) as picture:
            picture.load()
    kept = json.loads((runner.run_dir / "images/match_graph.json").read_text())
    assert kept["step"] == 8 and len(kept["labels"]) == 12


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 7, 8, 11, 100, 8000])
def test_match_pictures_are_made_a_handful_of_times(total: int) -> None:
    times = [done for done in range(1, total + 1) if match_pictures.due(done, total)]
    assert times[0] == 1 and len(times) <= 8


@pytest.mark.parametrize("scope", ["local", "global"])
def test_match_pictures_show_what_the_network_saw(tmp_path: Path, make_recipe: Make, scope: str) -> None:
    recipe = make_recipe(**MATCH_ALONE, match__graphs=2, match__graph_scope=scope, match__output_size=32)
    context = Context(recipe, tmp_path, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.match is not None
    stage = MatchStage(context, recipe.match)
    stage.step(0)
    match_pictures.save_match_pictures(stage, 1)
    draw = 0 if scope == "global" else 1
    images = match_pictures._crops(stage, 1)
    own = match_pictures._of_first_images(stage.matched[-1].patches, len(images))
    seen = crop_patches(normalise(images, "rgb"), own, output_size=32)
    torch.testing.assert_close(seen, stage._mix(draw)[1], rtol=0, atol=1e-5)
    sheet = tmp_path / "images/match_nodes.png"
    assert sheet.exists() == (scope == "local"), "a graph over several draws has no thumbnails"
    if scope == "local":
        raw = crop_patches(images, own, output_size=32).round().to(torch.uint8)
        assert np.array_equal(np.asarray(Image.open(sheet)), np.asarray(pictures.node_sheet(raw)))


def test_match_pictures_change_neither_losses_nor_weights_nor_random_state(
    runner: Runner, another_runner: Runner, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(**MATCH_ALONE)
    runner.train(recipe)
    state = torch.get_rng_state()
    monkeypatch.setattr(match_pictures, "due", lambda _done, _total: False)
    another_runner.train(recipe)
    assert (runner.run_dir / "images").is_dir() and not (another_runner.run_dir / "images").exists()
    assert runner.losses() == another_runner.losses() and runner.weights("match") == another_runner.weights("match")
    assert torch.equal(state, torch.get_rng_state())


# ---- python -m engine pictures -------------------------------------------------------------------------------------


def test_pictures_command_draws_graph_embeddings_and_predictions(
    runner: Runner, make_recipe: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.train(make_recipe(proxy=None))
    before = sorted(runner.run_dir.rglob("*"))
    assert main(["pictures", "--run-dir", str(runner.run_dir), "--out", str(tmp_path / "out")]) == 0
    names = ["graph.png", "embeddings.png", "predictions.png"]
    assert capsys.readouterr().out == "".join(f"{tmp_path}/out/{name}\n" for name in names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    with Image.open(tmp_path / "out/predictions.png") as grid:
        assert grid.width == 6 + 3 * 246
    assert sorted(runner.run_dir.rglob("*")) == before, "the run itself is not touched"


def test_pictures_of_several_runs_stand_side_by_side(
    runner: Runner, another_runner: Runner, make_recipe: Make, tmp_path: Path
) -> None:
    runner.train(make_recipe(proxy=None))
    another_runner.train(make_recipe(proxy=None, match=None, seed=4))
    made = draw_runs([runner.run_dir, another_runner.run_dir], tmp_path / "out")
    assert [path.name for path in made] == ["graph_1.png", "embeddings_1.png", "predictions.png"]
    with Image.open(made[-1]) as grid:
        assert grid.width == 6 + 4 * 246
        columns = [np.asarray(grid)[20:260, 6 + k * 246 : 246 + k * 246] for k in range(4)]
    for column, (run, kind) in zip(
        columns,
        [(runner, "image"), (runner, "truth"), (runner, "prediction"), (another_runner, "prediction")],
        strict=True,
    ):
        newest = max((run.run_dir / "images").glob(f"000_{kind}*.png"))
        with Image.open(newest) as picture:
            method = Image.Resampling.BILINEAR if kind == "image" else Image.Resampling.NEAREST
            assert np.array_equal(column, np.asarray(picture.resize((240, 240), method).convert("RGB")))


def write_run(folder: Path, events: list[dict[str, Any]]) -> Path:
    """A run directory with these events and nothing else."""
    path = folder / "attempts/001/events.jsonl"
    path.parent.mkdir(parents=True)
    lines = [
        {"v": 1, "seq": k, "t": 0.0, "stage": "match", "step": k, "global_step": k, **e} for k, e in enumerate(events)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_pictures_of_what_is_no_run_or_has_nothing_yet_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pictures", "--run-dir", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "holds no attempt of a run" in err and err.count("\n") == 1
    empty = write_run(tmp_path / "empty", [])
    assert main(["pictures", "--run-dir", str(empty), "--out", str(tmp_path / "out")]) == 1
    assert "nothing to draw yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_into_a_file_instead_of_a_folder_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [{"kind": "projection", "values": {"x": [0, 1], "y": [0, 1], "label": [0, 1]}}])
    (tmp_path / "out").write_text("")
    assert main(["pictures", "--run-dir", str(run), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out'}")


def test_pictures_are_drawn_over_earlier_ones_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", [{"kind": "projection", "values": {"x": [0, 1], "y": [0, 1], "label": [0, 1]}}])
    file = tmp_path / "out" / "embeddings.png"
    words = ["pictures", "--run-dir", str(run), "--out", str(file.parent)]
    assert main(words) == 0 and main(words) == 0
    Image.new("RGB", (4, 4)).save(file)
    before = file.read_bytes()
    capsys.readouterr()
    assert main(words) == 5
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: {file} exists already") and "--force" in said.err
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
    with file_size_limit(100):
        assert main([*words, "--force"]) == 1
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
    assert main([*words, "--force"]) == 0 and file.read_bytes() != before
    monkeypatch.chdir(tmp_path)
    assert main([*words[:-1], "-"]) == 2 and not Path("-").exists()


@pytest.mark.parametrize(
    "values",
    [
        {"x": [1], "y": [1, 2], "label": [0]},
        {"x": [1], "y": [1], "label": [0, 1]},
        {"x": ["a"], "y": [1], "label": [0]},
        {"x": [1], "y": [1], "label": [999]},
        {"x": 3},
    ],
)
def test_pictures_of_damaged_projections_name_the_event(tmp_path: Path, values: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", [{"kind": "projection", "values": values}])
    with pytest.raises(DataError, match="the projection event of step 0 cannot be drawn"):
        draw_runs([run], tmp_path / "out")


GRAPH: dict[str, Any] = {
    "step": 1,
    "classes": ["a", "b"],
    "labels": [0, 1],
    "positive": [0, 1],
    "negative": [1, 0],
    "has_negative": [True, True],
    "thumbnails": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"positive": [0]},
        {"positive": [0, 2]},
        {"negative": [-1, 0]},
        {"labels": [0, 256]},
        {"labels": None},
        {"thumbnails": "x"},
    ],
)
def test_pictures_of_a_damaged_graph_name_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", [])
    file = run / "images/match_graph.json"
    file.parent.mkdir()
    file.write_text(json.dumps(GRAPH))
    assert [path.name for path in draw_runs([run], tmp_path / "out")] == ["graph.png"]
    file.write_text(json.dumps({**GRAPH, **change}))
    with pytest.raises(DataError, match=r"match_graph\.json"):
        draw_runs([run], tmp_path / "out")


def test_pictures_from_outside_the_run_directory_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    triple = {"name": "n", "image": "../secret.png", "truth": "../secret.png", "prediction": "../secret.png"}
    run = write_run(tmp_path / "run", [{"kind": "image", "values": triple}])
    with pytest.raises(DataError, match="outside the run directory"):
        draw_runs([run], tmp_path / "out")
    triple = dict.fromkeys(("image", "truth", "prediction"), "gone.png")
    run = write_run(tmp_path / "other", [{"kind": "image", "values": {"name": "n", **triple}}])
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        draw_runs([run], tmp_path / "out")
