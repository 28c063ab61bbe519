"""A store in which every screen has something to show; made without a trainer, the same each time but for its clock."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter
from sqlmodel import col, select

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.services.news import LOOKED_AT
from mmtui.store.db import Database
from mmtui.store.quick import put_setting
from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition
from mmtui.store.tables import Attempt
from tests.tui.seed import CLASSES, STAGES, Trace, confusion, graph_values, match_graph, projection_values

HOSTILE = "[red]x[/red] 🚀 中文"
REFERENCE = {"miou": 61.5, "source": "table 1"}
SIZE = (96, 64)
VOID = 255
GPUS = ("GPU-00000000-0000-4000-8000-000000000000", "GPU-00000000-0000-4000-8000-000000000001")


def seed_store(home: Home, now: float) -> None:
    """Runs of all kinds, the newest last: succeeded, failed, a hostile name, training after a restart, queued, held."""
    database = Database(home)
    try:
        sweep = {"group": "margins"}
        finished(database, home, "shapes_baseline", 1, now - 1500, now - 900)
        failed(database, home, "shapes_mixmatch, margin 1.0", 3, now - 900, now - 700, **sweep)
        finished(database, home, HOSTILE, 4, now - 700, now - 100, **sweep)
        training(database, home, "shapes_mixmatch", 2, now - 95, **sweep)
        waiting(database, "shapes_mixmatch, margin 2.0", 5, now - 60, priority=1)
        waiting(database, "shapes_mixmatch, tomorrow", 6, now - 50, held=True)
    finally:
        database.close()
    device_history(home, now)
    put_setting(home, LOOKED_AT, repr(now - 3600))


def new_run(name: str, seed: int, **more: Any) -> NewRun:
    """A run of the recipe for shapes."""
    config = {"recipe": "shapes_mixmatch", "seed": seed, "match": {"margin": 2.1}, "segment": {"lr": 0.02}}
    config |= {"reference": REFERENCE}
    return NewRun(name, "shapes_mixmatch", seed, config, (f"seed={seed}",), {"digest": "0" * 16}, STAGES, (), **more)


def finished(database: Database, home: Home, name: str, seed: int, start: float, end: float, **more: Any) -> None:
    """A run that went through all its stages."""
    run_id = begun(database, new_run(name, seed, **more), start)
    Story(home, run_id, seed, start).tell(1, 0, 450).save(database)
    ended(database, run_id, RunEvent.EXIT_OK, end)


def failed(database: Database, home: Home, name: str, seed: int, start: float, end: float, **more: Any) -> None:
    """A run that ended with an error."""
    run_id = begun(database, new_run(name, seed, **more), start)
    Story(home, run_id, seed, start).tell(1, 0, 60).save(database)
    ended(database, run_id, RunEvent.EXIT_ERROR, end, error="loss is not finite at step 60: lower match.lr")


def training(database: Database, home: Home, name: str, seed: int, start: float, **more: Any) -> None:
    """A run whose first attempt was lost after step 290; the second went on from step 250 and still trains."""
    run_id = begun(database, new_run(name, seed, **more), start)
    story = Story(home, run_id, seed, start).tell(1, 0, 290).save(database)
    ended(database, run_id, RunEvent.VANISHED, start + 40)
    with database.write() as session:
        transition(session, run_id, RunEvent.REQUEUE, ended_at=None)
        begin_attempt(session, run_id, ["cpu:0"], "box")
    story.tell(2, 250, 380).save(database)
    clock(home, run_id, start)


def waiting(database: Database, name: str, seed: int, now: float, **more: Any) -> None:
    """A run that has not been started."""
    with database.write() as session:
        insert_run(session, new_run(name, seed, **more), now)


def begun(database: Database, new: NewRun, start: float) -> int:
    """A run whose first attempt begins."""
    with database.write() as session:
        run_id = insert_run(session, new, start)
        begin_attempt(session, run_id, ["cpu:0"], "box")
    return run_id


def ended(database: Database, run_id: int, event: RunEvent, end: float, **more: Any) -> None:
    """The attempt is over."""
    with database.write() as session:
        transition(session, run_id, event, ended_at=end, **more)
        attempt = session.exec(select(Attempt).where(Attempt.run_id == run_id, col(Attempt.ended_at).is_(None))).one()
        attempt.ended_at, attempt.outcome, attempt.exit_code = end, event.value, int(event is RunEvent.EXIT_ERROR)
    clock(database.home, run_id, end - 95)


def clock(home: Home, run_id: int, start: float) -> None:
    """What is stamped with the time of day while seeding gets the times of the story."""
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET started_at = ? WHERE id = ?", [start, run_id])
    connection.execute("UPDATE attempts SET spawned_at = ? + 40 * (number - 1) WHERE run_id = ?", [start, run_id])
    connection.execute("UPDATE transitions SET t = ? + 0.01 * id WHERE run_id = ?", [start, run_id])
    connection.commit()
    connection.close()


class Story:
    """Events of a run and the files that go with them; a second attempt goes on in the numbering of the first."""

    def __init__(self, home: Home, run_id: int, seed: int, start: float) -> None:
        self.root, self.run_id, self.seed, self.t, self.seq = home.run(str(run_id)), run_id, seed, start, 0
        self.scenes = [Scene(number) for number in range(3)]

    def tell(self, attempt: int, first: int, until: int) -> Story:
        """Everything behind global step ``first`` up to ``until``."""
        self.trace, self.attempt = Trace(self.root.events(attempt), self.t), attempt
        self.trace.seq = self.seq
        stages = [list(item) for item in STAGES]
        started = {"attempt": attempt, "pid": 1, "host": "box", "device": "CPU", "stages": stages}
        stage = "segment" if first > STAGES[0][1] else ""
        resumed = {"resumed_stage": stage, "resumed_step": max(first - STAGES[0][1], 0), "resumed_global_step": first}
        self.trace.emit("run_started", "", 0, first, {**started, **resumed, "classes": list(CLASSES)})
        self._stage("match", 0, first, until)
        self._stage("segment", STAGES[0][1], first, until)
        if until >= STAGES[0][1] + STAGES[1][1]:
            self.trace.emit("stage_started", "evaluate", 0, 450, {"total_steps": 1, "offset": 450, "resumed_step": 0})
            self._evaluate("evaluate", 1, 451, 1.0)
            self.trace.emit("stage_finished", "evaluate", 1, 451, {"seconds": 2.0})
            self.trace.emit("run_finished", "", 0, 451, {"status": "succeeded"})
        self.t, self.seq = self.trace.t, self.trace.seq
        return self

    def save(self, database: Database) -> Story:
        """Write the attempt's event file and what the trainer printed, and take the events over."""
        self.trace.save()
        lines = [f"line {number} of the trainer, attempt {self.attempt}\n" for number in range(60)]
        self.root.log(self.attempt).write_text("".join(lines))
        ingest_file(database, self.root.events(self.attempt), self.run_id, self.attempt, 0)
        return self

    def _stage(self, stage: str, offset: int, first: int, until: int) -> None:
        total = dict(STAGES)[stage]
        if until <= offset or first >= offset + total:
            return
        resumed = max(first - offset, 0)
        self.trace.emit(
            "stage_started", stage, 0, first, {"total_steps": total, "offset": offset, "resumed_step": resumed}
        )
        self.trace.emit("stage_data", stage, 0, first, {"images_per_step": 10, "images_per_epoch": 240})
        for step in range(resumed + 5, min(until - offset, total) + 1, 5):
            self._step(stage, step, offset + step)
        if until >= offset + total:
            self.trace.emit("stage_finished", stage, total, offset + total, {"seconds": 10.0})

    def _step(self, stage: str, step: int, at: int) -> None:
        rng = random.Random(1000 * self.seed + at + 7 * self.attempt)
        level = 0.7 if stage == "match" else 0.15
        loss = level + 1.3 * math.exp(-step / 60) + rng.gauss(0, 0.04)
        rate = 0.02 * (1 - step / 400) ** 0.9
        speed = {"seconds_per_step": 0.05, "images_per_second": 320.0}
        self.trace.emit("metrics", stage, step, at, {"loss": loss, "lr": rate, **speed})
        if stage == "match":
            self._graph(rng, step, at)
        elif step % 50 == 0:
            self._evaluate(stage, step, at, step / 300)

    def _graph(self, rng: random.Random, step: int, at: int) -> None:
        graph, progress = match_graph(rng, len(CLASSES) - 1, "graph"), step / STAGES[0][1]
        self.trace.emit("graph", "match", step, at, graph_values(rng, graph, progress))
        if step % 50 == 0:
            self.trace.emit("projection", "match", step, at, projection_values(rng, graph, progress))

    def _evaluate(self, stage: str, step: int, at: int, quality: float) -> None:
        rng = random.Random(self.seed + at)
        matrix = confusion(rng, quality)
        self.trace.emit("confusion", stage, step, at, {"matrix": matrix, "classes": list(CLASSES), "split": "val"})
        right = sum(matrix[index][index] for index in range(len(matrix)))
        ious = [
            row[index] / (sum(row) + sum(other[index] for other in matrix) - row[index])
            for index, row in enumerate(matrix)
            if sum(row)
        ]
        values = {"miou": 100 * sum(ious) / len(ious), "pixel_accuracy": 100 * right / sum(map(sum, matrix))}
        self.trace.emit("metrics", stage, step, at, values)
        for scene in self.scenes:
            names = scene.save(self.root.root, f"{stage}_{step:08d}", quality, rng)
            event = {"index": scene.number, "name": f"val_{scene.number:04d}", "kind": "validation", **names}
            self.trace.emit("image", stage, step, at, event)


class Scene:
    """A small image with its classes; what a network sees of it gets better with its quality."""

    def __init__(self, number: int) -> None:
        self.number = number
        rng = random.Random(number)
        self.objects = []
        for index in rng.sample(range(1, 8), 3):
            x, y, half = rng.randint(16, SIZE[0] - 16), rng.randint(14, SIZE[1] - 14), rng.randint(9, 15)
            self.objects.append((index, x, y, half))

    def truth(self) -> Image.Image:
        """Class indices, with a border of void around every object."""
        picture = Image.new("P", SIZE, 0)
        draw = ImageDraw.Draw(picture)
        for index, x, y, half in self.objects:
            draw.ellipse((x - half - 1, y - half - 1, x + half + 1, y + half + 1), fill=VOID)
            draw.ellipse((x - half, y - half, x + half, y + half), fill=index)
        picture.putpalette(palette())
        return picture

    def prediction(self, quality: float, rng: random.Random) -> Image.Image:
        """The same, a bit off, with a patch of another class."""
        picture = Image.new("P", SIZE, 0)
        draw = ImageDraw.Draw(picture)
        for index, x, y, half in self.objects:
            off = round(6 * (1 - quality)) + 1
            x, y = x + rng.randint(-off, off), y + rng.randint(-off, off)
            draw.ellipse((x - half, y - half, x + half, y + half), fill=index)
            if rng.random() > quality:
                draw.rectangle((x, y, x + half, y + half), fill=index % 7 + 1)
        picture.putpalette(palette())
        return picture

    def photo(self) -> Image.Image:
        """What a camera would see: a sky, a floor, shaded balls."""
        picture = Image.new("RGB", SIZE)
        draw = ImageDraw.Draw(picture)
        for y in range(SIZE[1]):
            sky = (150 - y, 180 - y // 2, 215) if y < 40 else (60 + y, 90 + y // 2, 50)
            draw.line((0, y, SIZE[0], y), fill=sky)
        for index, x, y, half in self.objects:
            red, green, blue = 60 + 23 * index, 240 - 25 * index, 90 + (index * 67) % 150
            for inner in range(half, 0, -1):
                light = 1.25 - 0.75 * inner / half
                color = tuple(min(round(value * light), 255) for value in (red, green, blue))
                left, top = x - inner - (half - inner) // 3, y - inner - (half - inner) // 3
                draw.ellipse((left, top, left + 2 * inner, top + 2 * inner), fill=color)
        return picture.filter(ImageFilter.GaussianBlur(0.6))

    def save(self, root: Path, moment: str, quality: float, rng: random.Random) -> dict[str, str]:
        """Write the files of an evaluation; their names by what they are."""
        folder = root / "images"
        folder.mkdir(parents=True, exist_ok=True)
        names = {kind: f"images/{self.number:03d}_{kind}.png" for kind in ("image", "truth")}
        names["prediction"] = f"images/{self.number:03d}_prediction_{moment}.png"
        self.photo().save(root / names["image"])
        self.truth().save(root / names["truth"])
        self.prediction(quality, rng).save(root / names["prediction"])
        return names


def palette() -> list[int]:
    """PASCAL VOC's colours."""
    flat = []
    for index in range(256):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        flat += color
    return flat


def device_history(home: Home, now: float) -> None:
    """Samples of the last half hour, as the supervisor takes them while runs train. Simulated, as the devices are."""
    connection = sqlite3.connect(home.database)
    rng = random.Random(0)
    rows: list[Sequence[float | str]] = []
    for number in range(90):
        t = now - 1800 + 20 * number
        wave = 0.5 + 0.5 * math.sin(number / 9)
        rows.append([t, "host", 40 + 50 * wave, 9 * 2**30, 64 * 2**30, 0, 0])
        for device, uuid in enumerate(GPUS):
            use = (92 if device == 0 else 35) * wave + rng.random() * 5
            rows.append([t, uuid, use, int((10 + 50 * wave) * 2**30), 80 * 2**30, 100 + 5 * use, 35 + use / 3])
    connection.executemany(
        "INSERT INTO device_samples (t, device, utilisation, memory_used, memory_total, power_watts, temperature)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    connection.commit()
    connection.close()


def write_recording(path: Path) -> None:
    """Two GPUs for ``MMTUI_NVML_RECORDING``; every screen that shows them says that they are simulated."""
    devices = []
    for uuid, use, used, watts, heat in ((GPUS[0], 97, 61, 652_000, 62), (GPUS[1], 31, 12, 210_000, 44)):
        memory = {"total": 80 * 2**30, "used": used * 2**30, "free": (80 - used) * 2**30}
        devices.append(
            {
                "nvmlDeviceGetUUID": uuid,
                "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
                "nvmlDeviceGetMemoryInfo": memory,
                "nvmlDeviceGetUtilizationRates": {"gpu": use, "memory": use // 2},
                "nvmlDeviceGetPowerUsage": watts,
                "nvmlDeviceGetTemperature": heat,
                "nvmlDeviceGetMigMode": [0, 0],
                "nvmlDeviceGetComputeRunningProcesses": [{"pid": 2000001, "usedGpuMemory": used * 2**30}],
                "nvmlDeviceGetGraphicsRunningProcesses": [],
            }
        )
    recording = {
        "format": 1,
        "about": "two GPUs at work",
        "users": {"2000001": "ada"},
        "frames": [{"devices": devices}],
    }
    path.write_text(json.dumps(recording))
