"""What makes a score doubtful stands beside it: in ls, show, classes, watch and best, and on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.cli import watching
from mmtui.domain.views import doubtful
from mmtui.paths import Home
from mmtui.services import demo, runs
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
    assert lines[1].startswith("doubtful: 62.5 %") and len(lines[1]) <= 60
    assert lines[2].startswith("sky")


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
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(doubted.database)) as connection:
        connection.execute("UPDATE runs SET doubts = ? WHERE id = 1", [cell])
        connection.commit()
    for verb in ("ls", "show", "classes", "best"):
        outcome = mmtui_(verb, *{"ls": [], "best": ["--max", "miou"]}.get(verb, ["1"]))
        assert outcome.code == 0, outcome.err
    if cell == "{bad":
        assert "run 1: doubts mended" in mmtui_("doctor", "--fix").err
