"""Whatever the events and rows of one run hold: every verb answers, and the other runs are in the answer."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.store.quick import put_setting
from tests.hostile import FUZZ, damage, tell

Invoke = Callable[..., Any]
VICTIM, OTHER = "3", "1"
SEEDS = range(int(8 * FUZZ))
OF_ALL = (
    ("ls", "--all"),
    ("ls", "--all", "--json"),
    ("ls", "--all", "--csv"),
    ("ls", "--all", "-c", "loss,miou,match.margin,max seconds_per_step,started,took"),
    ("ls", "--all", "--sort", "-miou"),
    ("ls", "--all", "-F", "max loss > 0"),
    ("best", "--max", "miou"),
    ("queue",),
    ("queue", "--json"),
    ("gpu", "--run", VICTIM),
    ("compare", OTHER, VICTIM),
    ("compare", OTHER, VICTIM, "--json"),
    ("diff", OTHER, VICTIM),
    ("diff", OTHER, VICTIM, "--json"),
    ("report", OTHER, VICTIM),
    ("report", OTHER, VICTIM, "--latex"),
    ("report", "paper"),
    ("query", "SELECT * FROM live_runs"),
    ("query", "SELECT * FROM live_metrics LIMIT 50", "--json"),
    ("query", "SELECT * FROM class_iou LIMIT 50", "--csv"),
    ("doctor",),
)
OF_ONE = (
    ("show", VICTIM),
    ("show", VICTIM, "--json"),
    ("classes", VICTIM),
    ("classes", VICTIM, "--json"),
    ("metrics", VICTIM),
    ("metrics", VICTIM, "-m", "loss"),
    ("metrics", VICTIM, "-m", "loss", "--json"),
    ("logs", VICTIM),
    ("logs", VICTIM, "--step", "100"),
    ("watch", VICTIM),
    ("report", VICTIM, "--html", "report.html"),
    ("figures", VICTIM, "-o", "figures"),
    ("export", VICTIM, "--to", "csv", "-o", "out.csv"),
    ("export", VICTIM, "--to", "jsonl", "-o", "out.jsonl"),
    ("export", VICTIM, "--to", "parquet", "-o", "out.parquet"),
    ("export", VICTIM, "--to", "tensorboard", "-o", "out.tb"),
    ("export", VICTIM, "--to", "capsule", "-o", "out.tar"),
    ("tag", VICTIM, "--add", "odd"),
    ("note", VICTIM, "odd"),
    ("rm", VICTIM),
    ("restore", VICTIM),
)


@pytest.fixture
def home(seeded_copy: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    put_setting(seeded_copy, "closed", "no run is to start in this test")
    monkeypatch.chdir(tmp_path)
    return seeded_copy


def problem(mmtui_: Invoke, argv: tuple[str, ...]) -> str:
    """What is wrong with the answer of a verb; "" if it says what was asked for, or in one sentence why not."""
    try:
        found = mmtui_(*argv)
        if "--json" in argv and not found.code:
            found.json()
    except (AssertionError, ValueError) as error:
        return str(error)
    if found.code not in range(8):
        return f"exit code {found.code}"
    if found.code and argv[0] not in ("doctor", "watch") and not found.err.startswith("error: "):
        return f"exit code {found.code}, stderr {found.err!r}"
    if [c for c in found.out if ord(c) < 32 and c not in "\n\r"]:
        return "control characters"
    if argv[0] == "ls" and "-F" not in argv and (found.code or "shapes_baseline" not in found.out):
        return f"the other run is not listed: {found.err}"
    return ""


def ask_all(mmtui_: Invoke) -> None:
    """Every verb answers."""
    found = {argv: problem(mmtui_, argv) for argv in (*OF_ALL, *OF_ONE)}
    told = [f"mmtui {' '.join(argv)}: {text}" for argv, text in found.items() if text]
    if told:
        pytest.fail("\n".join(told))


@pytest.mark.parametrize("seed", SEEDS)
def test_verbs_answer_whatever_a_trainer_tells(home: Home, mmtui_: Invoke, seed: int) -> None:
    tell(home, int(VICTIM), seed)
    ask_all(mmtui_)


@pytest.mark.parametrize("seed", SEEDS)
def test_verbs_answer_whatever_the_rows_hold(home: Home, mmtui_: Invoke, seed: int) -> None:
    damage(home, int(VICTIM), seed)
    ask_all(mmtui_)


def test_run_with_times_beyond_the_calendar_is_listed_with_the_others(home: Home, mmtui_: Invoke) -> None:
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET created_at = 1764000000000, started_at = 1764000000000 WHERE id = 3")
    connection.close()
    found = {run["id"]: run for run in mmtui_("ls", "--all", "--json").json()["runs"]}
    assert set(found) >= {OTHER, VICTIM}
    assert found[VICTIM]["started_at"] is None
    assert found[OTHER]["started_at"]


@pytest.mark.processes
def test_figures_of_other_runs_are_drawn_where_a_picture_of_one_is_a_pipe(
    home: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    for picture in (home.run(VICTIM).root / "images").glob("*_prediction_*.png"):
        picture.unlink()
        os.mkfifo(picture)
    found = mmtui_("figures", OTHER, VICTIM, "-o", str(tmp_path / "f"))
    made = {Path(line).name for line in found.out.splitlines()}
    assert found.code == 1
    assert found.err.startswith(f"error: run {VICTIM}: ")
    assert "is no file" in found.err
    assert f"run {OTHER}:" not in found.err
    assert made >= {f"predictions_{OTHER}.png", f"embeddings_{OTHER}.png", "loss_match.svg", "miou.svg"}
    assert all((tmp_path / "f" / name).stat().st_size > 100 for name in made)
