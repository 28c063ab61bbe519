"""Predictions of a run in half blocks: image, truth, prediction, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmtui.domain.text import printable
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages.compose import beside
from mmtui.tui.widgets.panels import Line

LARGEST_SIDE = 8192
KINDS = ("image", "truth", "prediction")
RAMP = " .:-=+*#%@"


def shown(home: Home, run_id: str, until: int | None = None) -> list[dict[str, Any]]:
    """The newest event (up to a global step) of every validation image that a run shows, by index."""
    newest: dict[int, dict[str, Any]] = {}
    for event in runs.events_tail(home, run_id, kind="image"):
        values = event["values"]
        if until is not None and event["global_step"] > until:
            continue
        if values.get("kind") == "validation" and isinstance(values.get("index"), int):
            newest[values["index"]] = {**values, "step": event["step"]}
    return [newest[index] for index in sorted(newest)]


def predictions(
    home: Home,
    run_id: str,
    width: int,
    height: int,
    ascii_only: bool,
    number: int = 0,
    until: int | None = None,
) -> list[Line]:
    """One image of the last evaluation: image, truth, prediction, errors only."""
    found = shown(home, run_id, until)
    if not found:
        return [[("no predictions yet: they come with the evaluation", "dim")]]
    values = found[number % len(found)]
    root = home.run(run_id).root.resolve()
    files = [(root / str(values.get(kind) or "")).resolve() for kind in KINDS]
    title = f"image {number % len(found) + 1}/{len(found)} {printable(str(values.get('name', '')))}"
    lines: list[Line] = [[(title, "title"), (f"  step {values['step']}   left, right: another image", "dim")]]
    across = 4 if width >= 120 else 2
    each = (width - 2 * (across - 1)) // across
    rows = max((height - 2) // (4 // across) - 2, 4)
    blocks = []
    for kind, file in zip(KINDS, files, strict=True):
        readable = file.is_file() and file.is_relative_to(root)
        body = _drawn(str(file), file.stat().st_mtime, each, rows, ascii_only) if readable else [[("missing", "dim")]]
        blocks.append([[(kind, "dim")], *body])
    if all(file.is_file() and file.is_relative_to(root) for file in files[1:]):
        stamp = max(file.stat().st_mtime for file in files[1:])
        blocks.append([[("errors", "dim")], *_errors(str(files[1]), str(files[2]), stamp, each, rows, ascii_only)])
    for first in range(0, len(blocks), across):
        lines += [*beside(blocks[first : first + across], each), []]
    names = runs.get_run(home, run_id).classes
    return [*lines[:-1], *_legend(files[1:], names, width)]


def _legend(files: Sequence[Path], names: Sequence[str], width: int) -> list[Line]:
    """Colour and name of the classes that occur in truth or prediction, as the palettes of the files have them."""
    from PIL import Image

    found: dict[int, str] = {}
    for file in files:
        try:
            with Image.open(file) as picture:
                palette = picture.getpalette() if picture.mode == "P" else None
                counts = picture.histogram() if palette else []
        except (OSError, ValueError, SyntaxError):
            continue
        for index, count in enumerate(counts[: len(names)]):
            if count and palette:
                found[index] = "#" + "".join(f"{value:02x}" for value in palette[3 * index : 3 * index + 3])
    lines: list[Line] = [[]]
    for index, color in sorted(found.items()):
        word = f" {printable(names[index])}  "
        if sum(len(text) for text, _ in lines[-1]) + len(word) + 2 > width:
            lines.append([])
        lines[-1] += [("  ", f"{color} on {color}"), (word, "")]
    return lines if found else []


def _picture(file: Path) -> Any:
    from PIL import Image

    with Image.open(file) as picture:
        if max(picture.size) > LARGEST_SIDE:
            raise ValueError(f"{picture.width} x {picture.height} pixels")
        return picture.convert("RGB")


def _fitted(picture: Any, width: int, rows: int, nearest: bool) -> Any:
    """A picture of ``width`` x 2 ``rows`` pixels at most, its proportions kept."""
    from PIL import Image

    scale = min(width / picture.width, 2 * rows / picture.height)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale / 2) * 2, 2))
    return picture.resize(size, Image.Resampling.NEAREST if nearest else Image.Resampling.BOX)


@lru_cache(maxsize=64)
def _drawn(file: str, _stamp: float, width: int, rows: int, ascii_only: bool) -> list[Line]:
    """A file as half blocks; kept until it changes or the size does."""
    try:
        picture = _picture(Path(file))
    except (OSError, ValueError, SyntaxError) as error:
        return [[(f"cannot be read: {printable(str(error))}"[:width], "bad")]]
    return half_blocks(_fitted(picture, width, rows, nearest=not file.endswith((".jpg", ".jpeg"))), ascii_only)


@lru_cache(maxsize=64)
def _errors(truth: str, prediction: str, _stamp: float, width: int, rows: int, ascii_only: bool) -> list[Line]:
    """Where truth and prediction differ, in the colour of the prediction."""
    from PIL import Image, ImageChops

    try:
        one, other = _picture(Path(truth)), _picture(Path(prediction))
    except (OSError, ValueError, SyntaxError):
        return [[("cannot be read", "bad")]]
    if one.size != other.size:
        return [[("sizes differ", "bad")]]
    wrong = ImageChops.difference(one, other).convert("L").point(lambda value: 255 if value else 0)
    drawn = Image.new("RGB", one.size)
    drawn.paste(other, mask=wrong)
    return half_blocks(_fitted(drawn, width, rows, nearest=True), ascii_only)


def half_blocks(picture: Any, ascii_only: bool) -> list[Line]:
    """Two pixels a cell, the upper one as foreground; in ASCII one character by brightness."""
    pixels, lines = picture.load(), []
    for y in range(0, picture.height - 1, 2):
        line: Line = []
        for x in range(picture.width):
            upper, lower = pixels[x, y], pixels[x, y + 1]
            if ascii_only:
                cell = (RAMP[sum(upper + lower) * (len(RAMP) - 1) // (6 * 255)], "")
            else:
                cell = ("▀", f"#{_hex(upper)} on #{_hex(lower)}")
            if line and line[-1][1] == cell[1]:
                line[-1] = (line[-1][0] + cell[0], cell[1])
            else:
                line.append(cell)
        lines.append(line)
    return lines


def _hex(pixel: tuple[int, int, int]) -> str:
    # Four bits a channel are enough for the eye here, and neighbours are then often equal: fewer bytes.
    return "".join(f"{min(value // 16 * 17, 255):02x}" for value in pixel)
