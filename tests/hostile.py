"""Events as trainers write them, and what no trainer would write: for tests of whatever reads them."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
from contextlib import suppress
from typing import Any

from engine.events import attempt_numbers
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from tests.inputs import count

EVENTS: dict[str, dict[str, Any]] = {
    "run_started": {
        "attempt": 1,
        "pid": 4242,
        "host": "box",
        "device": "CPU (x86_64)",
        "stages": [["proxy", 40], ["match", 60], ["segment", 100], ["evaluate", 1]],
        "resumed_stage": "match",
        "resumed_step": 3,
        "resumed_global_step": 43,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "engine": "0.1.0"},
        "seed": 7,
        "classes": ["sky", "road", "Straße"],
        "threads": 2,
        "precision": "float32",
        "processes": 1,
        "forked_from": {"run": "3", "stage": "match", "step": 2, "global_step": 42},
        "code": {"sha256": "0123456789abcdef" * 4, "held": True},
    },
    "stage_started": {"total_steps": 100, "offset": 40, "resumed_step": 0},
    "stage_data": {"images_per_step": 8, "images_per_epoch": 367},
    "weights": {
        "file": "/data/alexnet.pth",
        "loaded": 10,
        "left_out": 2,
        "missing": 0,
        "unexpected": 1,
        "mismatched": 0,
        "first": {"left_out": ["fc.weight", "fc.bias"]},
        "partial": False,
        "notes": ["BGR turned into RGB"],
    },
    "progress": {"text": "evaluating", "done": 3, "total": 64, "eta_seconds": 12.5},
    "metrics": {"loss": 0.7, "lr": 0.01, "seconds_per_step": 0.02, "images_per_second": 400.0, "data_share": 0.1},
    "graph": {
        "graphs": 1,
        "nodes": 12,
        "attractive_edges": 9,
        "rejective_edges": 12,
        "classes_present": 3,
        "nodes_per_class": {"0": 4, "1": 4, "2": 4},
        "components_per_class": {"0": 1, "1": 1, "2": 1},
        "singletons": 0,
        "no_negative": 0,
        "starved": {"1": 7},
        "empty_graphs": 0,
        "degree_mean": 3.5,
        "degree_max": 6,
        "active_triplets": 0.75,
        "d_pos_mean": 0.51,
        "d_neg_mean": 0.9,
        "d_pos_hist": [0, 3, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "d_neg_hist": [0, 0, 2, 4, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "d_hist_max": 2.0,
        "class_pairs": [[0, 1, 5], [0, 2, 4], [1, 2, 3]],
        "patch_size_mean": 30.5,
        "patch_size_min": 12,
        "patch_size_max": 64,
        "padding_share": 0.01,
        "purity_mean": 0.8,
        "overlap_rejections": 3,
        "topped_up": 0,
    },
    "confusion": {
        "matrix": [[30, 2, 1], [4, 50, 0], [0, 3, 9]],
        "classes": ["sky", "road", "Straße"],
        "split": "val",
        "images": 64,
        "predictions": "predictions/segment_00000100",
        "protocol": "plain",
        "networks": 1,
    },
    "image": {
        "kind": "validation",
        "index": 2,
        "name": "0016E5_07959.png",
        "image": "predictions/image_2.png",
        "truth": "predictions/truth_2.png",
        "prediction": "predictions/segment_00000100/2.png",
    },
    "projection": {
        "x": [0.1, -0.2, 0.3, None],
        "y": [0.0, 0.5, -0.25, 0.5],
        "label": [0, 0, 1, 2],
        "positive": [1, 0, 2, 3],
        "negative": [2, 3, 0, -1],
        "order": [3, 1, 0, 2],
    },
    "checkpoint": {"path": "checkpoints/segment_00000100", "seconds": 0.25, "bytes": 123456},
    "warning": {"text": "computed in 2 portions", "splits": 2},
    "supervision": {"splits": ["train", "val"]},
    "heartbeat": {"rss": 2**29},
    "stage_finished": {"seconds": 12.5, "replayed": 3, "replayed_equal": 3, "replayed_worst": 0.0, "reused": True},
    "stage_reused": {"key": "ab12", "run": "3", "saved_seconds": 60.0},
    "data": {"fingerprint": "a1b2c3"},
    "data_cache": {"label": "train", "folder": "/tmp/cache", "bytes": 10**9, "found": True},
    "probe": {"stages": {"segment": {"seconds_per_step": 0.01}}, "peak_bytes": 2**30, "device": "CPU"},
    "error": {"text": "the disk is full", "type": "DataError"},
    "run_finished": {"status": "succeeded"},
}

VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "-1",
    "1e999",
    "\x1b]0;title\x07\u202e\ud800",
    "n" * 100_000,
    -1,
    0,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    10**400,
    0.5,
    -1.5,
    1.797e308,
    -1.797e308,
    5e-324,
    float("nan"),
    float("inf"),
    [],
    [None],
    ["x", 1],
    [[1, 2], [3]],
    [[-1]],
    [[0, 1, 5], [9, 9]],
    [10**30] * 3,
    [2**63 - 1] * 4,
    [-7, 99, 3, 1],
    {},
    {"x": "y"},
    {"-1": 1},
    {"99999999": 1},
    {"0": None},
    {"0": [1]},
    {"a": {"b": {"c": []}}},
)
"""Each of them is no value, or a strange one, of something that an event tells."""


def mutated(values: dict[str, Any], seed: int) -> dict[str, Any]:
    """The values with a few of them, or of what lies in them, replaced by hostile ones. The same for the same seed."""
    chosen = random.Random(seed)
    made = copy.deepcopy(values)
    for _ in range(chosen.randint(1, 3)):
        _replace(made, chosen)
    if chosen.random() < 0.2:
        made[chosen.choice(["loss", "miou", "text", "x" * 600, "\x1b[31m", "道"])] = chosen.choice(VALUES)
    return made


def _replace(holder: Any, chosen: random.Random) -> None:
    """Put a hostile value in the place of one in a table or list, at any depth."""
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return
    key = chosen.choice(keys)
    if isinstance(holder[key], dict | list) and holder[key] and chosen.random() < 0.6:
        _replace(holder[key], chosen)
    else:
        holder[key] = copy.deepcopy(chosen.choice(VALUES))


CELLS: tuple[Any, ...] = (
    None,
    "",
    "x",
    b"\xff\x00",
    -1,
    0,
    2**53,
    2**63 - 1,
    -(2**63),
    1764000000000,
    1e18,
    -1e300,
    1.797e308,
    float("inf"),
    "[",
    "[[[1",
    "[1, null]",
    '{"a": NaN}',
    '{"stage": 3, "step": 1e999}',
    "\x1b]0;title\x07\u202e",
)
"""What a cell of a damaged row may hold: SQLite stores any kind of value in any column."""
CONFIG: dict[str, Any] = {
    "recipe": "shapes_mixmatch",
    "data": {"kind": "shapes"},
    "model": {"backbone": "alexnet"},
    "match": {"margin": 2.1, "images": 4, "patches_per_image": 8, "strategy": "graph"},
    "segment": {"steps": 100, "batch_size": 4},
    "runtime": {"device": "cpu", "threads": 2},
    "reference": {"miou": 61.5, "source": "table 1", "classes": {"sky": 50.0}},
}
TABLES = ("runs", "attempts", "stages", "events", "metrics", "evaluations", "metric_buckets", "transitions")
OF_NO_RUN = ("settings", "needs", "device_samples", "wishes")
_KEYS = frozenset({"id", "run_id", "deleted_at"})


def tell(home: Home, run_id: int, seed: int) -> None:
    """Behind what the newest attempt of a run has told: every kind of event with hostile values, taken over."""
    count("runs with hostile events")
    chosen = random.Random(seed)
    number = max(attempt_numbers(home.run(str(run_id)).root))
    file = home.run(str(run_id)).events(number)
    kinds = chosen.sample(sorted(EVENTS), len(EVENTS))
    database = Database(home)
    try:
        offset = file.stat().st_size
        with file.open("a") as events:
            for place, kind in enumerate(kinds):
                step = chosen.choice([0, 7, 451, 460 + place, 2**53])
                frame = {"v": 1, "seq": 10_000 + place, "t": chosen.choice([0.5, 1.7e9, 9e10]), "kind": kind}
                where = {"stage": chosen.choice(["", "match", "segment", "new"]), "step": step, "global_step": step}
                values = mutated(EVENTS[kind], seed * 100 + place)
                events.write(json.dumps({**frame, **where, "values": values}) + "\n")
        assert ingest_file(database, file, run_id, number, offset) == file.stat().st_size
    finally:
        database.close()


def damage(home: Home, run_id: int, seed: int) -> None:
    """Rows of a run as an older program, another one or a broken disk may have left them."""
    count("runs with hostile rows")
    chosen = random.Random(seed)
    connection = sqlite3.connect(home.database)
    with connection:
        for table in chosen.choices(TABLES, k=6):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in _KEYS]
            key = "id" if table == "runs" else "run_id"
            for column in chosen.sample(columns, 2):
                every, rest = chosen.choice([1, 1, 2, 7]), chosen.randint(0, 6)
                whole = {"values": EVENTS["graph"], "config": CONFIG}.get(column)
                value = json.dumps(mutated(whole, seed)) if whole else chosen.choice(CELLS)
                sql = f'UPDATE OR IGNORE {table} SET "{column}" = ? WHERE {key} = ? AND abs(random()) % ? = ?'
                with suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
                    connection.execute(sql, (value, run_id, every, rest % every))
        _damage_queue(connection, chosen)
    connection.close()


def _damage_queue(connection: sqlite3.Connection, chosen: random.Random) -> None:
    """What no run owns: settings of the queue, what was measured, what devices did, wishes."""
    groups = [row[0] for row in connection.execute("SELECT DISTINCT run_group FROM runs WHERE run_group != ''")]
    settings = [f"{kind}:{group}" for kind in ("limit", "budget", "failfast") for group in groups]
    known = {"key": [*settings, "looked_at", "clock", "odd"], "run_id": [4, 10**9], "id": [None]}
    for table in chosen.sample(OF_NO_RUN, 2):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        values = [chosen.choice(known.get(column, CELLS)) for column in columns]
        marks = ", ".join("?" * len(values))
        with suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)
