"""Events into rows: each exactly once, whatever the file holds and whenever the reader is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.events.checks import MOST_STAGES
from engine.events.records import MOST_METRICS
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.ingest import BATCH_BYTES, ingest_file, read_batch
from mmtui.store.db import Database
from mmtui.store.events import reported
from mmtui.store.ingest import MOST_TOLD, ingest
from mmtui.store.runs import transition
from mmtui.store.session import reading
from tests.waiting import until


def test_ingest_events_fill_run_stages_attempt_and_series(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    run_id = add_run()
    file = new_attempt(run_id)
    file.start()
    file.emit("stage_started", 0, {"total_steps": 100, "offset": 0, "resumed_step": 0})
    for step in (10, 20):
        file.emit("metrics", step, {"loss": 1 / step, "lr": 0.1, "seconds_per_step": 0.5})
    file.emit("confusion", 20, {"matrix": [[3, 1], [0, 0]], "classes": ["a", "b"], "split": "val", "images": 2})
    file.emit("graph", 20, {"nodes": 7})
    file.read()
    detail = runs.get_run(home, str(run_id))
    assert (detail.row.state, detail.row.stage) == ("running", "segment")
    assert detail.row.progress == pytest.approx(20 / 101)
    # IoU a = 3/4; b is predicted once and never true: 0.
    assert detail.row.metrics == {"loss": 0.05, "miou": pytest.approx(37.5)}
    assert detail.last_event_at == 1020.0
    segment, evaluate = detail.stages
    assert (segment.status, segment.step, segment.total_steps, segment.eta_seconds) == ("running", 20, 100, 40.0)
    assert (evaluate.status, evaluate.offset) == ("pending", 100)
    assert runs.metric_names(home, str(run_id)) == ["loss", "lr", "seconds_per_step"]
    assert [(p.step, p.value, p.attempt) for p in runs.points(home, str(run_id), "loss")] == [
        (10, 0.1, 1),
        (20, 0.05, 1),
    ]
    table = runs.class_table(home, str(run_id))
    assert table is not None
    assert (table.miou, table.num_present, table.confusion) == (0.375, 2, ((3, 1), (0, 0)))
    stats = runs.graph_stats(home, str(run_id))
    assert stats is not None
    assert stats.graph.values == {"nodes": 7}


@pytest.mark.parametrize("kind", ["heartbeat", "warning", "error"])
def test_ingest_before_the_trainer_knows_where_it_goes_on_its_run_stays_where_it_was(
    kind: str, home: Home, database: Database, add_run: Callable[..., int], new_attempt: Callable[..., Any]
) -> None:
    run_id = add_run()
    file = new_attempt(run_id)
    file.start()
    file.emit("metrics", 40, {"loss": 1.0})
    file.read()
    with database.write() as session:
        transition(session, run_id, RunEvent.VANISHED)
        transition(session, run_id, RunEvent.REQUEUE)
    again = new_attempt(run_id)
    again.emit(kind, 0, {"text": "words"}, stage="")
    again.read()
    detail = runs.get_run(home, str(run_id))
    assert detail.row.state == ("starting" if kind == "heartbeat" else "running")
    assert detail.row.progress == pytest.approx(40 / 101) and detail.row.stage == "segment"
    assert [one.begins() for one in detail.attempts] == ["from the beginning", ""]
    again.start(30)
    again.read()
    detail = runs.get_run(home, str(run_id))
    assert (detail.row.state, detail.attempts[1].begins()) == ("running", "from segment 30")
    assert detail.row.progress == pytest.approx(30 / 101)


def test_ingest_torn_last_line_waits_until_it_is_whole(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home
) -> None:
    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    whole = file.path.stat().st_size
    file.write('{"v":1,"seq":2,"t":1,"kind":"metrics","stage":"segment","step":2,"global_st')
    assert file.read() == whole
    assert file.read() == whole
    file.write('ep":2,"values":{"loss":0.5}}\n')
    assert file.read() == file.path.stat().st_size
    assert [p.value for p in runs.points(home, "1", "loss")] == [1.0, 0.5]


def test_ingest_corrupt_line_is_named_by_file_and_byte_and_skipped(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    at = file.path.stat().st_size
    file.write("\x00\x00 this is no event\n")
    file.emit("metrics", 2, {"loss": 0.5})
    file.read()
    assert [p.value for p in runs.points(home, "1", "loss")] == [1.0, 0.5]
    assert sql("SELECT corrupt_lines FROM attempts") == [(1,)]
    (warning,) = runs.get_run(home, "1").warnings
    assert str(file.path) in warning
    assert f"byte {at} " in warning


def test_ingest_line_longer_than_a_batch_is_stored(
    add_run: Callable[..., int],
    new_attempt: Callable[..., Any],
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmtui.services.ingest.BATCH_BYTES", 1000)
    file = new_attempt(add_run())
    file.emit("note", 1, {"text": "x" * 5000})
    for step in range(2, 60):
        file.emit("metrics", step, {"loss": 1.0})
    assert file.read() == file.path.stat().st_size
    assert len(runs.points(home, "1", "loss")) == 58
    assert [len(str(event.record.values["text"])) for event in runs.events(home, "1")] == [5000]


def test_ingest_unknown_kind_is_kept(add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home) -> None:
    file = new_attempt(add_run())
    file.emit("from_the_future", 5, {"a": [1, {"b": None}]})
    file.read()
    (event,) = runs.events(home, "1")
    assert (event.kind, event.record.values) == ("from_the_future", {"a": [1, {"b": None}]})


def test_what_was_not_told_is_not_what_was_told_as_nothing(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    for step, values in enumerate([{}, {"split": None}, {"split": ""}, {"split": "train"}], start=1):
        file.emit("confusion", step, {"matrix": [[1]], "classes": ["a"], **values})
    file.emit("stage_reused", 4, {"run": 0})
    file.emit("best", 4, {"metric": "miou", "step": 3, "value": 1})
    file.read()
    assert sql("SELECT split FROM evaluations ORDER BY global_step") == [("val",), ("val",), ("",), ("train",)]
    detail = runs.get_run(home, "1")
    assert detail.best is not None and json.dumps(detail.best.value) == "1.0", "it is a float in JSON, too"
    with reading(home) as reader:
        assert reported(reader.query, 1).reused() == {"segment": "0"}


HOSTILE = [
    '{"v":1,"seq":1,"t":1,"kind":"metrics","global_step":1e999,"values":{"loss":1}}',
    '{"v":1,"seq":100000000000000000000000,"t":1,"kind":"graph","values":{}}',
    '{"v":1,"seq":1,"t":1,"kind":"run_started","values":{"stages":[1,["a"],"xy",["b",3,4]]}}',
    '{"v":1,"seq":1,"t":1,"kind":"run_started","values":{"stages":7,"resumed_global_step":1e300}}',
    '{"v":1,"seq":1,"t":1,"kind":"x\\ud800","stage":"\\udfff","values":{"\\ud800":1}}',
    '{"v":1,"seq":1,"t":1,"kind":"metrics","values":{"loss":Infinity,"miou":NaN,"lr":1e999}}',
    '{"v":1,"seq":1,"t":1,"kind":"confusion","values":{"matrix":[[1]],"classes":{"a":1},"images":1e300}}',
    '{"v":1,"seq":1,"t":1,"kind":"confusion","values":{"matrix":[[99999999999999999999]]}}',
    '{"v":1,"seq":1,"t":1,"kind":"confusion","values":{"matrix":[[1,2],[3]]}}',
    '{"v":1,"seq":1,"t":1,"kind":"stage_started","stage":"","values":{"total_steps":-5}}',
    '{"v":1,"seq":1,"t":1,"kind":"warning","values":[1]}',
    '{"v":1,"seq":1,"t":1,"kind":"deep","values":{"a":' + "[" * 800 + "]" * 800 + "}}",
    "[" * 100_000,
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_ingest_hostile_line_holds_up_nothing(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, line: str
) -> None:
    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    file.write(line + "\n")
    file.emit("metrics", 2, {"loss": 0.5})
    assert file.read() == file.path.stat().st_size
    assert [p.value for p in runs.points(home, "1", "loss")][:2] == [1.0, 0.5]
    json.dumps([event.record.values for event in runs.events(home, "1")], allow_nan=False)
    runs.get_run(home, "1")
    runs.class_table(home, "1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("stages", "total_steps", "offset", "matrix", "classes", "loss", "seconds_per_step", "text", "status", "images")
KINDS = (
    "run_started",
    "stage_started",
    "stage_finished",
    "metrics",
    "confusion",
    "error",
    "run_finished",
    "warning",
    "?",
)
EVENTS = st.fixed_dictionaries(
    {"v": st.just(1), "seq": st.integers(0, 2**70), "t": st.floats() | st.integers(), "kind": st.sampled_from(KINDS)},
    optional={
        "stage": st.sampled_from(["segment", "", "new"]) | JSON,
        "step": st.integers() | JSON,
        "global_step": st.integers() | JSON,
        "values": st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4) | JSON,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=6))
def test_ingest_any_json_objects_are_taken_or_counted(
    add_run: Callable[..., int],
    new_attempt: Callable[..., Any],
    home: Home,
    events: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.clear()
    run_id = add_run()
    file = new_attempt(run_id)
    for event in events:
        file.write(json.dumps(event) + "\n")
    assert file.read() == file.path.stat().st_size
    assert "cannot be stored" not in caplog.text  # the safety net below was not needed
    runs.get_run(home, str(run_id))
    runs.class_table(home, str(run_id))
    runs.points(home, str(run_id), "loss")


BIG = "mmtui.services.ingest.LONGEST_LINE"


@pytest.mark.parametrize("together", [False, True])
def test_ingest_line_that_is_too_long_is_told_once_and_passed_over_as_it_grows(
    add_run: Callable[..., int],
    new_attempt: Callable[..., Any],
    home: Home,
    sql: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    together: bool,
) -> None:
    monkeypatch.setattr("mmtui.services.ingest.BATCH_BYTES", 1000)
    monkeypatch.setattr(BIG, 10_000)
    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    at = file.path.stat().st_size
    for _ in range(20):
        file.write("x" * 2500)
        if not together:
            file.read()
    file.write("\n")
    file.emit("metrics", 2, {"loss": 0.5})
    assert file.read() == file.path.stat().st_size
    assert [p.value for p in runs.points(home, "1", "loss")] == [1.0, 0.5]
    assert sql("SELECT corrupt_lines FROM attempts") == [(1,)]
    (warning,) = runs.get_run(home, "1").warnings
    assert f"byte {at} " in warning
    assert "longer than 16 MiB" in warning


def test_ingest_line_as_long_as_may_be_is_taken(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmtui.services.ingest.BATCH_BYTES", 1000)
    monkeypatch.setattr(BIG, 10_000)
    file = new_attempt(add_run())
    for surplus in (0, 1):
        line = '{"v":1,"seq":1,"t":1,"kind":"note","values":{"text":"%s"}}\n'
        file.write(line % ("x" * (10_000 + surplus - len(line % ""))))
    assert file.read() == file.path.stat().st_size
    assert [event.kind for event in runs.events(home, "1")] == ["note", "warning"]


def test_ingest_reads_a_part_when_it_is_told_to(add_run: Callable[..., int], new_attempt: Callable[..., Any]) -> None:
    file = new_attempt(add_run())
    for step in range(50_000):
        file.emit("heartbeat", step, {"rss": 1})
    size = file.path.stat().st_size
    assert size > BATCH_BYTES
    database, offsets = file.database, [0]
    while offsets[-1] < size:
        offsets.append(ingest_file(database, file.path, 1, 1, offsets[-1], 1))
    assert len(offsets) == 1 + -(-size // BATCH_BYTES)


def test_ingest_what_is_left_out_of_an_event_is_told(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    at = file.path.stat().st_size
    file.emit("stage_finished", 3, {"seconds": 1, "replayed": "x"})
    file.read()
    (warning,) = runs.get_run(home, "1").warnings
    assert "left out of its 'stage_finished': 'replayed'" in warning
    assert warning.endswith(f"(first at byte {at})")
    assert sql("SELECT corrupt_lines FROM attempts") == [(0,)]
    assert runs.events(home, "1", "stage_finished")[0].record.values == {"seconds": 1}


def test_ingest_what_is_left_out_again_and_again_is_told_once(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home
) -> None:
    file = new_attempt(add_run())
    for _ in range(3):
        for step in range(1, 50):
            file.emit("metrics", step, {"loss": 1.0, "note": "x"})
            file.emit("metrics", step, {"loss": 1.0, "other": "x"})
        file.read()
    one, two = runs.get_run(home, "1").warnings
    assert ("'other'" in one, "'note'" in two) == (True, True)
    assert two.endswith("(first at byte 0)")


def test_ingest_a_thousand_faults_are_told_as_a_few_and_counted(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    for part in range(4):
        for step in range(250):
            file.write(f"no event {part} {step}\n")
        file.read()
    warnings = sql("SELECT json_extract(\"values\", '$.text') FROM events ORDER BY id")
    assert len(warnings) == MOST_TOLD
    assert "more faults of this file are counted and not told" in warnings[-1][0]
    assert sum("byte" in text for (text,) in warnings) == MOST_TOLD - 1
    assert sql("SELECT corrupt_lines FROM attempts") == [(1000,)]


def test_ingest_metrics_and_stages_have_a_greatest_number(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home
) -> None:
    file = new_attempt(add_run())
    for step in range(1, 5):
        file.emit("metrics", step, {f"m{step}_{n}": 1.0 for n in range(400)})
        file.read()
    file.emit("metrics", 6, {"m1_0": 2.0, "m5_0": 2.0})
    for number in range(MOST_STAGES + 20):
        file.emit("stage_started", 7, {"total_steps": 1}, stage=f"s{number}")
    file.emit("run_started", 7, {"stages": [[f"t{number}", 1] for number in range(MOST_STAGES)]})
    file.read()
    names = runs.metric_names(home, "1")
    assert len(names) == MOST_METRICS
    assert runs.points(home, "1", "m1_0")[-1].value == 2.0
    assert "m5_0" not in names
    detail = runs.get_run(home, "1")
    assert [text for text in detail.warnings if "metrics" in text] == [
        f"{file.path}: of its metrics only the first {MOST_METRICS:,} are kept"
    ]
    assert len(detail.stages) == MOST_STAGES


@pytest.mark.parametrize("put", ["folder", "pipe", "device"])
def test_ingest_file_that_is_none_is_an_error_at_once(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], put: str
) -> None:
    file = new_attempt(add_run())
    file.path.unlink()
    if put == "folder":
        file.path.mkdir()
    elif put == "pipe":
        os.mkfifo(file.path)
    else:
        file.path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=str(file.path)):
        file.read()


def test_ingest_handler_that_breaks_costs_one_line_only(
    add_run: Callable[..., int],
    new_attempt: Callable[..., Any],
    home: Home,
    sql: Callable[..., list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr("mmtui.store.ingest.mean_iou_percent", broken)
    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    file.emit("confusion", 1, {"matrix": [[1]]})
    file.emit("metrics", 2, {"loss": 0.5})
    assert file.read() == file.path.stat().st_size
    assert [p.value for p in runs.points(home, "1", "loss")] == [1.0, 0.5]
    assert sql("SELECT corrupt_lines FROM attempts") == [(1,)]


def test_ingest_locked_database_is_told_and_loses_nothing(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from mmtui.errors import UnreachableError

    file = new_attempt(add_run())
    file.emit("metrics", 1, {"loss": 1.0})
    monkeypatch.setattr("mmtui.store.db.BUSY_SECONDS", 0.05)
    impatient = Database(home)
    other = sqlite3.connect(home.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnreachableError, match="locked"):
        ingest_file(impatient, file.path, 1, 1, 0)
    other.execute("ROLLBACK")
    other.close()
    assert ingest_file(impatient, file.path, 1, 1, 0) == file.path.stat().st_size
    impatient.close()
    assert len(runs.points(home, "1", "loss")) == 1


def test_ingest_offset_and_rows_are_stored_together_or_not_at_all(
    database: Database, add_run: Callable[..., int], new_attempt: Callable[..., Any], sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    file.start()
    file.read()
    at = file.offset
    for step in range(1, 4):
        file.emit("metrics", step, {"loss": 1.0})
    batch = read_batch(file.path, at)
    assert batch is not None
    with pytest.raises(RuntimeError), database.write() as session:
        ingest(session, 1, 1, batch)
        raise RuntimeError("killed right before the commit")
    assert sql("SELECT ingested FROM attempts") == [(at,)]
    assert sql("SELECT count(*) FROM metrics") == [(0,)]
    with database.write() as session:
        ingest(session, 1, 1, batch)
    assert sql("SELECT ingested FROM attempts") == [(file.path.stat().st_size,)]
    assert sql("SELECT count(*) FROM metrics") == [(3,)]


READER = """
import sqlite3, time
from mmtui.paths import Home
from mmtui.services import ingest
from mmtui.store.db import Database
ingest.BATCH_BYTES = 2000  # many small transactions, to be killed between and within
home = Home.from_environment()
database = Database(home)
print("ready", flush=True)
while True:
    connection = sqlite3.connect(home.database)
    (offset,) = connection.execute("SELECT ingested FROM attempts WHERE run_id = 1").fetchone()
    connection.close()
    ingest.ingest_file(database, home.run("1").events(1), 1, 1, offset)
    time.sleep(0.001)
"""


def test_ingest_reader_killed_again_and_again_stores_each_event_once(
    add_run: Callable[..., int], new_attempt: Callable[..., Any], home: Home, sql: Callable[..., list[Any]]
) -> None:
    file = new_attempt(add_run())
    environment = {**os.environ, "MMTUI_HOME": str(home.root)}
    choose, written = random.Random(7), 0
    for _ in range(6):
        reader = subprocess.Popen([sys.executable, "-c", READER], env=environment, stdout=subprocess.PIPE)
        assert reader.stdout is not None
        reader.stdout.readline()
        stored = sql("SELECT ingested FROM attempts")[0][0]
        kill_at = time.monotonic() + choose.uniform(0.05, 0.25)

        def write() -> None:
            nonlocal written
            for _ in range(40):
                written += 1
                file.emit("metrics" if written % 3 else "note", written, {"loss": float(written)})
            time.sleep(0.002)

        # At a random moment, but not before it has stored something: on a busy machine it may not have begun.
        until(
            lambda at=kill_at, before=stored: (
                time.monotonic() > at and sql("SELECT ingested FROM attempts")[0][0] != before
            ),
            "something read; the test would prove nothing",
            meanwhile=write,
        )
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        reader.stdout.close()
    (before,) = sql("SELECT ingested FROM attempts")[0]
    assert before > 0
    file.offset = before
    file.read()
    steps = [row[0] for row in sql("SELECT global_step FROM metrics")]
    notes = [row[0] for row in sql("SELECT global_step FROM events")]
    assert sorted(steps + notes) == list(range(1, written + 1))
    assert Path(file.path).stat().st_size == sql("SELECT ingested FROM attempts")[0][0]
