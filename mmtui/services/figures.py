"""Figures on demand: what runs kept of their graphs, embeddings and predictions, their curves, graph sizes.

Pictures are drawn by the engine in a child process: front ends load no torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.events import attempt_numbers
from engine.events.numbers import whole
from engine.marks import is_marked, marked_png, marked_text
from mmtui.domain.states import RunState
from mmtui.domain.views import RunDetail
from mmtui.errors import NotFoundError
from mmtui.paths import Home
from mmtui.services import output_files, runs, svg

SHEETS = {"match_patches.png": "patches", "match_boxes.png": "boxes"}
"""Pictures that a match stage draws itself, and what they are called here."""
POINTS = 600


def draw(home: Home, ids: Sequence[str], target: Path) -> tuple[list[Path], list[str]]:
    """Draw every figure that the runs have the data for into ``target``, an empty folder; the files, and what failed.

    - ``graph``, ``embeddings``, ``predictions`` (PNG): as ``python -m engine pictures`` draws them
    - ``patches``, ``boxes`` (PNG): patches of a graph by class, and the windows they were cut from
    - ``NAME.svg``: a metric of all runs; ``graph_size_miou.svg``, ``graph_size_time.svg``: by nodes of the graph

    What one run's files do not allow keeps nothing else from being drawn.

    Raises:
        NotFoundError: there is nothing to draw yet.
    """
    details = [runs.get_run(home, run_id) for run_id in ids]
    drawn, problems = _drawn(home, ids, target)
    made = [*_sheets(home, ids, target), *drawn]
    for name, text in _charts(home, details):
        if not text:
            continue
        path = target / f"{name}.svg"
        path.write_text(marked_text(svg.standalone(text), "<!-- -->"), encoding="utf-8")
        made.append(path)
    if not made and not problems:
        raise NotFoundError("there is nothing to draw yet", "figures need some steps of a run")
    return made, problems


def place(drawn: Sequence[Path], target: Path, *, force: bool) -> list[Path]:
    """Copy what was drawn into a folder of the user's: all of it or, if something may not be written over, nothing.

    Figures that were drawn earlier, and that nobody has changed since, are replaced.

    Raises:
        RefusedError: a file is there that is no such figure, and not ``force``.
        UnreachableError: it cannot be written.
    """
    files = {target / path.name: path.read_bytes() for path in drawn}
    output_files.write_all(files, is_marked, force=force)
    return list(files)


def _sheets(home: Home, ids: Sequence[str], target: Path) -> Iterator[Path]:
    for run_id in ids:
        for file, name in SHEETS.items():
            found = home.run(run_id).root / "images" / file
            if found.is_file():
                path = target / f"{name}{_suffix(run_id, ids)}.png"
                path.write_bytes(marked_png(found.read_bytes()))
                yield path


def _suffix(run_id: str, ids: Sequence[str]) -> str:
    return f"_{run_id}" if len(ids) > 1 else ""


def _drawn(home: Home, ids: Sequence[str], target: Path) -> tuple[list[Path], list[str]]:
    """What the engine draws, and why it could not; if it cannot draw all runs together, each is drawn alone."""
    begun = [run_id for run_id in ids if attempt_numbers(home.run(run_id).root)]
    made, problem = _by_engine(home, begun, target) if begun else ([], "")
    if not problem or len(begun) == 1:
        return made, [f"run {run_id}: {problem}" for run_id in begun if problem]
    problems = []
    for run_id in begun:
        found, problem = _by_engine(home, [run_id], target)
        made += [path.rename(path.with_stem(f"{path.stem}_{run_id}")) for path in found]
        problems += [f"run {run_id}: {problem}"] if problem else []
    return made, problems


def _by_engine(home: Home, ids: Sequence[str], target: Path) -> tuple[list[Path], str]:
    """The engine's pictures of some runs, its n-th run renamed to its id, or its words."""
    options = [text for run_id in ids for text in ("--run-dir", str(home.run(run_id).root))]
    command = [sys.executable, "-P", "-m", "engine", "pictures", *options, "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        if "holds nothing to draw" in done.stderr:
            return [], ""
        words = done.stderr.strip().splitlines()
        return [], words[-1].removeprefix("error: ") if words else "the engine could not draw"
    made = []
    for path in map(Path, done.stdout.split("\n")[:-1]):
        stem, _, number = path.stem.rpartition("_")
        if len(ids) > 1 and number.isdecimal():
            path = path.rename(path.with_name(f"{stem}_{ids[int(number) - 1]}{path.suffix}"))
        made.append(path)
    return made, ""


def _charts(home: Home, details: Sequence[RunDetail]) -> Iterator[tuple[str, str]]:
    # The loss of a stage has a scale of its own; mean IoU belongs to the whole run.
    stages = dict.fromkeys(stage.name for detail in details for stage in detail.stages if stage.name != "evaluate")
    for metric, stage in (*(("loss", name) for name in stages), ("miou", None)):
        lines = [
            (f"{detail.row.id} {detail.row.name}", _points(home, detail.row.id, metric, stage)) for detail in details
        ]
        if any(len(points) > 1 for _, points in lines):
            words = f"{metric} of {stage} by step of the run" if stage else f"{metric} by step of the run"
            yield (f"{metric}_{stage}" if stage else metric), svg.chart(metric, lines, words)
    yield from _graph_sizes(details)


def _points(home: Home, run_id: str, metric: str, stage: str | None) -> list[tuple[float, float]]:
    found = runs.series(home, run_id, metric, max_buckets=POINTS, stage=stage)
    return [(bucket.x, bucket.last) for bucket in found.buckets if not bucket.superseded]


def _graph_sizes(details: Sequence[RunDetail]) -> Iterator[tuple[str, str]]:
    """Mean IoU and minutes of the match stage by nodes of a graph, means over the runs of each size."""
    iou: dict[int, list[float]] = {}
    minutes: dict[int, list[float]] = {}
    for detail in details:
        match, miou = detail.section("match"), detail.row.metrics.get("miou")
        nodes = (whole(match.get("images")) or 0) * (whole(match.get("patches_per_image")) or 0)
        if not nodes or miou is None or detail.row.state != RunState.SUCCEEDED:
            continue
        iou.setdefault(nodes, []).append(miou)
        for stage in detail.stages:
            if (
                stage.name == "match"
                and not stage.reused_from
                and stage.ended_at is not None
                and stage.started_at is not None
            ):
                minutes.setdefault(nodes, []).append((stage.ended_at - stage.started_at) / 60)
    if len(iou) < 2:
        return
    for name, values, words in (
        ("graph_size_miou", iou, "mean IoU (%) by nodes of the graph"),
        ("graph_size_time", minutes, "minutes of the match stage by nodes of the graph"),
    ):
        points = [(float(nodes), statistics.fmean(found)) for nodes, found in sorted(values.items())]
        yield name, svg.chart(name, [(name, points)], words)
