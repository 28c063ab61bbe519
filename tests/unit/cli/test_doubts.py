"""What makes a score doubtful stands beside it: in ls, show, classes, watch and best, and on the screen."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui.cli import watching
from mmtui.domain.filters import is_score
from mmtui.domain.views import doubtful
from mmtui.paths import Home
from mmtui.services import demo, news, runs
from mmtui.services.grouping import Folds, Group, grouped
from mmtui.tui import notify
from mmtui.tui.model import Wanted
from mmtui.tui.pages import compare
from mmtui.tui.rows import Rows
from mmtui.tui.widgets import panels

Invoke = Callable[..., Any]
VOID = "62.5 % of the pixels of the train split are void: nothing is learned from them"
SHARED = "1 of 4 pictures of the val split are in the train split too, the score is too good: \x1b[2J.png"


def event(kind: str, values: dict[str, Any], stage: str = "") -> dict[str, Any]:
    return {"v": 1, "kind": kind, "stage": stage, "step": 1, "global_step": 1, "values": values}


def import_run(mmtui_: Invoke, folder: Path, *warnings: dict[str, Any], diagonal: int = 90) -> None:
    """A run of these warnings and one evaluation."""
    folder.mkdir()
    lines = [
        event("run_started", {"stages": [["evaluate", 1]]}),
        *(event("warning", values) for values in warnings),
        event("confusion", {"matrix": [[diagonal, 10], [10, diagonal]], "classes": ["sky", "road"]}, "evaluate"),
    ]
    texts = [json.dumps({**line, "seq": seq, "t": 1000.0 + seq}) for seq, line in enumerate(lines, 1)]
    (folder / "events.jsonl").write_text("".join(f"{text}\n" for text in texts))
    assert mmtui_("import", str(folder / "events.jsonl")).code == 0


@pytest.fixture
def doubted(home: Home, mmtui_: Invoke, tmp_path: Path) -> Home:
    """Run 1 has two doubts, run 2 a warning about something else."""
    doubts = [{"text": text, "about": "supervision"} for text in (VOID, SHARED, VOID)]
    import_run(mmtui_, tmp_path / "first", *doubts)
    import_run(mmtui_, tmp_path / "second", {"text": "a slow disk"}, {"text": "odd", "about": "weather"}, diagonal=40)
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("UPDATE runs SET ended_at = ?", [time.time() - 60])
        connection.commit()
    return home


def test_doubts_stand_beside_the_score(doubted: Home, mmtui_: Invoke) -> None:
    listed = mmtui_("ls").out.splitlines()
    first = next(line for line in listed if "first" in line)
    assert "81.8!" in first and f"doubtful: {VOID}"[:60] in first
    second = next(line for line in listed if "second" in line)
    assert "66.7 " in second and "!" not in second and "doubtful" not in second
    shown = mmtui_("show", "1").out
    assert f"doubtful {VOID}" in shown and "mIoU     81.82!" in shown and "\x1b" not in shown
    assert VOID not in shown.partition("files")[2], "said once"
    assert "warning: a slow disk" in mmtui_("show", "2").out
    classes = mmtui_("classes", "1").out
    assert f"doubtful: {VOID}" in classes and "doubtful: 1 of 4 pictures" in classes
    assert "doubtful" not in mmtui_("classes", "2").out
    best = mmtui_("best", "--max", "miou")
    assert best.out == "1\n" and f"warning: doubtful: {VOID}" in best.err
    watched = watching.screen(doubted, runs.get_run(doubted, "1"), 200)
    assert f"doubtful: {VOID}" in watched and any(line.endswith("mIoU 81.8!") for line in watched)
    line = demo.progress_line(runs.get_run(doubted, "1"))
    assert "mIoU 81.8!" in line and doubtful((VOID, SHARED)) in line
    compared = mmtui_("compare", "1", "2")
    assert f"warning: run 1 is doubtful: {VOID} (and 1 more)" in compared.err and "run 2 is" not in compared.err


def test_every_list_and_report_marks_the_score(doubted: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    for words in (["diff", "1", "2"], ["compare", "1", "2"], ["compare", "1", "2", "--md"], ["ls", "--md"],
                  ["ls", "-c", "miou,max miou,loss"], ["report", "1", "2"],
                  ["report", "1", "2", "--latex"], ["classes", "1", "--vs", "2"], ["classes", "2", "--vs", "1"],
                  ["news", "--since", "9999d"]):  # fmt: skip
        out = mmtui_(*words)
        assert re.search(r"\b81\.8\d*!", out.out), (words, out.out)
        assert VOID[:40] in out.out.replace("\\%", "%") + out.err or words[0] == "ls", words
        assert not re.search(r"\b66\.\d+!", out.out) and "\x1b" not in out.out, words
    folded = mmtui_("ls", "--group", "seed")
    assert "74.242!" in folded.out and f"imported is doubtful: {VOID}" in folded.err
    page = tmp_path / "r.html"
    assert mmtui_("report", "1", "2", "--html", str(page)).code == 0
    assert "81.82!" in page.read_text() and VOID in page.read_text() and "66.67!" not in page.read_text()


def test_doubts_for_programs_stand_beside_numbers(doubted: Home, mmtui_: Invoke) -> None:
    for words, column in ((["ls", "--csv"], "miou"), (["ls", "-c", "max miou", "--csv"], "max miou")):
        rows = list(csv.DictReader(mmtui_(*words).out.splitlines()))
        assert [(row["id"], bool(row["doubts"])) for row in rows] == [("2", False), ("1", True)]
        assert rows[1]["doubts"].startswith(f"{VOID}; 1 of 4") and all(float(row[column] or 0) >= 0 for row in rows)
    assert "doubts" not in mmtui_("ls", "-c", "loss", "--csv").out
    assert "doubts" not in mmtui_("ls", "-F", "id = 2", "--csv").out, "a column only where something is doubtful"
    folds = list(csv.DictReader(mmtui_("ls", "--group", "seed", "--csv").out.splitlines()))
    assert float(folds[0]["mIoU"]) and VOID in folds[0]["doubts"]
    compared = {row[0]: row[1:] for row in csv.reader(mmtui_("compare", "1", "2", "--csv").out.splitlines())}
    assert compared["doubts"] == [f"{VOID}; {SHARED}", ""] and float(compared["miou"][0])
    for words in (["compare", "1", "2"], ["diff", "1", "2"]):
        assert mmtui_(*words, "--json").json()["doubts"] == {"1": [VOID, SHARED], "2": []}, words
    ended = {one["id"]: one["doubts"] for one in mmtui_("news", "--since", "9999d", "--json").json()["ended"]}
    assert ended == {"1": [VOID, SHARED], "2": []}
    assert [one["doubts"] for one in mmtui_("ls", "--group", "seed", "--json").json()["folds"]] == [[VOID, SHARED]]


def test_paper_table_marks_what_was_measured(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    import_run(mmtui_, tmp_path / "one", {"text": VOID, "about": "supervision"})
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("UPDATE runs SET recipe = 'voc_vgg16_random_baseline', state = 'succeeded'")
        connection.commit()
    told = mmtui_("report")
    assert "81.8!" in told.out and f"voc_vgg16_random_baseline is doubtful: {VOID}" in told.err
    rows = mmtui_("report", "--json").json()["rows"]
    assert {tuple(row["doubts"]) for row in rows if row["runs"]} == {(VOID,)}


def test_groups_of_a_sweep_mark_their_best(doubted: Home, mmtui_: Invoke) -> None:
    with closing(sqlite3.connect(doubted.database)) as connection:
        connection.execute("UPDATE runs SET run_group = 'sweep'")
        connection.commit()
    assert "81.818!" in mmtui_("ls", "--group", "sweep").out
    (row,) = csv.DictReader(mmtui_("ls", "--group", "sweep", "--csv").out.splitlines())
    assert float(row["best mIoU"]) > 81 and row["doubts"].startswith(VOID)
    assert mmtui_("ls", "--group", "sweep", "--json").json()["groups"][0]["best_doubts"] == [VOID, SHARED]
    (group,) = grouped(doubted, "", "sweep", (), Folds(doubted))
    assert isinstance(group, Group)
    assert re.search(r" 74\.2!±", "".join(text for text, _ in panels.group_line(group, 80, False, False)))


@pytest.mark.parametrize("column, expected", [
    ("miou", True), ("mIoU", True), ("max miou", True), ('last "miou"', True), ("miou@300", True),
    ("reference.miou", False), ("reference.per_class.traffic light", False), ("loss", False), ("name", False),
])  # fmt: skip
def test_which_columns_are_scores(column: str, expected: bool) -> None:
    assert is_score(column) == expected


def test_doubts_are_lists_in_json(doubted: Home, mmtui_: Invoke) -> None:
    assert [row["doubts"] for row in mmtui_("ls", "--json").json()["runs"]] == [[], [VOID, SHARED]]
    for verb in (["show", "1"], ["classes", "1"], ["best", "--max", "miou"]):
        assert mmtui_(*verb, "--json").json()["doubts"] == [VOID, SHARED], verb


@pytest.mark.parametrize("ascii_only", [False, True])
def test_screen_marks_the_score_and_says_why(doubted: Home, ascii_only: bool) -> None:
    one, other = (runs.get_run(doubted, run_id) for run_id in ("1", "2"))
    assert panels.run_tail(one.row, narrow=True).endswith("81.8!")
    assert panels.run_tail(other.row, narrow=True).endswith(" 66.7")
    assert len(panels.run_tail(one.row, narrow=True)) == len(panels.run_tail(other.row, narrow=True))
    assert panels.why(one).startswith(f"doubtful: {VOID} (and 1 more); imported") and "doubt" not in panels.why(other)
    table = runs.class_table(doubted, "1")
    assert table is not None
    lines = ["".join(text for text, _ in line) for line in panels.classes(table, 60, 20, ascii_only)]
    assert lines[0].startswith("mIoU 81.8! over")
    assert " ".join(lines[1:3]) == f"doubtful: {VOID} (and 1 more)", "whole, on as many lines as it takes"
    assert max(map(len, lines)) <= 60 and lines[3].startswith("sky")
    low = ["".join(text for text, _ in line) for line in panels.classes(table, 60, 3, ascii_only)]
    assert low[1].startswith("doubtful: 62.5 %") and low[2] == "and 2 more classes"


def test_pages_of_the_screen_mark_the_score(doubted: Home) -> None:
    """The comparison with its panels, chosen columns, the news, and what the terminal is told."""
    for size in ((160, 48), (78, 40)):
        laid = compare.compare(doubted, ["1", "2"], size, False)
        text = "\n".join("".join(part for part, _ in line) for line in laid.lines)
        assert "81.82!" in text and "81.8!" in text and not re.search(r"66\.\d+!", text)
        words = re.sub(r"\s+", " ", re.sub(r"(?m)^(.{77}).*$", r"\1", text))
        assert f"run 1 is doubtful: {VOID}" in words, "whole"
    rows, _ = Rows(doubted).window(Wanted(columns=("max miou", "loss", "miou")), ())
    assert [row.cells[2] for row in rows] == ["66.67", "81.82!"]
    ended = {one.id: one for one in news.since(doubted, 0.0).ended}
    assert ended["1"].result() == f"mIoU 81.82!, doubtful: {VOID} (and 1 more)" and ended["2"].result() == "mIoU 66.67"
    assert notify.text_of([runs.get_run(doubted, "1").row]).endswith("mIoU 81.82!")


def test_full_score_that_is_doubtful_keeps_its_width(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    import_run(mmtui_, folder, {"text": VOID, "about": "supervision"}, diagonal=10**9)
    tail = panels.run_tail(runs.get_run(home, "1").row, narrow=True)
    assert tail.endswith(" 100!")


def test_doubts_of_an_attempt_that_begins_anew_replace_those_before(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    lines = [
        event("run_started", {"stages": [["evaluate", 1]]}),
        event("warning", {"text": VOID, "about": "supervision"}),
        event("run_started", {"stages": [["evaluate", 1]], "resumed_global_step": 1}),
        event("warning", {"text": SHARED, "about": "supervision"}),
    ]
    looked = event("supervision", {"splits": ["train", "val"]})
    for name, more, expected in (
        ("goes on", [], [VOID, SHARED]),
        ("anew", [event("run_started", {"stages": [["evaluate", 1]]})], []),
        ("looks again", [looked], []),
        ("finds more", [looked, event("warning", {"text": VOID, "about": "supervision"})], [VOID]),
    ):
        texts = [json.dumps({**line, "seq": n, "t": 1000.0 + n}) for n, line in enumerate([*lines, *more], 1)]
        (folder / "events.jsonl").write_text("".join(f"{text}\n" for text in texts))
        assert mmtui_("import", str(folder / "events.jsonl"), "--name", name).code == 0
        assert mmtui_("show", "@", "--json").json()["doubts"] == expected


@pytest.mark.parametrize("cell", ["{bad", "5", "[1, null]", '"text"'])
def test_damaged_doubts_hide_nothing(doubted: Home, mmtui_: Invoke, cell: str) -> None:
    with closing(sqlite3.connect(doubted.database)) as connection:
        connection.execute("UPDATE runs SET doubts = ? WHERE id = 1", [cell])
        connection.commit()
    for verb in ("ls", "show", "classes", "best"):
        outcome = mmtui_(verb, *{"ls": [], "best": ["--max", "miou"]}.get(verb, ["1"]))
        assert outcome.code == 0, outcome.err
    if cell == "{bad":
        assert "run 1: doubts mended" in mmtui_("doctor", "--fix").err
