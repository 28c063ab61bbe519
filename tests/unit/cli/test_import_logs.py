"""What other trainers logged, taken in: every point in its step, or a sentence about it; all or nothing."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.ptys import Program
from tests.waiting import PATIENCE, until

Invoke = Callable[..., Any]
Points = Sequence[tuple[str, int, float]]
LOSS: Points = [("loss", step, 1 / step) for step in range(1, 6)]


def tensorboard(folder: Path, points: Points, name: str = "events.out.tfevents.1.host") -> Path:
    """An event file of TensorBoard, written by its own code."""
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    with file.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(event_pb2.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for tag, step, value in points:
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
            event = event_pb2.Event(wall_time=1000.0 + step, step=step, summary=summary)
            writer.write(event.SerializeToString())
    return file


def events(file: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """An event file in our format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = {"v": 1, "kind": "metrics", "stage": "train"}
    texts = [json.dumps({**frame, "seq": seq, "t": 1000.0 + seq, **line}) for seq, line in enumerate(lines, 1)]
    file.write_text("".join(f"{text}\n" for text in texts))
    return file


def stored(home: Home, run_id: str, metric: str = "loss") -> dict[int, float]:
    """{global step: value} of a metric; NaN where there is no finite number."""
    with closing(sqlite3.connect(home.database)) as connection:
        rows = connection.execute(
            "SELECT global_step, value FROM metrics WHERE run_id = ? AND name = ?", [run_id, metric]
        ).fetchall()
    return {step: math.nan if value is None else value for step, value in rows}


# ---- folders of TensorBoard -----------------------------------------------------------------------------------------


def test_each_folder_with_event_files_is_a_run_of_one_group(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    source = tmp_path / "keras"
    tensorboard(source / "train", [("epoch_loss", step, 1.0 + step) for step in range(3)])
    tensorboard(source / "validation", [("epoch_loss", step, 2.0 + step) for step in range(3)])
    tensorboard(source / "version_0" / "loss_a", [("loss", 1, 5.0)])
    (source / "assets").mkdir()
    outcome = mmtui_("import", str(source))
    assert (outcome.code, outcome.out) == (0, "1\n2\n3\n"), outcome.err
    rows = [runs.get_run(home, run_id).row for run_id in ("1", "2", "3")]
    assert [row.name for row in rows] == ["keras/train", "keras/validation", "keras/version_0/loss_a"]
    assert {(row.group, row.state) for row in rows} == {("keras", "succeeded")}
    assert stored(home, "1", "epoch_loss") == {0: 1.0, 1: 2.0, 2: 3.0}
    assert stored(home, "2", "epoch_loss") == {0: 2.0, 1: 3.0, 2: 4.0}
    named = mmtui_("import", str(source), "--name", "mine")
    assert runs.get_run(home, named.out.split()[0]).row.name == "mine/train"


def test_a_folder_of_one_run_and_a_single_file_are_in_no_group(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tensorboard(tmp_path / "one", LOSS)
    for source in (file.parent, file):
        run_id = mmtui_("import", str(source)).out.strip()
        row = runs.get_run(home, run_id).row
        assert (row.name, row.group) == ("one", "")
        assert stored(home, run_id) == {step: pytest.approx(value, rel=1e-6) for _, step, value in LOSS}


def test_what_is_no_scalar_or_was_logged_again_is_counted(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    tensorboard(tmp_path / "log", LOSS)
    file = tensorboard(tmp_path / "log", [("loss", 4, 40.0), ("loss", 5, math.inf)], "events.out.tfevents.2.host")
    with file.open("ab") as stream:
        image = summary_pb2.Summary.Value(tag="image", image=summary_pb2.Summary.Image(height=1))
        event = event_pb2.Event(wall_time=1.0, step=1, summary=summary_pb2.Summary(value=[image]))
        RecordWriter(stream).write(event.SerializeToString())
    (tmp_path / "log" / "empty").mkdir()
    tensorboard(tmp_path / "log" / "empty", [])
    outcome = mmtui_("import", str(tmp_path / "log"))
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        "warning: left out: 2 points of a step that was logged again: the last one counts",
        "warning: left out: 1 value of 1 tag without scalars",
        "warning: changed: 1 infinite value kept as no number",
        "warning: log/empty has no scalars",
        "taken in as run 1; see: mmtui show 1",
    ]
    found = stored(home, "1")
    assert found[4] == 40.0 and math.isnan(found[5]) and len(found) == 5


def damaged(data: bytes, how: str) -> tuple[bytes, int, int]:
    """An event file with a fault, and how many bytes from which on cannot be read. Records: 40 bytes, then 42 each."""
    starts = [40, *range(40, len(data), 42)][1:]
    first, second = starts[0], starts[1]
    if how == "cut":
        return data[:-10], starts[-1], len(data) - 10 - starts[-1]
    if how == "checksum":
        return data[: first + 20] + bytes([data[first + 20] ^ 1]) + data[first + 21 :], first, second - first
    if how == "length":
        return data[:first] + b"\xff" + data[first + 1 :], first, second - first
    return data + bytes(100_000), len(data), 100_000  # zeros, as a crash of the machine leaves them


@pytest.mark.parametrize(("how", "lost"), [("cut", 5), ("checksum", 1), ("length", 1), ("zeros", 0)])
def test_records_behind_a_damaged_one_are_read(home: Home, mmtui_: Invoke, tmp_path: Path, how: str, lost: int) -> None:
    file = tensorboard(tmp_path / "log", [("loss", step, 1.0 * step) for step in range(1, 6)])
    data, byte, count = damaged(file.read_bytes(), how)
    file.write_bytes(data)
    outcome = mmtui_("import", str(tmp_path / "log"))
    assert (outcome.code, outcome.out) == (0, "1\n")
    assert f"warning: {count:,} bytes behind byte {byte:,} of {file} could not be read: " in outcome.err
    assert stored(home, "1") == {step: 1.0 * step for step in range(1, 6) if step != lost}


def test_hostile_records_neither_fail_nor_claim_memory(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = tensorboard(tmp_path / "log", LOSS)
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1 << 50)])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, float_val=[1.0])
    bomb = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="bomb", tensor=tensor)])
    empty = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
    nothing = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="nothing", tensor=empty)])
    early = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="early", simple_value=1.0)])
    odd = [
        event_pb2.Event(step=1, wall_time=1.0, summary=bomb),
        event_pb2.Event(step=1, wall_time=1.0, summary=nothing),
        event_pb2.Event(step=-5, wall_time=1.0, summary=early),
        event_pb2.Event(step=2, wall_time=math.nan, summary=early),
        event_pb2.Event(step=3, wall_time=1e300, summary=early),
    ]
    with file.open("ab") as stream:
        writer = RecordWriter(stream)
        for record in [*(event.SerializeToString() for event in odd), b"", b"\x0a\xff\xff\xff\xff", os.urandom(64)]:
            writer.write(record)
    outcome = mmtui_("import", str(tmp_path / "log"))
    assert (outcome.code, outcome.out) == (0, "1\n"), outcome.err
    assert len(stored(home, "1")) == 5 and stored(home, "1", "early") == {}
    for text in ("from 0 to 2^53", "no Unix time", "that TensorBoard's format does not know", "without scalars"):
        assert text in outcome.err


def test_a_file_of_which_nothing_can_be_read_is_an_error(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tensorboard(tmp_path / "log", LOSS)
    file.write_bytes(bytes([1, 2, 3]) * 1000)
    outcome = mmtui_("import", str(tmp_path / "log"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "3,000 bytes behind byte 0" in outcome.err
    assert mmtui_("ls").out == ""


def test_more_runs_than_one_import_takes_are_refused(
    home: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1001):
        (tmp_path / "logs" / str(number)).mkdir(parents=True)
        (tmp_path / "logs" / str(number) / "tfevents").touch()
    outcome = mmtui_("import", str(tmp_path / "logs"))
    assert outcome.code == 5 and "holds 1,001 runs" in outcome.err and "at most 1,000" in outcome.err


# ---- event files ----------------------------------------------------------------------------------------------------


def test_events_without_a_step_get_one_in_their_order(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = events(tmp_path / "a" / "events.jsonl", [{"values": {"loss": 1 / n}} for n in range(1, 6)])
    outcome = mmtui_("import", str(file))
    assert "warning: changed: 5 metrics events without a step got one, in their order" in outcome.err
    assert stored(home, "1") == {n: 1 / n for n in range(1, 6)}


def test_events_with_one_of_both_steps_are_not_said_to_have_none(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    steps = [{"step": 4}, {"global_step": 6}, {"step": 9, "global_step": 9}, {}]
    file = events(tmp_path / "a" / "events.jsonl", [{**step, "values": {"loss": 0.5}} for step in steps])
    err = mmtui_("import", str(file)).err
    assert "warning: changed: 2 metrics events with one of step and global_step got the other" in err
    assert "warning: changed: 1 metrics event without a step got one, in their order" in err
    assert list(stored(home, "1")) == [4, 6, 9, 10]


def test_linked_folders_of_tensorboard_are_passed_over_with_a_word(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    tensorboard(tmp_path / "logs" / "a", [("loss", 1, 0.5)])
    tensorboard(tmp_path / "elsewhere", [("loss", 1, 0.5)])
    (tmp_path / "logs" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs" / "a" / "circle").symlink_to(tmp_path / "logs")
    outcome = mmtui_("import", str(tmp_path / "logs"))
    assert outcome.code == 0 and f"left out: 2 linked folders, such as {tmp_path / 'logs' / 'b'}" in outcome.err
    assert [row["id"] for row in mmtui_("ls", "--json").json()["runs"]] == ["1"]


def test_points_of_tensorboard_without_a_step_get_one_in_their_order(
    home: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    """They all came as step 0, and the last of them was kept."""
    points = [
        *(("loss", 0, 1 / n) for n in range(1, 6)),
        ("once", 0, 7.0),
        ("acc", 0, 0.5),
        ("acc", 0, 0.6),
        ("acc", 3, 0.7),
    ]
    outcome = mmtui_("import", str(tensorboard(tmp_path / "a", points)))
    assert "warning: 5 points without a step got one, in their order" in outcome.err
    assert "warning: left out: 1 point of a step that was logged again" in outcome.err
    close = pytest.approx
    assert stored(home, "1") == close({n: 1 / n for n in range(1, 6)})
    assert stored(home, "1", "once") == close({0: 7.0}) and stored(home, "1", "acc") == close({0: 0.6, 3: 0.7})


def test_a_file_of_which_no_event_can_be_read_is_an_error(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    """It was a run that had succeeded, with nothing in it."""
    lines = [{"step": n, "t": 1.764e12 + n, "values": {"loss": 1.0}} for n in range(1, 4)]
    outcome = mmtui_("import", str(events(tmp_path / "a" / "events.jsonl", lines)))
    assert outcome.code == 2 and "was skipped: " in outcome.err, outcome
    assert runs.list_runs(home) == [] and traces(home) == (0, [])


def test_stage_steps_without_global_step_follow_each_other(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    lines = [
        *({"stage": "warm", "step": n, "values": {"loss": 1.0 * n}} for n in (10, 20)),
        *({"stage": "main", "step": n, "values": {"loss": 100.0 + n}} for n in (10, 20)),
    ]
    mmtui_("import", str(events(tmp_path / "a" / "events.jsonl", lines)))
    assert stored(home, "1") == {10: 10.0, 20: 20.0, 30: 110.0, 40: 120.0}
    told = [{"kind": "run_started", "stage": "", "values": {"stages": [["warm", 50], ["main", 50]]}}, *lines]
    mmtui_("import", str(events(tmp_path / "b" / "events.jsonl", told)))
    assert stored(home, "2") == {10: 10.0, 20: 20.0, 60: 110.0, 70: 120.0}, "as far as the trainer's plan says"


def test_steps_that_are_told_again_are_counted(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    lines = [{"step": n, "global_step": n, "values": {"loss": value}} for n, value in ((1, 1.0), (2, 2.0), (2, 3.0))]
    outcome = mmtui_("import", str(events(tmp_path / "a" / "events.jsonl", lines)))
    assert "warning: left out: 1 point of a step that was logged again: the last one counts" in outcome.err
    assert stored(home, "1") == {1: 1.0, 2: 3.0}


def test_numbers_that_are_not_finite_are_kept_as_such(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    values = [math.nan, math.inf, -math.inf, None, 1.0]
    lines = [{"step": n, "global_step": n, "values": {"loss": value}} for n, value in enumerate(values, 1)]
    outcome = mmtui_("import", str(events(tmp_path / "a" / "events.jsonl", lines)))
    assert "warning: changed: 2 infinite values kept as no number" in outcome.err
    assert [math.isnan(value) for value in stored(home, "1").values()] == [True] * 4 + [False]


def test_each_limit_that_is_met_is_told(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"step": 1, "global_step": 1, "values": {"loss": 1.0, "x" * 600: 1.0}},
        {"step": 2, "global_step": 2**60, "values": {"loss": 1.0}},
        {"step": 3, "global_step": 3, "values": {f"metric {n}": 1.0 for n in range(1100)}},
    ]
    file = events(tmp_path / "a" / "events.jsonl", lines)
    with file.open("a") as stream:
        stream.write("no json\n" + "x" * (17 << 20) + "\n" + json.dumps({**lines[0], "v": 1, "seq": 9, "t": 5.0}))
    err = mmtui_("import", str(file)).err
    for text in (
        "no values of this kind",
        "from 0 to 2^53",
        "only the first 1,000",
        "is no event",
        "longer than 16 MiB",
    ):
        assert err.count(text) >= 1, text
    assert str(home.run("1").events(1)) in err, "where one can look"


def test_a_last_line_without_its_end_counts(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = events(tmp_path / "a" / "events.jsonl", [{"step": 1, "global_step": 1, "values": {"loss": 0.5}}])
    file.write_text(file.read_text().rstrip("\n"))
    assert mmtui_("import", str(file)).out == "1\n"
    assert stored(home, "1") == {1: 0.5}


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ({"status": "failed"}, "failed"),
        ({"status": "succeeded"}, "succeeded"),
        (None, "succeeded"),
    ],
)
def test_a_run_that_failed_is_a_failed_one(
    home: Home, mmtui_: Invoke, tmp_path: Path, end: dict[str, str] | None, state: str
) -> None:
    lines: list[dict[str, Any]] = [{"step": 1, "global_step": 1, "values": {"loss": 0.5}}]
    if end is not None:
        lines.append({"kind": "error", "step": 1, "global_step": 1, "values": {"text": "out of memory"}})
        lines.append({"kind": "run_finished", "stage": "", "step": 1, "global_step": 1, "values": end})
    mmtui_("import", str(events(tmp_path / "a" / "events.jsonl", lines)))
    assert runs.get_run(home, "1").row.state == state


# ---- imports that end early -----------------------------------------------------------------------------------------


def many(folder: Path, count: int = 60_000) -> Path:
    return events(
        folder / "events.jsonl", [{"step": n, "global_step": n, "values": {"loss": 1.0}} for n in range(count)]
    )


def traces(home: Home) -> tuple[int, list[str]]:
    """Rows of runs, hidden ones too, and folders of runs."""
    with closing(sqlite3.connect(home.database, timeout=PATIENCE)) as connection:
        rows = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    return rows, sorted(path.name for path in [*home.runs.iterdir(), *home.trash.iterdir()])


def started(source: Path, home: Home, table: str) -> subprocess.Popen[str]:
    """An import that has put something into a table, and still goes on."""
    command = [sys.executable, "-m", "mmtui", "import", str(source)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def seen() -> bool:
        if not home.database.exists():
            return False
        with closing(sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
            try:
                return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None
            except sqlite3.OperationalError:  # not made yet
                return False

    until(seen, "it stores")
    return process


@pytest.mark.parametrize("table", ["runs", "metrics"])
def test_a_killed_import_is_not_to_be_seen_and_the_next_one_removes_it(
    home: Home, mmtui_: Invoke, tmp_path: Path, table: str
) -> None:
    source = many(tmp_path / "a")
    process = started(source, home, table)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was on its way"
    assert traces(home)[0] == 1
    assert mmtui_("ls", "-a").out == "" and mmtui_("query", "SELECT id FROM live_runs", "--csv").out.split() == ["id"]
    assert mmtui_("release", "1").code == 4
    restored = mmtui_("restore", "1")
    assert restored.code == 5 and "import it again" in restored.err
    small = events(tmp_path / "b" / "events.jsonl", [{"step": 1, "global_step": 1, "values": {"loss": 0.5}}])
    assert mmtui_("import", str(small)).out == "2\n"
    assert traces(home) == (1, ["2"])


def test_purge_removes_a_killed_import_and_leaves_one_that_goes_on(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    killed = started(many(tmp_path / "a"), home, "metrics")
    killed.kill()
    killed.communicate()
    under_way = started(many(tmp_path / "b"), home, "(SELECT 1 FROM runs WHERE id = 2)")
    os.kill(under_way.pid, signal.SIGSTOP)
    assert mmtui_("purge", "--yes").code == 0
    assert traces(home)[0] == 1
    os.kill(under_way.pid, signal.SIGCONT)
    assert under_way.communicate(timeout=PATIENCE)[0] == "2\n"
    assert len(stored(home, "2")) == 60_000


def test_ctrl_c_leaves_nothing(home: Home, tmp_path: Path) -> None:
    process = started(many(tmp_path / "a"), home, "metrics")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert traces(home) == (0, [])


def test_a_full_disk_leaves_nothing(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    first = events(tmp_path / "b" / "events.jsonl", [{"step": 1, "global_step": 1, "values": {"loss": 0.5}}])
    mmtui_("import", str(first))
    source = many(tmp_path / "a")
    largest = source.stat().st_size // 2
    done = subprocess.run(
        [sys.executable, "-m", "mmtui", "import", str(source)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
    )
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert traces(home) == (1, ["1"])


def test_of_several_runs_all_are_taken_in_or_none(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    """The second one does not fit onto the disk."""
    tensorboard(tmp_path / "logs" / "a", LOSS)
    tensorboard(tmp_path / "logs" / "b", [("loss", step, 1.0) for step in range(12_000)])
    done = subprocess.run(
        [sys.executable, "-m", "mmtui", "import", str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert traces(home) == (0, [])
    assert mmtui_("import", str(tmp_path / "logs")).code == 0, "with room they are"


def test_a_terminal_shows_how_far_it_is(home: Home, tmp_path: Path) -> None:
    source = many(tmp_path / "a")
    program = Program(sys.executable, ["-m", "mmtui", "import", str(source)], 100, 24)
    try:
        program.expect("importing events.jsonl")
        program.expect(r"[0-9]+%")
        program.expect("taken in as run 1")
        assert program.until_ended() == 0
    finally:
        program.close()


def test_a_lost_database_takes_no_imported_run_with_it(
    home: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the folder of an imported run held too little: a rebuild passed over it."""
    for part in ("train", "validation"):
        tensorboard(tmp_path / "logs" / part, LOSS)
    assert mmtui_("import", str(tmp_path / "logs"), "-q").code == 0
    lines = [{"step": 1, "values": {"loss": 0.5}}, {"kind": "run_finished", "step": 2, "values": {"status": "failed"}}]
    assert mmtui_("import", str(events(tmp_path / "bad" / "events.jsonl", lines)), "-q").code == 0
    names = ("name", "recipe", "state", "seed", "tags", "group", "config", "overrides")
    before = [mmtui_("show", str(number), "--json").json() for number in (1, 2, 3)]
    points = stored(home, "1")
    assert [one["state"] for one in before] == ["succeeded", "succeeded", "failed"]
    for file in home.root.glob("mmtui.db*"):
        file.unlink()
    assert mmtui_("ls").code == 3
    mmtui_("doctor", "--fix")
    after = [mmtui_("show", str(number), "--json").json() for number in (1, 2, 3)]
    assert [[one.get(name) for name in names] for one in after] == [[one.get(name) for name in names] for one in before]
    assert stored(home, "1") == points and len(points) == len(LOSS)
    capsule = tmp_path / "one.capsule"
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(capsule)).code == 0
    other = Home(tmp_path / "other")
    monkeypatch.setenv("MMTUI_HOME", str(other.root))
    assert mmtui_("import", str(capsule)).code == 0
    assert stored(other, "1") == points
