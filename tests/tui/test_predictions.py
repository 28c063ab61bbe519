"""The page of predictions: what it says of an image, what it draws, and what it does with damaged files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.color import Color, ColorSystem

from engine.data import cityscapes
from engine.stages.palette import palette_of
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import label_maps, predictions, raster
from mmtui.tui.pages.predictions import Choice
from mmtui.tui.pages.raster import Look
from mmtui.tui.widgets.lines import style_of
from mmtui.tui.widgets.panels import Line
from tests.tui.seed import CLASSES, seed_run
from tests.tui.seed_store import palette
from tests.tui.test_pages import page, plain, ready, shown
from tests.waiting import until_async

NOW = 1_790_000_000.0
VOID = 255
COLOR, LETTERS, ASCII = Look(), Look(colors=0), Look(ascii_only=True)
KINDS = ("image", "truth", "prediction")


@pytest.fixture
def seeded(home: Home) -> Home:
    seed_run(home, "finished one", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    (home.run("1").root / "images").mkdir()
    return home


def label_map(file: Path, rows: Sequence[Sequence[int]], colors: Sequence[int] | None = None) -> str:
    """A palette image as the evaluation writes it; its name below the run's folder."""
    picture = Image.fromarray(np.asarray(rows, dtype=np.uint8))
    picture.putpalette(palette() if colors is None else list(colors))
    picture.save(file)
    return f"images/{file.name}"


def add_images(home: Home, events: Sequence[dict[str, object]], steps: Sequence[int] = ()) -> None:
    """Image events of run 1, as the evaluation writes them."""
    connection = sqlite3.connect(home.database)
    for number, values in enumerate(events):
        body = json.dumps({"kind": "validation", "index": 0, "name": "street", **values})
        step = steps[number] if steps else 451
        connection.execute(
            'INSERT INTO events (run_id, attempt, seq, kind, stage, step, global_step, t, "values")'
            " VALUES (1, 1, ?, 'image', 'segment', ?, ?, 0, ?)",
            [10_000 + number, step, step, body],
        )
    connection.commit()
    connection.close()


def show(home: Home, truth: Sequence[Sequence[int]], prediction: Sequence[Sequence[int]]) -> dict[str, object]:
    """Files of one image; the values of its event."""
    folder = home.run("1").root / "images"
    Image.new("RGB", (len(truth[0]), len(truth)), (200, 100, 50)).save(folder / "image.png")
    return {
        "image": "images/image.png",
        "truth": label_map(folder / "truth.png", truth),
        "prediction": label_map(folder / "prediction.png", prediction),
    }


def drawn(home: Home, look: Look = COLOR, width: int = 80, height: int = 21, **choice: object) -> list[Line]:
    return predictions.predictions(home, "1", width, height, look, Choice(**choice))  # type: ignore[arg-type]


# ---- numbers -------------------------------------------------------------------------------------------------------


def naive_scores(truth: np.ndarray, prediction: np.ndarray) -> tuple[int, int, dict[int, float]]:
    """Wrong pixels, pixels that count, and IoU by class: one pixel after the other."""
    pairs = [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True) if t != VOID]
    ious = {}
    for index in sorted({index for pair in pairs for index in pair}):
        both = sum(t == index and p == index for t, p in pairs)
        either = sum(index in (t, p) for t, p in pairs)
        ious[index] = both / either
    return sum(t != p for t, p in pairs), len(pairs), ious


@given(
    st.integers(1, 6).flatmap(
        lambda width: st.lists(
            st.tuples(st.sampled_from([0, 1, 2, 20, VOID]), st.sampled_from([0, 1, 2, 20])),
            min_size=width,
            max_size=6 * width,
        ).map(lambda pairs: pairs[: len(pairs) // width * width] and (width, pairs[: len(pairs) // width * width]))
    )
)
def test_scores_are_those_of_counting_pixel_by_pixel(case: tuple[int, list[tuple[int, int]]]) -> None:
    width, pairs = case
    truth, prediction = (np.array([pair[i] for pair in pairs], dtype=np.uint8).reshape(-1, width) for i in (0, 1))
    found = label_maps.scores_of(Image.fromarray(truth), Image.fromarray(prediction))
    wrong, pixels, ious = naive_scores(truth, prediction)
    assert (found.wrong, found.pixels, found.void) == (wrong, pixels, len(pairs) - pixels)
    assert found.ious == ious
    assert found.miou == (pytest.approx(sum(ious.values()) / len(ious)) if ious else None)


def test_page_says_mean_iou_and_share_of_wrong_pixels_without_void(seeded: Home) -> None:
    truth = [[0, 0, 1, VOID], [0, 0, 1, VOID]]
    prediction = [[0, 0, 1, 2], [0, 1, 1, 1]]
    add_images(seeded, [show(seeded, truth, prediction)])
    text = plain(drawn(seeded))
    # background 3 of 4, class 1: 2 of 3; the void pixels are no errors, whatever was predicted there.
    assert f"mIoU {100 * (3 / 4 + 2 / 3) / 2:.1f} over 2 classes" in text
    assert "16.7% of 6 pixels wrong" in text and "25.0% void" in text
    assert "errors 16.7%" in text
    assert f"{CLASSES[0]} 75" in text and f"{CLASSES[1]} 67" in text
    assert CLASSES[2] in text, "predicted on void: drawn, so named"


def test_prediction_that_is_void_everywhere_is_said(seeded: Home) -> None:
    add_images(seeded, [show(seeded, [[VOID] * 4] * 4, [[1] * 4] * 4)])
    assert "every pixel is void" in plain(drawn(seeded))


# ---- pictures ------------------------------------------------------------------------------------------------------


def pixels_of(lines: Sequence[Line], at: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Colours of two pixels a cell, read from styles as rich understands them; ``at`` and ``size`` in cells."""
    found = np.zeros((2 * size[1], size[0], 3), dtype=np.uint8)
    for row in range(size[1]):
        cells = [(char, style_of(style)) for text, style in lines[at[1] + row] for char in text]
        for column in range(size[0]):
            char, style = cells[at[0] + column]
            assert style.bgcolor is not None and style.bgcolor.triplet is not None
            below = style.bgcolor.triplet
            above = below
            if char == "▀":
                assert style.color is not None and style.color.triplet is not None
                above = style.color.triplet
            found[2 * row, column], found[2 * row + 1, column] = above, below
    return found


def test_half_blocks_carry_two_pixels_a_cell() -> None:
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    lines = raster.half_blocks([[red, green], [blue, green]])
    assert pixels_of(lines, (0, 0), (2, 1)).tolist() == [[list(red), list(green)], [list(blue), list(green)]]


def test_label_maps_are_sampled_and_never_mixed_and_keep_their_proportions(seeded: Home) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 9, (60, 200), dtype=np.uint8)
    colors = np.array(palette()).reshape(-1, 3)
    found = raster.labels(Image.fromarray(truth), dict(enumerate(map(tuple, colors))), 40, 20, COLOR)
    assert len(found) == 6
    pixels = pixels_of(found, (0, 0), (40, 6))
    exact = truth[2::5, 2::5]
    assert np.array_equal(pixels, colors[exact]), "the pixel below the middle of each new one"


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 200), st.integers(1, 60))
def test_fitted_size_is_within_the_room_and_fills_it(width: int, height: int, columns: int, rows: int) -> None:
    across, down = raster.fitted((width, height), columns, rows)
    assert 1 <= across <= columns and 2 <= down <= 2 * rows and down % 2 == 0
    scale = min(columns / width, 2 * rows / height)
    assert abs(across - width * scale) <= 1 and abs(down - height * scale) <= 2
    assert across == columns or down == 2 * rows


def test_errors_are_in_the_colour_of_the_prediction_on_a_light_ground(seeded: Home) -> None:
    truth = [[0, 0, 1, VOID]] * 4
    prediction = [[0, 3, 0, 2]] * 4
    add_images(seeded, [show(seeded, truth, prediction)])
    lines = drawn(seeded, alone="errors", width=4, height=6)
    pixels = pixels_of(lines, (0, 3), (4, 2))
    colors = np.array(palette()).reshape(-1, 3)
    assert pixels[0].tolist() == [[208] * 3, colors[3].tolist(), colors[0].tolist(), [240] * 3]


def test_letters_stand_for_classes_without_colours(seeded: Home) -> None:
    truth = [[0] * 4 + [1] * 2 + [VOID] * 2] * 8
    prediction = [[0] * 3 + [2] + [1] * 2 + [0] * 2] * 8
    add_images(seeded, [show(seeded, truth, prediction)])
    for look in (LETTERS, ASCII, Look(colors=16)):
        for kind, row in (("truth", "aaaabb"), ("prediction", "aaacbbaa"), ("errors", "...c..")):
            text = plain(drawn(seeded, look, width=8, height=10, alone=kind))
            assert any(line.rstrip() == row for line in text.splitlines()), (look, kind)
        legend = plain(drawn(seeded, look))
        assert f"a {CLASSES[0]}" in legend and f"c {CLASSES[2]}" in legend and "blank void" in legend
        assert not any("#" in style for line in drawn(seeded, look) for _, style in line)
    assert plain(drawn(seeded, ASCII)).isascii()


def test_photo_is_dots_without_colours_and_characters_in_ascii() -> None:
    picture = Image.new("RGB", (20, 20))
    picture.paste((255, 255, 255), (10, 0, 20, 20))
    dots = plain(raster.photo(picture, 10, 5, LETTERS))
    assert dots.splitlines() == ["⠀" * 5 + "⣿" * 5] * 5
    assert plain(raster.photo(picture, 10, 5, ASCII)).splitlines() == [" " * 5 + "@" * 5] * 5


def test_dots_lie_where_the_pixels_are() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2, (8, 6)).astype(bool)
    lines = raster.braille(Image.fromarray(pixels))
    order = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1))  # dots 1 to 8 of Unicode
    for row, line in enumerate(lines):
        for column, char in enumerate(line):
            for dot, (y, x) in enumerate(order):
                assert bool(ord(char) - 0x2800 >> dot & 1) == pixels[4 * row + y, 2 * column + x]


@pytest.mark.parametrize("classes", [tuple(f"class {i}" for i in range(21)), cityscapes.CLASSES])
def test_256_colours_keep_all_classes_apart(classes: tuple[str, ...]) -> None:
    flat = palette_of(classes)
    colors = {i: (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]) for i in (*range(len(classes)), VOID)}
    sent = [
        Color.parse(raster.hexed(color)).downgrade(ColorSystem.EIGHT_BIT).number
        for color in raster.told_apart(colors, 256).values()
    ]
    assert len(set(sent)) == len(set(colors.values()))
    assert raster.told_apart(colors, 1 << 24) == colors
    for index, near in raster.told_apart(colors, 256).items():
        assert max(abs(a - b) for a, b in zip(near, colors[index], strict=True)) <= 64, "still much the same colour"


# ---- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 21), (120, 37), (160, 45), (60, 12)])
@pytest.mark.parametrize("size", [(64, 48), (500, 375), (2048, 1024), (48, 200)])
@pytest.mark.parametrize("look", [COLOR, ASCII])
def test_everything_is_seen_without_scrolling(
    seeded: Home, width: int, height: int, size: tuple[int, int], look: Look
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 9, (size[1] // 8 + 1, size[0] // 8 + 1), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    truth = truth[: size[1], : size[0]]
    add_images(seeded, [show(seeded, truth, np.roll(truth, 3, 0))])
    lines = drawn(seeded, look, width, height)
    assert len(lines) <= height
    assert all(sum(len(text) for text, _ in line) <= width for line in lines)
    text = plain(lines)
    assert "mIoU" in text and "errors" in text and sum(name in text for name in CLASSES) >= 5
    rows = [line for line in lines if any("on #" in style for _, style in line)]
    assert len(rows) >= 4 or look.by_letters


def test_many_classes_leave_room_for_the_pictures(seeded: Home) -> None:
    connection = sqlite3.connect(seeded.database)
    names = [f"a class of number {index}" for index in range(60)]
    body = json.dumps({"attempt": 1, "classes": names, "stages": []})
    connection.execute('UPDATE events SET "values" = ? WHERE kind = ?', [body, "run_started"])
    connection.commit()
    connection.close()
    truth = np.arange(60, dtype=np.uint8).repeat(60).reshape(60, 60)
    truth[:20] = 7
    add_images(seeded, [show(seeded, truth, truth)])
    lines = drawn(seeded)
    assert len(lines) <= 21
    assert names[7] in plain(lines) and "more" in plain(lines[-1:]), "those of the most pixels"


def test_predictions_of_earlier_evaluations_are_kept_and_counted(seeded: Home) -> None:
    folder = seeded.run("1").root / "images"
    one = show(seeded, [[1] * 8] * 8, [[1] * 8] * 8)
    early = {**one, "prediction": label_map(folder / "early.png", [[2] * 8] * 8)}
    add_images(seeded, [early, one], steps=[200, 400])
    assert CLASSES[2] in plain(drawn(seeded, until=250)[-1:])
    assert "evaluation 1/2" in plain(drawn(seeded, until=250))
    late = plain(drawn(seeded))
    assert CLASSES[2] not in late and "evaluation 2/2" in late
    assert "the first came at step 200" in plain(drawn(seeded, until=199))
    assert predictions.moments(seeded, "1") == [200, 400]


def test_images_are_stepped_through_and_their_names_do_no_harm(seeded: Home) -> None:
    values = show(seeded, [[1] * 8] * 8, [[1] * 8] * 8)
    add_images(
        seeded, [{**values, "index": 3, "name": "first"}, {**values, "index": 7, "name": "\x1b[31m[b]x[/b]中文"}]
    )
    assert "image 1/2  first" in plain(drawn(seeded))
    assert "image 2/2" in plain(drawn(seeded, number=3)) and "[b]x[/b]" in plain(drawn(seeded, number=3))
    assert "\x1b" not in plain(drawn(seeded, number=1))
    assert plain(drawn(seeded, ASCII, number=1)).isascii()


def test_picture_outside_the_run_or_damaged_is_not_shown_and_it_is_said(seeded: Home, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    root = seeded.run("1").root
    (root / "bad.png").write_bytes(b"no picture")
    whole = show(seeded, [[1] * 64] * 64, [[1] * 64] * 64)
    cut = (root / str(whole["truth"])).read_bytes()
    (root / "cut.png").write_bytes(cut[: len(cut) - 30])
    for values, words in (
        ({"image": f"../../../{tmp_path.name}/secret.png", "truth": "bad.png", "prediction": "gone.png"}, "missing"),
        ({**whole, "truth": "bad.png"}, "cannot be read: no picture"),
        ({**whole, "truth": "cut.png"}, "cannot be read"),
        ({**whole, "prediction": ""}, "missing"),
    ):
        add_images(seeded, [values], steps=[452])
        text = plain(drawn(seeded, width=160))
        assert words in text and "errors" in text and "wrong" not in text
        connection = sqlite3.connect(seeded.database)
        connection.execute("DELETE FROM events WHERE global_step = 452")
        connection.commit()
        connection.close()


def test_picture_too_large_is_not_read(seeded: Home) -> None:
    values = show(seeded, [[1] * 64] * 64, [[1] * 64] * 64)
    Image.new("L", (9000, 2)).save(seeded.run("1").root / "images" / "truth.png")
    add_images(seeded, [values])
    assert "too large: 9000 x 2" in plain(drawn(seeded, width=160))
    assert "9000" in plain(drawn(seeded, width=60)), "words go on in the next line"


def test_maps_of_another_size_are_no_comparison(seeded: Home) -> None:
    add_images(seeded, [show(seeded, [[1] * 8] * 8, [[1] * 4] * 4)])
    assert "truth and prediction differ in size" in plain(drawn(seeded)) and "sizes differ" in plain(drawn(seeded))


def test_palette_of_few_colours_and_maps_without_one(seeded: Home) -> None:
    folder = seeded.run("1").root / "images"
    values = show(seeded, [[1] * 8] * 8, [[1] * 8] * 8)
    label_map(folder / "truth.png", [[0, 1, VOID, VOID]] * 4, colors=list(range(60)))
    Image.fromarray(np.array([[0, 1, 1, 0]] * 4, dtype=np.uint8)).save(folder / "prediction.png")
    add_images(seeded, [values])
    lines = drawn(seeded)
    assert "mIoU 100.0 over 2 classes" in plain(lines) and "void" in plain(lines)
    assert ("  ", "on #030405") in [span for line in lines for span in line], "colours of the palette that there is"


def test_maps_that_hold_colours_are_compared_by_colour(seeded: Home) -> None:
    folder = seeded.run("1").root / "images"
    values = show(seeded, [[1] * 8] * 8, [[1] * 8] * 8)
    one = Image.new("RGB", (8, 8), (255, 0, 0))
    other = one.copy()
    other.paste((0, 0, 255), (0, 0, 8, 2))
    one.save(folder / "truth.png")
    other.save(folder / "prediction.png")
    add_images(seeded, [values])
    text = plain(drawn(seeded))
    assert "25.0% of 64 pixels wrong" in text and CLASSES[0] not in text, "no names for colours"


# ---- keys ----------------------------------------------------------------------------------------------------------


def caption(app: MmtuiApp) -> str:
    """What the one picture is."""
    return plain(page(app).body[2:3]).split(" 0")[0].strip()


async def test_keys_choose_image_evaluation_and_one_picture_alone(seeded: Home) -> None:
    folder = seeded.run("1").root / "images"
    one = show(seeded, [[1] * 8] * 8, [[1] * 8] * 8)
    early = {**one, "prediction": label_map(folder / "early.png", [[2] * 8] * 8)}
    events = [{**early, "index": 0}, {**early, "index": 1}, {**one, "index": 0}, {**one, "index": 1}]
    add_images(seeded, events, steps=[200, 200, 400, 400])
    app = MmtuiApp(seeded, select="1")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab", "tab", "tab")
        await until_async(lambda: "image 1/2" in shown(app) and "evaluation 2/2" in shown(app))
        await pilot.press("right")
        await until_async(lambda: "image 2/2" in shown(app))
        await pilot.press("comma")
        await until_async(lambda: "evaluation 1/2" in shown(app) and "as of step 200" in shown(app))
        await pilot.press("comma")
        await until_async(lambda: "evaluation 1/2" in shown(app))
        await pilot.press("full_stop")
        await until_async(lambda: "evaluation 2/2" in shown(app) and "as of" not in shown(app))
        await pilot.press("enter")
        await until_async(lambda: "\nprediction" in plain(page(app).body) and "errors" not in plain(page(app).body))
        seen = []
        for _ in range(5):
            await pilot.press("m")
            before = seen[-1] if seen else "prediction"
            await until_async(lambda before=before: caption(app) != before)
            seen.append(caption(app))
        assert seen == ["errors", "image and prediction", "image", "truth", "prediction"]
        await pilot.press("enter")
        await until_async(lambda: "errors" in plain(page(app).body))
        await pilot.press("p")
        await until_async(lambda: "pictures: kitty" in page(app).said)
