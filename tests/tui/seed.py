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


def seed_run(home: Home, name: str, *, until: int, seed: int, end: RunEvent | None, now: float) -> str:
    """One run with events up to global step ``until``; ``end`` None leaves it running."""
    database = Database(home)
    try:
        new = NewRun(name, "shapes_mixmatch", seed, {"seed": seed}, (), {"digest": "0" * 16}, STAGES, ())
        with database.write() as session:
            run_id = insert_run(session, new, now - 100)
            number = begin_attempt(session, run_id, ["cpu:0"], "box")
        path = home.run(str(run_id)).events(number)
        trace = Trace(path, now - 95)
        write_trace(trace, until, seed)
        trace.save()
        home.run(str(run_id)).log(number).write_text("".join(f"line {i} of the trainer\n" for i in range(30)))
        ingest_file(database, path, run_id, number, 0)
        if end is not None:
            with database.write() as session:
                transition(session, run_id, end, ended_at=now)
    finally:
        database.close()
    return str(run_id)


def write_trace(trace: Trace, until: int, seed: int) -> None:
    """Events of a plausible run."""
    rng = random.Random(seed)
    stages = [list(item) for item in STAGES]
    started = {"attempt": 1, "pid": 1, "host": "box", "device": "CPU", "stages": stages, "classes": list(CLASSES)}
    trace.emit("run_started", "", 0, 0, {**started, "resumed_stage": "", "resumed_global_step": 0})
    offset = 0
    for stage, total in STAGES[:2]:
        if until <= offset:
            return
        trace.emit("stage_started", stage, 0, offset, {"total_steps": total, "offset": offset, "resumed_step": 0})
        for step in range(5, min(until - offset, total) + 1, 5):
            level = 0.7 if stage == "match" else 0.15
            loss = level + 1.3 * math.exp(-step / 60) + rng.gauss(0, 0.04)
            values = {"loss": loss, "lr": 0.02, "seconds_per_step": 0.05, "images_per_second": 320.0}
            trace.emit("metrics", stage, step, offset + step, values)
            if stage == "match":
                trace.emit("graph", stage, step, offset + step, graph_values(rng))
            elif step % 100 == 0:
                matrix = confusion(rng, step / 300)
                trace.emit("confusion", stage, step, offset + step, {"matrix": matrix, "classes": list(CLASSES)})
        if until < offset + total:
            return
        trace.emit("stage_finished", stage, total, offset + total, {"seconds": 10.0})
        offset += total


def graph_values(rng: random.Random) -> dict[str, Any]:
    """Values of a graph event."""
    nodes = {str(c): rng.randint(4, 28) for c in range(8)}
    total = sum(nodes.values())
    return {
        "nodes": total,
        "attractive_edges": total,
        "rejective_edges": total,
        "classes_present": 8,
        "nodes_per_class": nodes,
        "components_per_class": dict.fromkeys(nodes, 1),
        "singletons": 0,
        "no_negative": 0,
        "starved": {"8": 25},
        "degree_mean": 4.0,
        "degree_max": 11,
        "active_triplets": 1.0,
        "d_pos_mean": 0.31,
        "d_neg_mean": 1.42,
        "d_pos_hist": [60, 30, 20, 10, 5, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "d_neg_hist": [2, 5, 9, 20, 33, 31, 20, 12, 0, 0, 0, 0, 0, 0, 0, 0],
        "patch_size_mean": 31.5,
        "patch_size_min": 16,
        "patch_size_max": 48,
        "padding_share": 0.09,
        "overlap_rejections": 41,
        "topped_up": 3,
        "class_pairs": [[0, 1, 5]],
    }


def confusion(rng: random.Random, quality: float) -> list[list[int]]:
    """A confusion matrix that gets better with ``quality`` (0-1); the last class is absent."""
    k = len(CLASSES)
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
