"""``python -m engine pictures --run-dir D --out FOLDER``: pictures of finished or running runs, from their files alone.

- ``graph.png``: the last match graph that the run kept, nodes as thumbnails where it kept those.
- ``embeddings.png``: the first and the last ``projection`` event side by side.
- ``predictions.png``: image | truth | prediction of the validation images that every run shows.

With several runs, the first two are drawn for each and carry its number: ``graph_1.png``, ``graph_2.png``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from engine.errors import DataError, EngineError
from engine.events import attempt_folder, attempt_numbers, read_events, records
from engine.events.records import Projection, RunStarted
from engine.marks import is_marked, marked_png
from engine.outputs import OutputExistsError, error_text, write_all
from engine.streams import complain

if TYPE_CHECKING:
    from PIL import Image

TEXT = "draw the match graph, the embeddings and the predictions of runs"
LARGEST_SIDE = 8192
"""Largest side of a picture that is read, pixels."""
ADVICE = "evaluate the run again"
"""What to do about a picture that cannot be read."""
FEW_NODES, SMALL_GRAPH, LARGE_GRAPH = 150, 1200, 2000
"""A graph of up to so many nodes is drawn small; sides of both drawings, pixels."""

DRAWN = frozenset({RunStarted.KIND, Projection.KIND, records.Image.KIND})
"""Kinds of events that are drawn."""


class Triple(NamedTuple):
    """Pictures of a validation image: files below the run's folder."""

    image: str
    truth: str
    prediction: str


Parser = TypeVar("Parser", bound=argparse.ArgumentParser)


def add_parser(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command ``pictures``."""
    sub = commands.add_parser("pictures", help=TEXT, description=TEXT)
    sub.set_defaults(command=pictures_command)
    sub.add_argument("--run-dir", required=True, type=Path, action="append", help="folder of a run; may be repeated")
    sub.add_argument("--out", required=True, type=Path, help="folder for the pictures")
    sub.add_argument(
        "--force", action="store_true", help="write over pictures that this has not drawn, or were changed"
    )


def pictures_command(options: argparse.Namespace) -> int:
    """Draw what there is; 1 if there is nothing, or it cannot be read or written, 2 without a folder.

    5 if a file is there that this has not drawn, or that was changed since.
    """
    if str(options.out) == "-":
        complain("--out -: write the name of a folder")
        return 2
    try:
        made = draw_runs(options.run_dir, options.out, force=options.force)
    except OutputExistsError as error:
        complain(f"{error}: write another folder{'' if options.force else ', or --force'}")
        return error.exit_code
    except EngineError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:
        complain(error_text(error, Path(error.filename or options.out)))
        return 1
    for path in made:
        sys.stdout.write(f"{path}\n")
    return 0


def draw_runs(run_dirs: Sequence[Path], out: Path, *, force: bool = False) -> list[Path]:
    """Draw every picture that the runs have the files for; returns their paths.

    Pictures that an earlier call drew, and nobody has changed, are replaced.

    Raises:
        DataError: a folder is no run, a file of it is damaged, or there is nothing to draw.
        OutputExistsError: another's file is there, and not ``force``: nothing is written.
        OSError: a picture cannot be written.
    """
    made = {out / name: marked_png(_encoded(picture)) for name, picture in _pictures(run_dirs)}
    if not made:
        names = ", ".join(str(run_dir) for run_dir in run_dirs)
        raise DataError(f"{names} holds nothing to draw yet: pictures need some steps of match, or an evaluation")
    write_all(made, is_marked, force=force)
    return list(made)


def _encoded(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _pictures(run_dirs: Sequence[Path]) -> Iterator[tuple[str, Image.Image]]:
    shown = []
    for number, run_dir in enumerate(run_dirs, 1):
        if not attempt_numbers(run_dir):
            raise DataError(f"--run-dir {run_dir} holds no attempt of a run: write a run directory, as given to train")
        suffix = f"_{number}" if len(run_dirs) > 1 else ""
        events = _events(run_dir)
        if events.unreadable:
            noun = "line" if events.unreadable == 1 else "lines"
            sys.stderr.write(
                f"warning: {run_dir}: {events.unreadable} {noun} of its event files passed over: no events\n"
            )
        graph = run_dir / "images" / "match_graph.json"
        if graph.is_file():
            yield f"graph{suffix}.png", draw_graph(graph)
        if events.projections:
            yield f"embeddings{suffix}.png", draw_embeddings(events.projections, events.classes)
        shown.append(events.images)
    common = [name for name in shown[0] if all(name in others for others in shown)]
    if common:
        yield "predictions.png", draw_predictions(run_dirs, shown, common)


@dataclass
class _Events:
    """What is drawn, of all attempts in order."""

    classes: Sequence[str] = ()
    projections: list[tuple[int, Projection]] = field(default_factory=list)
    """(step of the stage, projection) of each."""
    images: dict[str, Triple] = field(default_factory=dict)
    """{name of an image: its pictures, as they were kept last}."""
    unreadable: int = 0
    """Lines that are no events."""


def _events(run_dir: Path) -> _Events:
    found = _Events()
    for number in attempt_numbers(run_dir):
        path = attempt_folder(run_dir, number) / "events.jsonl"
        for _, event in read_events(path, kinds=DRAWN) if path.is_file() else ():
            match event.record if event is not None else None:
                case None:
                    found.unreadable += 1
                case RunStarted() as told:
                    found.classes = told.classes or found.classes
                case Projection() as told if event is not None:
                    found.projections.append((event.step, told))
                case records.Image(image=str(image), truth=str(truth), prediction=str(prediction)) as told:
                    if image and truth and prediction:
                        name = f"image {told.index}" if told.name is None else told.name
                        found.images[name] = Triple(image, truth, prediction)
    return found


def draw_graph(path: Path) -> Image.Image:
    """The graph of a ``match_graph.json``.

    Raises:
        DataError: the file is damaged.
    """
    import torch

    from engine.stages.palette import palette_of
    from engine.stages.pictures import graph_drawing

    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        count = len(kept["labels"])
        labels, positive, negative = (
            torch.tensor(kept[key], dtype=torch.int64).view(count) for key in ("labels", "positive", "negative")
        )
        has_negative = torch.tensor(kept["has_negative"], dtype=torch.bool).view(count)
        classes, side = [str(name) for name in kept["classes"]], int(kept["thumbnails"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is no graph that a match stage kept ({error!r}): remove it") from None
    ends = torch.cat([positive, negative])
    if count and (int(ends.min()) < 0 or int(ends.max()) >= count or not _are_classes(labels.tolist())):
        raise DataError(f"{path} has edges or classes that do not exist: remove it")
    thumbnails = _thumbnails(path.with_name("match_nodes.png"), count, side)
    side = SMALL_GRAPH if count <= FEW_NODES else LARGE_GRAPH
    edges = (positive, negative, has_negative)
    return graph_drawing(labels, *edges, classes, palette_of(classes), thumbnails, side)


def _are_classes(labels: Sequence[int]) -> bool:
    return all(0 <= label < 256 for label in labels)


def _thumbnails(path: Path, count: int, side: int) -> list[Image.Image] | None:
    """Pictures of the nodes, cut from their sheet; None where there is no sheet for so many."""
    if side < 1 or not path.is_file():
        return None
    sheet = read_picture(path).convert("RGB")
    columns = sheet.width // side
    if columns * (sheet.height // side) < count:
        return None
    corners = [(node % columns * side, node // columns * side) for node in range(count)]
    return [sheet.crop((left, top, left + side, top + side)) for left, top in corners]


def draw_embeddings(projections: Sequence[tuple[int, Projection]], classes: Sequence[str]) -> Image.Image:
    """The first and the last projection; of a step that several attempts did, the last one's.

    Args:
        projections: (step, projection) of each, one or more.
        classes: names.

    Raises:
        DataError: an event is damaged.
    """
    import torch

    from engine.stages.palette import palette_of
    from engine.stages.pictures import scatter_panels

    by_step = dict(projections)
    steps = sorted({min(by_step), max(by_step)})
    panels = []
    for step in steps:
        nodes = by_step[step]
        if nodes.x is None or nodes.y is None or nodes.label is None:
            raise DataError(f"the projection event of step {step} cannot be drawn: its x, y or label is damaged")
        if not _are_classes(nodes.label):
            raise DataError(f"the projection event of step {step} cannot be drawn: a label is no class")
        coordinates = [[float("nan") if v is None else v for v in axis] for axis in (nodes.x, nodes.y)]
        points = torch.tensor(coordinates, dtype=torch.float64).T
        labels = torch.tensor(nodes.label, dtype=torch.int64)
        panels.append((f"step {step}", points, labels))
    return scatter_panels(panels, classes, palette_of(classes))


def draw_predictions(
    run_dirs: Sequence[Path], shown: Sequence[Mapping[str, Triple]], names: Sequence[str]
) -> Image.Image:
    """A row for each image: image and truth as the first run shows them, and the prediction of every run.

    Raises:
        DataError: a picture is missing or cannot be read.
    """
    from engine.stages.pictures import prediction_grid

    rows = []
    for name in names:
        row = [read_picture(_inside(run_dirs[0], kept)) for kept in (shown[0][name].image, shown[0][name].truth)]
        row += [read_picture(_inside(run, own[name].prediction)) for run, own in zip(run_dirs, shown, strict=True)]
        rows.append(row)
    titles = ["image", "truth"]
    titles += ["prediction"] if len(run_dirs) == 1 else [run.absolute().name for run in run_dirs]
    return prediction_grid(titles, rows)


def _inside(run_dir: Path, relative: str) -> Path:
    """A file of the run directory.

    Raises:
        DataError: the path leads out of it.
    """
    path = (run_dir / relative).resolve()
    if not path.is_relative_to(run_dir.resolve()):
        raise DataError(f"an image event of {run_dir} names {relative}, which lies outside the run directory")
    return path


def read_picture(path: Path) -> Image.Image:
    """A picture, decoded.

    Raises:
        DataError: it is missing, damaged or larger than any that a run writes.
    """
    from engine.data import pictures

    header = pictures.read_header(path, ADVICE)
    if max(header.width, header.height) > LARGEST_SIDE:
        raise DataError(f"{path} is {header.width} x {header.height} pixels: no run writes that")
    return pictures.read_picture(path, ADVICE).image
