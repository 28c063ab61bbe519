"""Pictures of what the method does (PAPER 4): patches, their windows, the match graph, embeddings, predictions.

Every function is a pure one of tensors or images and draws no random number. Colours are a flat palette of 256 RGB
triples (``engine.stages.palette``). Shapes: N patches or nodes, B images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.mixmatch.windows import Patches

RGB = tuple[int, int, int]
WHITE, INK = (255, 255, 255), (40, 40, 40)
ATTRACTIVE, REJECTIVE = (40, 80, 220), (220, 50, 40)
LINE, GAP, NAMES = 14, 6, 96
"""Height of a line of text, gap between pictures, width of a column of class names; pixels."""
SMALLEST = 192
"""Images whose shorter side is at most half of this are enlarged, pixels."""
DOT = 3
"""Radius of a dot, pixels."""


def patch_sheet(
    pixels: Tensor, labels: Tensor, classes: Sequence[str], palette: Sequence[int], per_class: int = 8
) -> Image.Image:
    """The first patches of every class present, one class a row, framed in its colour.

    Args:
        pixels: uint8 (N, 3, s, s).
        labels: int64 (N,).
    """
    side, numbers = pixels.shape[-1], labels.tolist()
    present = sorted(set(numbers))
    rows = {label: [i for i, own in enumerate(numbers) if own == label] for label in present}
    widest = max((min(per_class, len(nodes)) for nodes in rows.values()), default=0)
    cell = side + GAP
    sheet = _canvas(NAMES + widest * cell + GAP, max(1, len(rows)) * cell + GAP)
    draw = ImageDraw.Draw(sheet)
    for row, (label, nodes) in enumerate(rows.items()):
        top = GAP + row * cell
        _text(draw, GAP, top, class_name(classes, label))
        _text(draw, GAP, top + LINE, f"{len(nodes)}")
        for column, node in enumerate(nodes[:per_class]):
            left = NAMES + column * cell
            sheet.paste(to_image(pixels[node]), (left, top))
            frame = [left - 2, top - 2, left + side + 1, top + side + 1]
            draw.rectangle(frame, outline=colour(palette, label), width=2)
    return sheet


def box_sheet(
    images: Tensor, patches: Patches, classes: Sequence[str], palette: Sequence[int], limit: int = 4, columns: int = 2
) -> Image.Image:
    """Windows of sampled patches over their images, in the colour of their class, with a dot at each centre.

    Small images are enlarged by a whole number.

    Args:
        images: uint8 (B, 3, H, W); the first ``limit`` are shown.
        patches: windows in them; what reaches beyond an image is cut off.
    """
    zoom = max(1, SMALLEST // min(images.shape[2:]))
    shown = [to_image(image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)) for image in images[:limit]]
    width, height = shown[0].size if shown else (1, 1)
    present = sorted(
        {label for i, label in zip(patches.image.tolist(), patches.label.tolist(), strict=True) if i < limit}
    )
    for number, picture in enumerate(shown):
        _draw_windows(picture, patches, number, palette, zoom)
    columns = max(1, min(columns, len(shown)))
    rows = -(-len(shown) // columns)
    legend_top = GAP + rows * (height + GAP)
    across = max(NAMES + 2 * GAP, GAP + columns * (width + GAP))
    sheet = _canvas(across, legend_top + legend_height(len(present), across))
    for number, picture in enumerate(shown):
        place = (GAP + number % columns * (width + GAP), GAP + number // columns * (height + GAP))
        sheet.paste(picture, place)
    draw_legend(sheet, legend_top, present, classes, palette)
    return sheet


def _draw_windows(picture: Image.Image, patches: Patches, number: int, palette: Sequence[int], zoom: int) -> None:
    draw = ImageDraw.Draw(picture)
    own = (patches.image == number).nonzero().flatten()
    windows = [(zoom * part[own]).tolist() for part in (patches.cy, patches.cx, patches.size)]
    windows.append(patches.label[own].tolist())
    for cy, cx, size, label in zip(*windows, strict=True):
        top, left = cy - size // 2, cx - size // 2
        draw.rectangle([left, top, left + size - 1, top + size - 1], outline=colour(palette, label), width=1)
    for cy, cx, _, label in zip(*windows, strict=True):
        _dot(draw, cx, cy, 2, colour(palette, label))


def node_sheet(pixels: Tensor, columns: int = 20) -> Image.Image:
    """All patches, uint8 (N, 3, s, s), edge to edge in the order of the nodes, ``columns`` a row."""
    count, _, side, _ = pixels.shape
    rows = max(1, -(-count // columns))
    grid = torch.zeros((rows * columns, 3, side, side), dtype=torch.uint8)
    grid[:count] = pixels.cpu()
    sheet = grid.view(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)
    return to_image(sheet)


def graph_drawing(
    labels: Tensor,
    positive: Tensor,
    negative: Tensor,
    has_negative: Tensor,
    classes: Sequence[str],
    palette: Sequence[int],
    thumbnails: Sequence[Image.Image] | None = None,
    side: int = 1200,
) -> Image.Image:
    """The match graph: each class a circle of nodes; attractive edges are blue, rejective ones red.

    Args:
        labels: int64 (N,), class of each node.
        positive: int64 (N,), the other end of each node's attractive edge; the node itself = none.
        negative: int64 (N,), the other end of its rejective edge.
        has_negative: bool (N,), whether it has one.
        thumbnails: N pictures to draw for the nodes; None draws dots in the class's colour.
        side: width and height of the drawing, pixels; the legend stands below it.
    """
    numbers = labels.tolist()
    present = sorted(set(numbers))
    places = node_places(numbers, side)
    sheet = _canvas(side, side + legend_height(len(present), side))
    edges = ImageDraw.Draw(sheet, "RGBA")
    for node, (other, there) in enumerate(zip(negative.tolist(), has_negative.tolist(), strict=True)):
        if there:
            edges.line([places[node], places[other]], fill=(*REJECTIVE, 90), width=1)
    for node, other in enumerate(positive.tolist()):
        if other != node:
            edges.line([places[node], places[other]], fill=(*ATTRACTIVE, 220), width=2)
    draw = ImageDraw.Draw(sheet)
    for node, (x, y) in enumerate(places):
        if thumbnails is None:
            _dot(draw, round(x), round(y), DOT + 1, colour(palette, numbers[node]))
        else:
            _thumbnail(sheet, thumbnails[node], (round(x), round(y)), colour(palette, numbers[node]))
    draw_legend(sheet, side, present, classes, palette)
    return sheet


def node_places(labels: Sequence[int], side: int) -> list[tuple[float, float]]:
    """Centre (x, y) of each node: classes on a large circle in ascending order, nodes of each on a small one."""
    present = sorted(set(labels))
    lone = len(present) < 2
    large = 0.0 if lone else 0.36 * side
    small = 0.4 * side if lone else min(0.1 * side, 0.9 * large * math.sin(math.pi / len(present)))
    places: dict[int, tuple[float, float]] = {}
    for number, label in enumerate(present):
        cx, cy = _on_circle(side / 2, side / 2, large, number / len(present))
        nodes = [i for i, own in enumerate(labels) if own == label]
        for k, node in enumerate(nodes):
            turn = number / len(present) + 0.25 + k / len(nodes)  # not all on one line through the middle
            places[node] = (cx, cy) if len(nodes) == 1 else _on_circle(cx, cy, small, turn)
    return [places[node] for node in range(len(labels))]


def _on_circle(cx: float, cy: float, radius: float, turn: float) -> tuple[float, float]:
    """The point of a circle after ``turn`` turns, clockwise from the top."""
    return cx + radius * math.sin(2 * math.pi * turn), cy - radius * math.cos(2 * math.pi * turn)


def _thumbnail(sheet: Image.Image, picture: Image.Image, centre: tuple[int, int], frame: RGB) -> None:
    width, height = picture.size
    left, top = centre[0] - width // 2, centre[1] - height // 2
    sheet.paste(picture, (left, top))
    ImageDraw.Draw(sheet).rectangle([left - 1, top - 1, left + width, top + height], outline=frame)


def scatter_panels(
    panels: Sequence[tuple[str, Tensor, Tensor]], classes: Sequence[str], palette: Sequence[int], side: int = 480
) -> Image.Image:
    """2-D embeddings side by side, such as before and after; dots in the colour of their class.

    Each panel has a scale of its own: projections by principal components share no axes.

    Args:
        panels: title, points float (N, 2) and labels int64 (N,) of each; points that are not finite are left out.
        side: width and height of a panel, pixels.
    """
    present = sorted({label for _, _, labels in panels for label in labels.tolist()})
    width = GAP + max(1, len(panels)) * (side + GAP)
    bottom = LINE + 2 * GAP + side
    sheet = _canvas(width, bottom + legend_height(len(present), width))
    draw = ImageDraw.Draw(sheet)
    for number, (title, points, labels) in enumerate(panels):
        left, top = GAP + number * (side + GAP), LINE + GAP
        _text(draw, left, GAP // 2, title)
        draw.rectangle([left, top, left + side - 1, top + side - 1], outline=INK)
        for (x, y), label in zip(_spread(points, side), labels.tolist(), strict=True):
            if math.isfinite(x) and math.isfinite(y):
                _dot(draw, left + round(x), top + round(y), DOT, colour(palette, label))
    draw_legend(sheet, bottom, present, classes, palette)
    return sheet


def _spread(points: Tensor, side: int) -> list[tuple[float, float]]:
    """Points in panel pixels: one scale for both axes, a margin around, y upwards; NaN stays NaN."""
    usable = points[points.isfinite().all(dim=1)].double()
    if len(usable) == 0:
        return [(math.nan, math.nan)] * len(points)
    low, high = usable.amin(dim=0), usable.amax(dim=0)
    extent = float((high - low).max()) or 1.0
    margin = 4 * DOT
    unit = (side - 1 - 2 * margin) / extent
    centred = (points.double() - (low + high) / 2) * unit
    return [((side - 1) / 2 + x, (side - 1) / 2 - y) for x, y in centred.tolist()]


def prediction_grid(titles: Sequence[str], rows: Sequence[Sequence[Image.Image]], cell: int = 240) -> Image.Image:
    """Pictures in columns under their titles, such as image | truth | prediction of each run.

    Args:
        titles: one for each column.
        rows: as many pictures each; they keep their aspect and fit a square of ``cell`` pixels.
    """
    small = [[_shrunk(picture, cell) for picture in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in small]
    sheet = _canvas(GAP + len(titles) * (cell + GAP), LINE + 2 * GAP + sum(height + GAP for height in heights))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        _text(draw, GAP + column * (cell + GAP), GAP // 2, title, cell)
    top = LINE + GAP
    for row, height in zip(small, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * (cell + GAP), top))
        top += height + GAP
    return sheet


def _shrunk(picture: Image.Image, cell: int) -> Image.Image:
    """The picture to fit a square; index masks keep their pure colours."""
    factor = cell / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    method = Image.Resampling.NEAREST if picture.mode == "P" else Image.Resampling.BILINEAR
    return picture.resize(size, method).convert("RGB")


def legend_height(entries: int, width: int) -> int:
    """Height of a legend of so many classes in a picture of this width, pixels."""
    return GAP + -(-entries // _per_row(width)) * LINE + GAP


def draw_legend(
    sheet: Image.Image, top: int, present: Sequence[int], classes: Sequence[str], palette: Sequence[int]
) -> None:
    """A coloured square and a name for each class, from row ``top``."""
    draw, per_row = ImageDraw.Draw(sheet), _per_row(sheet.width)
    for number, label in enumerate(present):
        x, y = GAP + number % per_row * (NAMES + LINE), top + GAP + number // per_row * LINE
        draw.rectangle([x, y + 1, x + 9, y + 10], fill=colour(palette, label), outline=INK)
        _text(draw, x + LINE, y, class_name(classes, label))


def _per_row(width: int) -> int:
    return max(1, (width - GAP) // (NAMES + LINE))


def to_image(pixels: Tensor) -> Image.Image:
    """A picture of uint8 (3, H, W)."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def colour(palette: Sequence[int], label: int) -> RGB:
    """RGB of a class."""
    red, green, blue = palette[3 * label : 3 * label + 3]
    return red, green, blue


def class_name(classes: Sequence[str], label: int) -> str:
    """The name of a class, its number where it has none."""
    return classes[label] if 0 <= label < len(classes) else str(label)


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), WHITE)


def _dot(draw: ImageDraw.ImageDraw, x: int, y: int, radius: int, fill: RGB) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=WHITE)


def _text(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, width: int = NAMES - GAP) -> None:
    """One line of printable characters, cut to ``width`` pixels."""
    font = ImageFont.load_default()
    line = "".join(c if c.isprintable() else "?" for c in text)
    while line and draw.textlength(line, font=font) > width:
        line = line[:-1]
    draw.text((x, y), line, fill=INK, font=font)
