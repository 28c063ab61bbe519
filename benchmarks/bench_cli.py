"""How long the command line takes, as ratios to bare Python and to a minimal Typer program measured in the same run.

    python benchmarks/bench_cli.py [--runs 10000] [--rounds 7]

Wall time of whole processes, stdin closed, output to a pipe, medians; contenders take turns.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmtui.paths import Home
from mmtui.store.db import Database

TYPER = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None:\n    print('x')\napp()\n"


def fill(home: Home, count: int) -> None:
    """A database of so many finished runs, each with 100 points of a metric."""
    Database(home.create()).close()
    connection = sqlite3.connect(home.database)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id"]
    texts = {"gpus": "[]", "tags": "[]", "overrides": "[]", "code": "{}", "after": "[]", "if_failed": "hold"}
    config = '{"model": {"backbone": "vgg16"}, "segment": {"optim": {"lr": 0.01}}}'
    now = time.time()
    for number in range(count):
        values = {"name": f"run{number}", "recipe": "r", "state": "succeeded", "created_at": now - number, **texts}
        values |= {"config": config, "miou": number % 100, "loss": 1.0, "total_steps": 10, "global_step": 10}
        words = ("run_group", "reason", "error", "stage", "note")
        row = [values.get(name, "" if name in words else None if name == "deleted_at" else 0) for name in columns]
        marks = ",".join("?" * len(columns))
        connection.execute(f"INSERT INTO runs ({','.join(columns)}) VALUES ({marks})", row)
    connection.executemany(
        "INSERT INTO metrics VALUES (?, 'loss', ?, 1, 'segment', ?, 0, 1.0)",
        ((run, step, step) for run in range(1, count + 1) for step in range(100)),
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "h")
        fill(home, options.runs)
        environment = {**os.environ, "MMTUI_HOME": str(home.root)}
        python, mmtui = [sys.executable], [sys.executable, "-m", "mmtui"]
        contenders = {
            "python -c pass": [*python, "-c", "pass"],
            "python + argparse + sqlite3": [*python, "-c", "import argparse, sqlite3"],
            "minimal Typer program": [*python, "-c", TYPER],
            "mmtui --version": [*mmtui, "--version"],
            "mmtui ls": [*mmtui, "ls"],
            "mmtui ls --json": [*mmtui, "ls", "--json"],
            "mmtui ls -F 'miou > 50 and lr < 0.1'": [*mmtui, "ls", "-F", "miou > 50 and lr < 0.1"],
            "mmtui best --max miou": [*mmtui, "best", "--max", "miou"],
            "mmtui ls --sort=-miou -c 'last loss'": [*mmtui, "ls", "--sort=-miou", "-c", "last loss"],
            "mmtui show 1": [*mmtui, "show", "1"],
            "mmtui metrics 1 -m loss": [*mmtui, "metrics", "1", "-m", "loss"],
            "mmtui --help": [*mmtui, "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(options.rounds + 1):
            for name, command in contenders.items():
                taken = seconds(command, environment)
                if turn:
                    times[name].append(taken)
        bare, typer = (statistics.median(times[name]) for name in ("python -c pass", "minimal Typer program"))
        print(
            f"{options.runs:,} runs with 100 points each, Python {sys.version.split()[0]}, median of {options.rounds}"
        )
        print(f"{'':<42}{'ms':>8}{'x python':>10}{'x Typer':>9}")
        for name, taken in times.items():
            middle = statistics.median(taken)
            print(f"{name:<42}{1e3 * middle:>8.0f}{middle / bare:>10.1f}{middle / typer:>9.2f}")


if __name__ == "__main__":
    main()
