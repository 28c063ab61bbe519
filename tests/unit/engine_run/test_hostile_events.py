"""The trainer reads the event files of earlier attempts as a stranger's: a damaged line stops no training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import DataError
from engine.events import attempt_folder
from engine.pictures_cli import draw_runs
from engine.replay import Replay
from engine.resume import data_told
from tests.hostile import VALUES

FRAME = {"v": 1, "seq": 1, "t": 1764000000, "stage": "match", "step": 3, "global_step": 3}
DAMAGED = [
    {**FRAME, "kind": "metrics"},
    {"v": 1, "seq": 1, "t": 1764000000, "kind": "metrics", "stage": "match"},
    *({**FRAME, "kind": "metrics", "values": value} for value in VALUES),
    *({**FRAME, "kind": "metrics", "values": {"loss": value}} for value in VALUES),
    *({**FRAME, "kind": "metrics", "step": value, "values": {"loss": 0.5}} for value in VALUES),
    *({**FRAME, "kind": "data", "values": value} for value in VALUES),
    *({**FRAME, "kind": "data", "values": {"fingerprint": value}} for value in VALUES),
    *({**FRAME, "kind": kind, "values": value} for kind in ("run_started", "projection", "image") for value in VALUES),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two attempts: damaged lines, and what a trainer has told behind them."""
    sound = [
        {**FRAME, "kind": "data", "values": {"fingerprint": "abc"}},
        {**FRAME, "kind": "metrics", "step": 4, "values": {"loss": 0.25}},
    ]
    for number, lines in ((1, DAMAGED), (2, sound)):
        folder = attempt_folder(tmp_path, number)
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path


def test_losses_are_compared_with_those_that_are_numbers(run_dir: Path) -> None:
    replay = Replay(run_dir, 3, "match", 0)
    assert replay.compare(4, 0.25) == ""
    assert replay.equal == replay.compared


def test_data_of_earlier_attempts_are_those_that_were_told(run_dir: Path) -> None:
    assert list(data_told(run_dir, 3))[-1] == "abc"


def test_damaged_events_are_told_by_their_step(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="projection event of step 3 cannot be drawn"):
        draw_runs([run_dir], tmp_path / "out")


def test_lines_that_are_no_events_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = attempt_folder(tmp_path, 1)
    folder.mkdir(parents=True)
    projection = {"x": [0.0, 1.0], "y": [0.0, 1.0], "label": [0, 1]}
    lines = [
        {**FRAME, "kind": "run_started", "values": {"classes": ["road", "sky"]}},
        {**FRAME, "kind": "run_started", "values": None},
        {**FRAME, "kind": "projection", "values": projection},
        {**FRAME, "kind": "projection", "t": 1e12, "values": projection},
        {**FRAME, "kind": "projection", "global_step": -1, "values": projection},
    ]
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [path.name for path in draw_runs([tmp_path], tmp_path / "out")] == ["embeddings.png"]
    assert capsys.readouterr().err == f"warning: {tmp_path}: 2 lines of its event files passed over: no events\n"
