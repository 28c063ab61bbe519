"""What commit cce7257 has made is opened by today's version as that one opened it (``make_fixtures.py`` says how it was
made). Every key and value of an old answer must be there still; what differs on purpose stands in ``DIFFERENCES``."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui import settings
from mmtui.paths import Home
from mmtui.services.recipes import resolve
from mmtui.store.schema import HEAD, schema_revision
from tests.compat.asking import FINISHED, HOME, QUESTIONS, TAKEN_IN, TRASHED, lost, masked, name_of
from tests.compat.conftest import Ask, stored, unpack

_OOM = "runtime.halve_on_oom has three values; true and false of older recipes mean always and never"
DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    ("^resolve |^taken in", r"\.runtime\.halve_on_oom was (True, is 'always'|False, is 'never')$", _OOM),
    ("^recipes ", r"\.runtime\.halve_on_oom\.(default|recipe|value) was (True, is 'always'|False, is 'never')$", _OOM),
    ("^recipes ", r"\.runtime\.halve_on_oom\.(choices|type) was ", _OOM),
    ("^recipes ", r"\.help was ", "what a key means is said better, or said of more"),
    (
        "^recipes ",
        r"\.model\.(backbone|input|head)\.(choices|type) was .*(alexnet_torchvision|rgb255|upernet)",
        "further values",
    ),
    ("^recipes ", r"\.match\.loss\.(choices|type) was ", "supcon is called info_nce, and still read"),
    ("^recipes ", r"\.runtime\.(threads|memory_budget_gib)\.(high was None|type was)", "slips are refused"),
    (
        "^report --json",
        r"^\.answer\.rows was ",
        "every number of the paper's tables is printed, not only what has a recipe",
    ),
    ("^taken in", r"\.created_at was |\.attempts\[0\]\.(started|ended)_at was ", "the moment at which it is taken in"),
)
"""(command line, difference, why it is meant), the first two as regular expressions."""
IMPORTED = "14"
REBUILT = "".join(
    f"{run} {state}\n"
    for run, state in {
        **dict.fromkeys(("1", "2", "3", "4"), "succeeded"),
        "5": "failed",
        "6": "succeeded",
        **dict.fromkeys(("7", "8", "9"), "interrupted"),
        **dict.fromkeys(("11", "12", "13", "15", "16"), "held"),
    }.items()
)
REVISIONS = ("0001", "0002", "0003", "0004")
KEPT_SINCE_FIRST = ("ls -a --json", "metrics 1 -m loss --json", "metrics 6 -m loss --json", "classes 3 --json")
"""Questions that the first schema could answer."""


def unmeant(question: str, differences: Iterable[str]) -> list[str]:
    """Differences that no entry of the table means."""
    meant = [what for where, what, _ in DIFFERENCES if re.search(where, question)]
    return [text for text in differences if not any(re.search(what, text) for what in meant)]


def answers() -> dict[str, Any]:
    return dict(stored("answers.json"))


def integrity(home: Home) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home.database)) as connection:
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        return [*connection.execute("PRAGMA integrity_check").fetchall(), *broken]


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", QUESTIONS, ids=name_of)
def test_answer_tells_what_it_told(looked_at: Home, ask: Ask, question: tuple[str, ...]) -> None:
    name = name_of(question)
    differences = lost(answers()[name], ask(looked_at, *question))
    assert not unmeant(name, differences), "\n".join(unmeant(name, differences))


def test_every_meant_difference_is_one(looked_at: Home, ask: Ask) -> None:
    before = answers()
    for where, what, why in (one for one in DIFFERENCES if not one[0].startswith(("^resolve", "^taken"))):
        asked = [question for question in QUESTIONS if re.search(where, name_of(question))]
        found = [text for q in asked for text in lost(before[name_of(q)], ask(looked_at, *q))]
        assert why and any(re.search(what, text) for text in found), (where, what)


def test_every_kept_answer_is_compared() -> None:
    assert set(answers()) == {name_of(question) for question in QUESTIONS}


def test_doctor_finds_nothing_wrong_with_what_is_kept(opened: Home, ask: Ask) -> None:
    checks = {check["name"]: check for check in ask(opened, "doctor", "--json")["answer"]["checks"]}
    for name in ("home", "settings", "database", "folders", "files", "rows", "recipes"):
        assert checks[name]["ok"] is True, checks[name]


def test_settings_are_those_of_the_file(opened: Home) -> None:
    found = settings.load(opened.config)
    assert (found.color, found.ascii, found.mouse, found.theme) == ("never", True, False, "colorblind")
    assert (found.notify, found.pictures, found.rows) == ("osc9", "sixel", 7)
    assert found.keys == ("queue=Q,f4", "filter=?", "help=f1", "cancel=X", "new=N,insert")
    assert found.on_finish[0] == found.on_failure[0] == "/bin/sh"


@pytest.mark.parametrize("name", ["mine", "mine_wide", "mine_shipped"])
def test_recipe_of_the_user_resolves_as_before(opened: Home, name: str) -> None:
    now = resolve(name, (), opened).model_dump(mode="json")
    assert unmeant(f"resolve {name}", lost(stored("recipes.json")[name], now)) == []


# ---- writing -------------------------------------------------------------------------------------------------------


def test_run_comes_back_from_the_trash(opened: Home, ask: Ask) -> None:
    assert ask(opened, "restore", TRASHED)["code"] == 0
    now = ask(opened, "show", TRASHED, "--json")
    assert unmeant("show", lost(stored("restored.json"), now)) == []
    assert (opened.run(TRASHED).checkpoints / "segment" / "final" / "model.safetensors").is_file()


def test_capsule_is_taken_in(tmp_path: Path, capsule: Path, ask: Ask) -> None:
    home = Home(tmp_path / "fresh")
    assert ask(home, "import", str(capsule), "-q") == {"code": 0, "answer": "1\n"}
    before = stored("taken_in.json")
    found = {name_of(words): ask(home, *words)["answer"] for words in TAKEN_IN}
    assert unmeant("taken in", lost(before, found)) == []


def test_changes_of_waiting_runs_and_words_are_taken(opened: Home, ask: Ask) -> None:
    for words in (
        ("edit", "13", "segment.steps=12"),
        ("tag", "1", "--add", "today"),
        ("note", "11", "seen"),
        ("priority", "9", "12"),
        ("mv", "13", "--top"),
        ("view", "lost", "-F", "state = failed"),
        ("queue", "--limit", "mine=2"),
    ):
        answer = ask(opened, *words)
        assert answer["code"] == 0, (words, answer)
    assert ask(opened, "show", "13", "--json")["answer"]["config"]["segment"]["steps"] == 12
    assert "today" in ask(opened, "show", "1", "--json")["answer"]["tags"]
    assert ask(opened, "queue", "--json")["answer"]["waiting"][0] == "13"
    assert integrity(opened) == [("ok",)]


def test_lost_database_is_made_again_from_the_folders(opened: Home, ask: Ask) -> None:
    for file in opened.root.glob("mmtui.db*"):
        file.unlink()
    # 1, then as now: the folder of what came from elsewhere does not tell how it was made.
    assert ask(opened, "doctor", "--rebuild") == {"code": 1, "answer": REBUILT}
    told = {run["id"]: run for run in ask(opened, "ls", "-a", "--json")["answer"]["runs"]}
    for run in answers()["ls -a --json"]["answer"]["runs"]:
        keys = ("name", "recipe", "seed", "overrides", "config", "metrics") if run["id"] != IMPORTED else ()
        assert lost({key: run[key] for key in keys if key in run}, told.get(run["id"], {})) == [], run["id"]


# ---- older schemas -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("older.tar.xz", tmp_path_factory.mktemp("compat") / "older")


def buckets(home: Home) -> int:
    with closing(sqlite3.connect(home.database)) as connection:
        return int(connection.execute("SELECT count(*) FROM metric_buckets").fetchone()[0])


@pytest.mark.parametrize("revision", REVISIONS)
def test_database_of_an_older_schema_is_migrated(opened: Home, older: Path, ask: Ask, revision: str) -> None:
    whole = buckets(opened)
    for file in opened.root.glob("mmtui.db*"):
        file.unlink()
    shutil.copy(older / f"{revision}.db", opened.database)
    assert schema_revision(opened.database) == revision
    assert ask(opened, "tag", FINISHED, "--add", "pinned")["code"] == 0
    assert schema_revision(opened.database) == HEAD and integrity(opened) == [("ok",)] and buckets(opened) == whole > 0
    assert len(list(opened.backups.glob("before-*.db"))) == 1
    for question in QUESTIONS:
        name = name_of(question)
        if name in KEPT_SINCE_FIRST:
            assert unmeant(name, lost(answers()[name], ask(opened, *question))) == [], name


# ---- the comparison itself -----------------------------------------------------------------------------------------


def test_comparison_sees_what_is_gone_or_differs_and_takes_new_keys() -> None:
    before = {"a": [1, {"b": 2.5}], "c": None}
    assert lost(before, {"a": [1, {"b": 2.5, "new": 1}], "c": None, "new": 1}) == []
    assert lost(before, {"a": [1, {"b": 2.5}]}) == [".c is gone"]
    assert lost(before, {"a": [1, {"b": 2.6}], "c": None}) == [".a[1].b was 2.5, is 2.6"]
    assert lost([1], [1, 2]) != [] and lost({"a": 1}, {"a": True}) != [] and lost({"a": 1}, {"a": 1.0}) != []


def test_mask_hides_the_clock_and_the_place_and_nothing_else() -> None:
    value = {"eta_seconds": 4, "path": "/x/home/runs", "reason": "starts in 3d4h", "loss": 1.5}
    hidden = {"eta_seconds": "(masked)", "path": f"{HOME}/runs", "reason": "starts in (masked)", "loss": 1.5}
    assert masked(value, "/x/home") == hidden
