"""Whatever the events and rows of one run hold: every verb answers, and the other runs are in the answer."""

from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.store.quick import put_setting
from tests.hostile import damage, tell
from tests.inputs import FUZZ

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]
LIVE = (4, 5, 6)
"""Runs that train, wait or are held."""
HARMS = ("Cc", "Cf", "Cs", "Zl", "Zp")
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
    ("news",),
    ("ls", "--all", "--group", "seed"),
    ("ls", "--all", "--group", "sweep"),
    ("cache",),
    ("recipes",),
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


def harms(shown: str) -> list[str]:
    """Characters that a terminal acts on, or that turn the order of what is read."""
    return [char for char in shown if unicodedata.category(char) in HARMS and char not in "\n\t\u200d"]


def problem(mmtui_: Invoke, argv: tuple[str, ...], *, listed: bool = True) -> str:
    """What is wrong with the answer of a verb; "" if it says what was asked for, or in one sentence why not.

    ``listed``: the run that nobody has touched is in every list.
    """
    try:
        found = mmtui_(*argv)
        if "--json" in argv and not found.code and not {"-h", "--help"} & set(argv):
            found.json()
    except (AssertionError, ValueError) as error:
        return str(error)
    if found.code not in range(8):
        return f"exit code {found.code}"
    sentence = any(line.startswith(("error: ", "Usage: mmtui", "Error: ")) for line in found.err.splitlines())
    if found.code and argv[0] not in ("doctor", "watch", "daemon") and not sentence:
        return f"exit code {found.code}, stderr {found.err!r}"
    # CSV and JSON in a pipe are data, whole; tests/unit/cli/test_csv_on_terminal.py has what a terminal is shown.
    if not {"--csv", "--json", "--jsonl"} & set(argv) and (harm := harms(found.out) + harms(found.err)):
        return f"a terminal acts on {harm}"
    if (
        listed
        and argv[0] == "ls"
        and not {"-F", "--group"} & set(argv)
        and (found.code or "shapes_baseline" not in found.out)
    ):
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
    damage(home, LIVE[seed % len(LIVE)], seed + 1)
    ask_all(mmtui_)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stages SET seconds_per_step = 'x' WHERE run_id IN (4, 5)",
        "UPDATE stages SET total_steps = 'x' WHERE run_id IN (4, 5)",
        "UPDATE stages SET step = x'ff' WHERE run_id IN (4, 5)",
        "UPDATE stages SET name = x'ff' WHERE run_id IN (4, 5) AND position = 0",
        "UPDATE runs SET wanted = 'x' WHERE id = 4",
        "UPDATE runs SET wanted = x'ff' WHERE id = 5",
        "UPDATE runs SET position = 'x' WHERE id = 5",
        "UPDATE runs SET shared_stages = 'x' WHERE id IN (4, 5)",
        "UPDATE runs SET after = '[{}, [], \"x\"]' WHERE id = 5",
        "UPDATE runs SET miou = x'ff', name = x'ff', error = x'ff' WHERE id IN (1, 2)",
    ],
)
def test_damaged_cell_of_one_run_leaves_queue_and_news(home: Home, mmtui_: Invoke, change: str) -> None:
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute(change)
    connection.close()
    line = mmtui_("queue")
    assert line.code in (0, 3) and " 1 running" in line.out, line
    assert "6" in [run["id"] for run in mmtui_("ls", "--json").json()["runs"]]
    assert "while you were away" in mmtui_("news").out


@pytest.mark.parametrize("cell", ["position = 'x'", "priority = 'x'", "position = x'ff'"])
def test_damaged_place_of_one_run_keeps_no_other_from_being_queued_or_moved(
    home: Home, mmtui_: Invoke, cell: str
) -> None:
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute(f"UPDATE runs SET {cell} WHERE id = 5")
    connection.close()
    assert mmtui_("run", "shapes_smoke", "--hold", "-q").out == "7\n"
    assert mmtui_("mv", "7", "--before", "6").code == 0
    assert mmtui_("mv", "6", "--top").code == 0
    refused = mmtui_("mv", "6", "--before", "5")
    assert refused.code == 5 and "damaged" in refused.err and "mmtui doctor --fix" in refused.err


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
