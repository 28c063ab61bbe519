"""Predictions of a run: image, truth, prediction and what is wrong, side by side or one of them alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from engine.events import records
from mmtui.domain.text import in_ascii, printable, shorten
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages import label_maps, raster
from mmtui.tui.pages.compose import beside
from mmtui.tui.pages.label_maps import RGB, VOID, Scores, Triple
from mmtui.tui.pages.raster import Look
from mmtui.tui.terminal import graphics
from mmtui.tui.terminal.graphics import Body, Placed
from mmtui.tui.widgets.panels import Line, glyph_of, style_of

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = ("image", "truth", "prediction")
PANELS = (*FILES, "errors")
ALONE = (*PANELS, "blend")
"""What can be shown alone."""
LEAST_ROWS = 3
ROOMY = 30
"""Lines from which on the legend may take more room."""
GAP = 2


@dataclass(frozen=True)
class Choice:
    """What the user has chosen: the number of the image, one of ``ALONE`` or "" for all, up to which global step."""

    number: int = 0
    alone: str = ""
    until: int | None = None


class Shown(NamedTuple):
    """A validation image, as an evaluation predicted it."""

    stage: str
    step: int
    global_step: int
    number: int
    pictures: records.Image


def evaluations(home: Home, run_id: str) -> list[Shown]:
    """Every validation image that a run shows, oldest first."""
    found = []
    for event in runs.events(home, run_id, records.Image.KIND):
        image = event.record
        if isinstance(image, records.Image) and image.kind == "validation" and image.index is not None:
            found.append(Shown(event.stage, event.step, event.global_step, image.index, image))
    return found


def moments(home: Home, run_id: str) -> list[int]:
    """Global steps of the evaluations whose predictions are kept."""
    return sorted({one.global_step for one in evaluations(home, run_id)})


def predictions(
    home: Home, run_id: str, width: int, height: int, look: Look, choice: Choice = Choice(), note: str = ""
) -> Body:
    """One validation image as of the newest evaluation, or the newest up to a global step; a note below it."""
    kept = evaluations(home, run_id)
    steps = sorted({one.global_step for one in kept})
    newest = {one.number: one for one in kept if choice.until is None or one.global_step <= choice.until}
    if not newest:
        words = "no predictions yet: they come with the first evaluation"
        return Body([[(words if not steps else f"none up to here: the first came at step {steps[0]}", "dim")]])
    shown = newest[sorted(newest)[choice.number % len(newest)]]
    pictures, root = shown.pictures, home.run(run_id).root.resolve()
    triple = label_maps.read_triple(root, [pictures.image or "", pictures.truth or "", pictures.prediction or ""])
    place = f"image {choice.number % len(newest) + 1}/{len(newest)}"
    when = f"{shown.stage} step {shown.step}, evaluation {steps.index(shown.global_step) + 1}/{len(steps)}"
    name = shorten(printable(pictures.name or ""), max(width - len(place) - len(when) - 6, 8))
    lines = Body([[(f"{place}  ", "title"), (f"{name}  ", "title"), (printable(when), "dim")], _told(triple, width)])
    legend = _legend(triple, runs.get_run(home, run_id).classes, width, 2 if height < ROOMY else 4, look)
    kinds = [choice.alone] if choice.alone in ALONE else PANELS
    below = [*([[]] if legend and height >= ROOMY else []), *legend, *([[(note, "warn")]] if note else [])]
    _add_panels(lines, triple, kinds, width, height - len(lines) - len(below), look)
    lines += below
    if look.ascii_only:
        lines[:] = [[(in_ascii(text), style) for text, style in line] for line in lines]
    return lines


def _told(triple: Triple, width: int) -> Line:
    """How good the prediction is, in one line."""
    scores = triple.scores
    if scores is None:
        sizes = {one.size for one in (triple.truth, triple.prediction) if not isinstance(one, str)}
        return [("truth and prediction differ in size" if len(sizes) > 1 else "", "bad")]
    if scores.miou is None or not scores.pixels:
        return [("every pixel is void", "dim")]
    words = f"mIoU {100 * scores.miou:.1f} over {len(scores.ious)} classes"
    wrong = f"  {100 * scores.wrong / scores.pixels:.1f}% of pixels wrong"
    if width >= 80:
        words += " in this image"
        wrong = wrong.replace("pixels", f"{scores.pixels:,} pixels")
    void = f"  {100 * scores.void / (scores.pixels + scores.void):.1f}% void" if scores.void else ""
    return [(words, ""), (wrong, ""), (void, "dim")]


def _add_panels(lines: Body, triple: Triple, kinds: Sequence[str], width: int, height: int, look: Look) -> None:
    """The pictures as large as they can be, each below its name."""
    size = _size(triple)
    across = _across(len(kinds), size, width, height)
    each = (width - GAP * (across - 1)) // across
    rows = max(height // -(-len(kinds) // across) - 1, LEAST_ROWS)
    placed = []
    for first in range(0, len(kinds), across):
        blocks = []
        for column, kind in enumerate(kinds[first : first + across]):
            body = _drawn(triple, kind, each, rows, look)
            if isinstance(body, Placed):
                at = (len(lines) + 1, column * (each + GAP))
                placed.append(replace(body, line=at[0], column=at[1]))
                body = [[("", "")] for _ in range(body.rows)]
            blocks.append([_caption(triple, kind), *body])
        lines += beside(blocks, each, GAP)
    lines.placed = tuple(placed)


def _caption(triple: Triple, kind: str) -> Line:
    scores = triple.scores
    if kind == "errors" and scores is not None and scores.pixels:
        return [("errors", "dim"), (f" {100 * scores.wrong / scores.pixels:.1f}%", "")]
    return [({"blend": "image and prediction"}.get(kind, kind), "dim")]


def _size(triple: Triple) -> tuple[int, int]:
    """Size in pixels of the first picture that could be read."""
    found = [one.size for one in (triple.prediction, triple.truth, triple.image) if not isinstance(one, str)]
    return found[0] if found else (1, 1)


def _across(count: int, size: tuple[int, int], width: int, height: int) -> int:
    """Number of pictures side by side with which they are largest."""

    def area(across: int) -> int:
        rows = height // -(-count // across) - 1
        pixels = raster.fitted(size, (width - GAP * (across - 1)) // across, max(rows, 1))
        return pixels[0] * pixels[1]

    return max((across for across in (4, 2, 1) if across <= count), key=area)


def _drawn(triple: Triple, kind: str, width: int, rows: int, look: Look) -> list[Line] | Placed:
    """One picture in cells, or where it goes with a protocol; words where it cannot be read."""
    needed = {"errors": FILES[1:], "blend": ("image", "prediction")}.get(kind, (kind,))
    for name in needed:
        one = getattr(triple, name)
        if isinstance(one, str):
            words = one if len(needed) == 1 else f"{name} {one}"
            return [[(text, "bad")] for text in textwrap.wrap(words, width)[:rows]]
    if kind == "errors" and triple.scores is None:
        return [[("sizes differ", "bad")]]
    if look.way != "blocks":
        return _placed(triple, kind, width, rows, look)
    return _blocks(triple, kind, width, rows, look)


@lru_cache(maxsize=8)
def _blocks(triple: Triple, kind: str, width: int, rows: int, look: Look) -> list[Line]:
    """A picture in cells; kept while it is on the screen."""
    picture, colors = _picture(triple, kind), _colors(triple, kind, look)
    if kind == "image":
        return raster.photo(picture, width, rows, look)
    if kind == "blend":
        return raster.blended(_readable(triple.image), picture, colors, width, rows, look)
    if kind == "errors":
        return raster.errors(picture, colors, width, rows, look)
    return raster.labels(picture, colors, width, rows, look)


def _readable(picture: Image | str) -> Image:
    """A picture that was read: ``_drawn`` has told of those that were not."""
    assert not isinstance(picture, str)
    return picture


def _picture(triple: Triple, kind: str) -> Image:
    """The photo (mode RGB), or the label map (mode L) that is to be coloured."""
    if kind == "errors":
        return raster.mistakes(_readable(triple.truth), _readable(triple.prediction))
    return _readable(getattr(triple, "prediction" if kind == "blend" else kind))


def _colors(triple: Triple, kind: str, look: Look) -> dict[int, RGB]:
    """The colour of each index in a picture."""
    light = VOID + 1
    wanted = {**triple.colors, raster.RIGHT: raster.RIGHT_COLOR, light: raster.VOID_COLOR}
    shown = raster.told_apart(wanted, look.colors)
    return {**shown, VOID: shown[light]} if kind == "errors" else shown


@lru_cache(maxsize=8)
def _placed(triple: Triple, kind: str, width: int, rows: int, look: Look) -> Placed:
    """A picture in pixels, encoded; where it goes is filled in by the caller."""
    from PIL import Image

    picture, colors = _picture(triple, kind), _colors(triple, kind, Look())
    ratio = look.cell[1] / look.cell[0] / 2
    across, down = raster.fitted((picture.width, max(round(picture.height / ratio), 1)), width, rows)
    target = (across * look.cell[0], down // 2 * look.cell[1])
    if kind == "blend":
        picture = Image.blend(_readable(triple.image).resize(picture.size), raster.colored(picture, colors), 0.5)
    elif kind != "image":
        picture = raster.paletted(picture, colors)
    picture = _scaled(picture, target, exactly=look.way == "sixel")
    data = graphics.sixel(picture) if look.way == "sixel" else graphics.png(picture)
    return Placed(0, 0, across, down // 2, f"{triple.key} {kind} {target}", look.way, data)


def _scaled(picture: Image, target: tuple[int, int], exactly: bool) -> Image:
    """A picture no larger than what it is shown on; small label maps are enlarged here, without mixing colours.

    A photo that is smaller is left to the terminal: it enlarges without more bytes.
    """
    from PIL import Image

    share = min(target[0] / picture.width, target[1] / picture.height)
    size = target
    if not exactly and share >= 1:
        times = int(share) if picture.mode == "P" else 1
        size = (picture.width * times, picture.height * times)
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.NEAREST if picture.mode == "P" else Image.Resampling.BOX)


def _legend(triple: Triple, names: Sequence[str], width: int, most: int, look: Look) -> list[Line]:
    """Colour or letter, name and IoU of the classes that occur; those of the most pixels where not all have room."""
    if not triple.counts or not triple.named:
        return []
    colors = _colors(triple, "truth", look)
    order = sorted(triple.counts, key=lambda index: (index == VOID, -triple.counts[index]))
    for count in range(len(order), 0, -1):
        entries = [_entry(index, names, triple.scores, colors, look) for index in sorted(order[:count])]
        left = len(order) - count
        lines = _flowed([*entries, *([[(f"and {left} more", "dim")]] if left else [])], width)
        if len(lines) <= most:
            return lines
    return []


def _entry(index: int, names: Sequence[str], scores: Scores | None, colors: dict[int, RGB], look: Look) -> Line:
    name = "void" if index == VOID else names[index] if index < len(names) else f"class {index}"
    word = shorten(printable(name), 20)
    iou = scores.ious.get(index) if scores is not None else None
    told = "" if iou is None else f" {100 * iou:.0f}"
    if look.by_letters:
        sign = ("blank", "dim") if index == VOID else (glyph_of(index), style_of(index))
    else:
        sign = ("  ", f"on {raster.hexed(colors[index])}")
    return [sign, (f" {word}", ""), (told, "dim")]


def _flowed(entries: Sequence[Line], width: int) -> list[Line]:
    """Entries after each other, on as many lines as they need."""
    lines: list[Line] = [[]]
    used = 0
    for entry in entries:
        length = sum(cell_len(text) for text, _ in entry)
        if used and used + GAP + length > width:
            lines.append([])
            used = 0
        lines[-1] += [*([("  ", "")] if used else []), *entry]
        used += length + (GAP if used else 0)
    return lines
