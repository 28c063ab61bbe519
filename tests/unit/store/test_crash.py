"""Whatever is interrupted, at whatever step: rows and files say the same, or ``doctor --fix`` makes them."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from mmtui.paths import Home
from mmtui.services import register, runs
from mmtui.store.db import Database
from mmtui.store.schema import HEAD, schema_revision
from tests import crashpoints, crashworld
from tests.compat.conftest import unpack
from tests.crashtrial import DEEDS, Trial, make_world, rows_of

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.processes  # each fault is a process of its own


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_world(tmp_path_factory.mktemp("crash") / "home")


@pytest.mark.parametrize("name", DEEDS)
def test_interrupted_at_any_step_nothing_is_lost_and_rows_and_files_agree(
    name: str, world: Home, tmp_path: Path
) -> None:
    trial = Trial(world, DEEDS[name], tmp_path / "home")
    faults, states, seen = list[str](), set[str](), list(trial.outcomes())
    for fault, step, outcome in seen:
        states.add(outcome.state)
        if outcome.left or outcome.state not in ("before", "after", "between"):
            faults.append(f"{fault} at {step}: {outcome}")
        if fault == crashpoints.KILL and outcome.ended != crashpoints.KILL:
            faults.append(f"not killed at {step}: {outcome.ended}")
        if fault == crashpoints.FULL and not outcome.ended.startswith(("UnreachableError: ", "done")):
            faults.append(f"a full disk at {step} is no sentence: {outcome.ended}")
    assert not faults, "\n".join(faults)
    assert "before" in states or trial.before == trial.after
    assert _without_counts(rows_of(name, seen)) == _without_counts(_documented(name)), (
        "docs/crash-safety.md says otherwise; its table is made by: python -m tests.crashtrial"
    )


def _documented(name: str) -> list[str]:
    table = (ROOT / "docs" / "crash-safety.md").read_text(encoding="utf-8").splitlines()
    return [line for line in table if line.startswith(f"| {name} |")]


def _without_counts(rows: list[str]) -> list[str]:
    """The rows without how many steps each stands for: that grows with the number of files of the engine."""
    return [re.sub(r"\| \d+ \|", "|", row) for row in rows]


def _open(home: Home) -> None:
    Database(home).close()


def test_migration_interrupted_at_any_step_is_done_by_the_next_command(tmp_path: Path) -> None:
    older = unpack("older.tar.xz", tmp_path / "older") / "0002.db"

    def fresh(name: str) -> Home:
        home = Home(tmp_path / name).create()
        shutil.copyfile(older, home.database)
        return home

    whole = fresh("whole")
    steps = crashpoints.steps_of(partial(_open, whole), whole.root)
    assert schema_revision(whole.database) == HEAD and "commit" in steps
    expected = runs.list_runs(whole)
    assert expected
    for number in range(1, len(steps) + 1):
        for fault in (crashpoints.KILL, crashpoints.FULL):
            home = fresh(f"{fault} {number}")
            ended = crashpoints.end_at(partial(_open, home), home.root, fault, number)
            assert ended.startswith((crashpoints.KILL, "UnreachableError: ", "done")), (steps[number - 1], ended)
            assert schema_revision(home.database) in ("0002", HEAD)
            assert runs.list_runs(home) == expected, (fault, steps[number - 1])
            assert schema_revision(home.database) == HEAD


def _rebuild(home: Home) -> None:
    list(register.rebuild(home))


def test_rebuilding_interrupted_at_any_step_is_done_by_the_next_one(world: Home, tmp_path: Path) -> None:
    def fresh(name: str) -> Home:
        home = Home(Path(shutil.copytree(world.root, tmp_path / name)))
        for file in home.root.glob("mmtui.db*"):
            file.unlink()
        return home

    whole = fresh("whole")
    steps = crashpoints.steps_of(partial(_rebuild, whole), whole.root)
    expected = crashworld.picture(whole)
    assert crashworld.FINISHED in expected and steps.count("commit") > len(crashworld.rows(whole))
    for number in (number for number, step in enumerate(steps, 1) if step == "commit"):
        home = fresh(str(number))
        how = crashpoints.end_at(partial(_rebuild, home), home.root, crashpoints.KILL, number, "commit".__eq__)
        assert how == crashpoints.KILL
        _rebuild(home)
        assert crashworld.picture(home) == expected, (number, steps[number - 1])
        shutil.rmtree(home.root)
