"""A data directory with runs in it, made from event files as trainers write them. Also used for the screenshot."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition

NOW = 1_790_000_000.0
CLASSES = ("background", "disc", "ring", "stripes_across", "stripes_upright", "checker", "dots", "cross", "absent")
STAGES = (("match", 150), ("segment", 300), ("evaluate", 1))
HOSTILE_NAMES = (
    "[bold red]markup[/] [link=x]",
    "bell\x07 and \x1b[31mescape\x1b]0;title\x07",
    "emoji 🚀 and 中文名字",
    "x" * 300,
)


class Trace:
    """Writes the event file of one attempt."""

    def __init__(self, path: Path, start: float) -> None:
        self.lines: list[str] = []
        self.path, self.t, self.seq = path, start, 0

    def emit(self, kind: str, stage: str, step: int, global_step: int, values: dict[str, Any]) -> None:
        self.seq += 1
        self.t += 0.2
        event = {"v": 1, "seq": self.seq, "t": self.t, "kind": kind, "stage": stage, "step": step}
        self.lines.append(json.dumps({**event, "global_step": global_step, "values": values}) + "\n")

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(self.lines))


def seed_run(
    home: Home,
    name: str,
    *,
    until: int,
    seed: int,
    end: RunEvent | None,
    now: float,
    classes: tuple[str, ...] = CLASSES,
    config: dict[str, Any] | None = None,
    reason: str = "",
) -> str:
    """One run with events up to global step ``until``; ``end`` None leaves it running, else for a ``reason``."""
    database = Database(home)
    try:
        config = {"seed": seed, **(config or {})}
        new = NewRun(name, "shapes_mixmatch", seed, config, (), {"digest": "0" * 16}, STAGES, ())
        with database.write() as session:
            run_id = insert_run(session, new, now - 100)
            number = begin_attempt(session, run_id, ["cpu:0"], "box")
        path = home.run(str(run_id)).events(number)
        trace = Trace(path, now - 95)
        strategy = (config.get("match") or {}).get("strategy", "graph")
        write_trace(trace, until, seed, classes, strategy)
        trace.save()
        home.run(str(run_id)).log(number).write_text("".join(f"line {i} of the trainer\n" for i in range(30)))
        ingest_file(database, path, run_id, number, 0)
        if end is not None:
            with database.write() as session:
                transition(session, run_id, end, started_at=now - 95, ended_at=now, reason=reason)
    finally:
        database.close()
    return str(run_id)


def seed_three(home: Home) -> Home:
    """One that has ended, with published numbers; one that trains; one whose triplets are random."""
    reference = {"miou": 42.8, "per_class": {CLASSES[1]: 70.0, CLASSES[-1]: 60.0, "of no class": 1.0}}
    seed_run(home, "first", until=450, seed=1, end=RunEvent.EXIT_OK, now=NOW, config={"reference": reference})
    seed_run(home, "second", until=330, seed=2, end=None, now=NOW)
    seed_run(home, "third", until=450, seed=3, end=RunEvent.EXIT_OK, now=NOW, config={"match": {"strategy": "random"}})
    return home


def write_trace(
    trace: Trace, until: int, seed: int, classes: tuple[str, ...] = CLASSES, strategy: str = "graph"
) -> None:
    """Events of a plausible run; the last class is in no image."""
    rng = random.Random(seed)
    stages = [list(item) for item in STAGES]
    started = {"attempt": 1, "pid": 1, "host": "box", "device": "CPU", "stages": stages, "classes": list(classes)}
    trace.emit("run_started", "", 0, 0, {**started, "resumed_stage": "", "resumed_global_step": 0})
    offset = 0
    for stage, total in STAGES[:2]:
        if until <= offset:
            return
        trace.emit("stage_started", stage, 0, offset, {"total_steps": total, "offset": offset, "resumed_step": 0})
        trace.emit("stage_data", stage, 0, offset, {"images_per_step": 10, "images_per_epoch": 240})
        for step in range(5, min(until - offset, total) + 1, 5):
            level = 0.7 if stage == "match" else 0.15
            loss = level + 1.3 * math.exp(-step / 60) + rng.gauss(0, 0.04)
            values = {"loss": loss, "lr": 0.02, "seconds_per_step": 0.05, "images_per_second": 320.0}
            if stage == "segment" and step % 100 == 0:
                matrix = confusion(rng, step / 300, len(classes))
                values["miou"] = mean_iou(matrix)
                trace.emit("confusion", stage, step, offset + step, {"matrix": matrix, "classes": list(classes)})
            trace.emit("metrics", stage, step, offset + step, values)
            if stage == "match":
                graph = match_graph(rng, len(classes) - 1, strategy)
                trace.emit("graph", stage, step, offset + step, graph_values(rng, graph, step / total))
                if step % 20 == 5:
                    trace.emit("projection", stage, step, offset + step, projection_values(rng, graph, step / total))
        if until < offset + total:
            return
        trace.emit("stage_finished", stage, total, offset + total, {"seconds": 10.0})
        offset += total


def mean_iou(matrix: list[list[int]]) -> float:
    """Mean IoU of the classes that occur, percent."""
    unions = [sum(row) + sum(other[c] for other in matrix) - row[c] for c, row in enumerate(matrix)]
    return 100 * sum(row[c] / unions[c] for c, row in enumerate(matrix) if unions[c]) / sum(map(bool, unions))


def match_graph(rng: random.Random, classes: int, strategy: str) -> dict[str, list[int]]:
    """Labels and edges of a graph, drawn node by node as the paper says."""
    label = [c for c in range(classes) for _ in range(rng.randint(4, 28))]
    rng.shuffle(label)
    order = list(range(len(label)))
    rng.shuffle(order)
    positive, negative, before = list(range(len(label))), [-1] * len(label), list[int]()
    for node in order:
        own = [n for n, c in enumerate(label) if c == label[node] and n != node]
        earlier = own if strategy == "random" else [n for n in before if label[n] == label[node]]
        others = [n for n in before if label[n] != label[node]] or [n for n in order if label[n] != label[node]]
        positive[node], negative[node] = rng.choice(earlier or own or [node]), rng.choice(others)
        before.append(node)
    return {"label": label, "positive": positive, "negative": negative, "order": order}


def components(graph: dict[str, list[int]]) -> dict[str, int]:
    """Components of each class, by repainting: slow and plain."""
    paint = list(range(len(graph["label"])))
    for node, other in enumerate(graph["positive"]):
        old, new = paint[node], paint[other]
        paint = [new if color == old else color for color in paint]
    found: dict[str, set[int]] = {}
    for node, color in enumerate(paint):
        found.setdefault(str(graph["label"][node]), set()).add(color)
    return {label: len(colors) for label, colors in found.items()}


def projection_values(rng: random.Random, graph: dict[str, list[int]], progress: float) -> dict[str, Any]:
    """Values of a projection event: classes on a circle, closer together as training goes on."""
    turn = [6.28 * label / (max(graph["label"]) + 1) for label in graph["label"]]
    spread = 0.5 - 0.4 * progress
    x = [round(math.cos(angle) + rng.gauss(0, spread), 4) for angle in turn]
    y = [round(math.sin(angle) + rng.gauss(0, spread), 4) for angle in turn]
    return {"x": x, "y": y, **graph}


def graph_values(rng: random.Random, graph: dict[str, list[int]], progress: float) -> dict[str, Any]:
    """Values of a graph event."""
    label, negative = graph["label"], graph["negative"]
    classes = max(label) + 1
    nodes = {str(c): label.count(c) for c in range(classes)}
    pairs: dict[tuple[int, int], int] = {}
    for node, other in enumerate(negative):
        pair = (min(label[node], label[other]), max(label[node], label[other]))
        pairs[pair] = pairs.get(pair, 0) + 1
    total = len(label)

    def histogram(middle: float, spread: float) -> list[int]:
        counts = [0] * 16
        for _ in range(total):
            counts[min(max(int(rng.gauss(middle, spread) * 4), 0), 15)] += 1
        return counts

    return {
        "nodes": total,
        "attractive_edges": total,
        "rejective_edges": total,
        "classes_present": classes,
        "nodes_per_class": nodes,
        "components_per_class": components(graph),
        "singletons": 0,
        "no_negative": 0,
        "starved": {str(classes): 25},
        "degree_mean": 4.0,
        "degree_max": 11,
        "active_triplets": round(1 - 0.7 * progress, 4),
        "d_pos_mean": 0.31,
        "d_neg_mean": 1.42,
        "d_pos_hist": histogram(1.6 - 1.2 * progress, 0.4),
        "d_neg_hist": histogram(1.7 + 0.2 * progress, 0.4),
        "patch_size_mean": 31.5,
        "patch_size_min": 16,
        "patch_size_max": 48,
        "padding_share": 0.09,
        "overlap_rejections": 41,
        "topped_up": 3,
        "class_pairs": [[a, b, n] for (a, b), n in sorted(pairs.items())],
    }


def confusion(rng: random.Random, quality: float, k: int = len(CLASSES)) -> list[list[int]]:
    """A confusion matrix of ``k`` classes that gets better with ``quality`` (0-1); the last class is absent."""
    rows = []
    for truth in range(k):
        if truth == k - 1:
            rows.append([0] * k)
            continue
        right = int(1000 * (0.2 + 0.7 * quality * rng.random()))
        row = [rng.randint(0, 60) for _ in range(k - 1)] + [0]
        row[truth] = right
        rows.append(row)
    return rows
