"""``mmtui query`` reads and does nothing else, gives rows as they come, and ends at ctrl-C and at a closed pipe."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmtui.domain import filters
from mmtui.paths import Home
from mmtui.store.interrupts import interruptible
from mmtui.store.reader import Reader
from tests.unit.cli.conftest import Invoke
from tests.waiting import PATIENCE, until

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
HARMFUL = {
    "VACUUM INTO 'other.db'": "open or write another file",
    "VACUUM": "open or write another file",
    "ATTACH 'other.db' AS other": "open or write another file",
    "ATTACH 'file:other.db?mode=rwc' AS other": "open or write another file",
    "DETACH main": "detach a database",
    "INSERT INTO settings VALUES ('a', 'b')": "write rows",
    "UPDATE runs SET name = 'x'": "write rows",
    "WITH a AS (SELECT 1) DELETE FROM runs": "delete rows",
    "EXPLAIN DELETE FROM runs": "delete rows",
    "CREATE TABLE x (a)": "change the schema",
    "CREATE TEMP TABLE x AS SELECT 1": "change the schema",
    "CREATE VIRTUAL TABLE temp.x USING fts5(a)": "change the schema",
    "DROP VIEW live_runs": "change the schema",
    "ALTER TABLE runs RENAME TO x": "change the schema",
    "BEGIN IMMEDIATE": "begin or end a transaction",
    "SAVEPOINT x": "begin or end a transaction",
    "PRAGMA journal_mode = DELETE": "run PRAGMA journal_mode",
    "PRAGMA user_version = 7": "run PRAGMA user_version",
    "PRAGMA wal_checkpoint": "run PRAGMA wal_checkpoint",
    "PRAGMA temp_store_directory = '.'": "run PRAGMA temp_store_directory",
    "PRAGMA hard_heap_limit = 0": "run PRAGMA hard_heap_limit",
    "PRAGMA writable_schema = 1": "run PRAGMA writable_schema",
    "SELECT load_extension('x')": "call the function load_extension",
    "SELECT fts3_tokenizer('simple')": "call the function fts3_tokenizer",
    "SELECT 1; DELETE FROM runs": "several statements",
}
HARMLESS = (
    "SELECT json_extract(config, '$.segment.optim.lr') AS lr, avg(miou) FROM live_runs"
    " WHERE state = 'succeeded' GROUP BY lr",
    "SELECT name, run_id, max(iou) FROM class_iou WHERE latest GROUP BY name",
    "SELECT run_id, count(*), sum(value) FROM live_metrics GROUP BY run_id ORDER BY run_id",
    "SELECT t.fullkey FROM runs, json_tree(runs.config) t ORDER BY t.fullkey",
    "SELECT name FROM runs WHERE mm_contains('goo', name) OR mm_regex('^g', name)",
    "SELECT row_number() OVER (ORDER BY id), printf('%.2f', miou), hex(randomblob(2)) FROM runs",
    "SELECT name FROM pragma_table_info('runs')",
    "PRAGMA table_info(runs)",
    "PRAGMA journal_mode",
    "PRAGMA integrity_check",
    "EXPLAIN QUERY PLAN SELECT * FROM runs",
    "VALUES (1, 2), (3, 4)",
    ENDLESS + "SELECT i FROM n LIMIT 3",
)
Started = subprocess.Popen[bytes]
Start = Callable[..., Started]


@pytest.fixture
def start(populated: Home, tmp_path: Path) -> Iterator[Start]:
    """``start("SELECT 1", "--csv")``: the verb in a process of its own that can claim 2 GiB and buffers nothing."""
    started: list[Started] = []

    def begin(*argv: str) -> Started:
        environment = {**os.environ, "MMTUI_HOME": str(populated.root), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "mmtui", "query", *argv],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("text", HARMFUL)
def test_what_does_more_than_read_is_refused_with_a_sentence(
    text: str, populated: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in populated.root.glob("*.db")}
    outcome = mmtui_("query", text)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"the query is refused: it {'has' if ';' in text else 'would'} {HARMFUL[text]}\n" in outcome.err
    assert "give one SELECT, WITH, VALUES or EXPLAIN" in outcome.err
    assert not list(tmp_path.rglob("other.db*"))
    assert before == {path: path.read_bytes() for path in populated.root.glob("*.db")}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_reads_is_answered_in_every_form(text: str, populated: Home, mmtui_: Invoke) -> None:
    document = mmtui_("query", text, "--json")
    assert document.code == 0, document.err
    body = document.json()
    assert list(body) == ["schema_version", "columns", "rows"]
    assert document.out == json.dumps(body, indent=2) + "\n"  # written in pieces, it looks as if written at once
    as_csv = mmtui_("query", text, "--csv")
    header, *rows = csv.reader(io.StringIO(as_csv.out))
    assert header == body["columns"]
    assert len(rows) == len(body["rows"]) == len(mmtui_("query", text).out.splitlines()) - 1


@pytest.mark.parametrize("text", ["", "  ", "/* nothing */"])
def test_no_statement_is_a_slip(text: str, populated: Home, mmtui_: Invoke) -> None:
    outcome = mmtui_("query", text)
    assert outcome.code == 2
    assert "the query asks for nothing" in outcome.err


def test_bytes_and_text_that_is_not_utf8_are_shown_in_every_form(populated: Home, mmtui_: Invoke) -> None:
    text = "SELECT x'00ff' AS a, CAST(x'636166e9' AS TEXT) AS b, 9e999 AS c"
    assert mmtui_("query", text).out.splitlines()[1].split() == ["(2", "bytes)", "caf\\xe9", "Infinity"]
    assert mmtui_("query", text, "--csv").out == "a,b,c\n00FF,caf\\xe9,inf\n"
    assert mmtui_("query", text, "--json").json()["rows"] == [["00FF", "caf\\xe9", None]]


def test_no_rows_and_no_more_rows_than_fit_a_portion_look_alike(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("query", "SELECT 1 AS a, 2 AS bb WHERE 0").out == "a  bb\n"
    lines = mmtui_("query", ENDLESS + "SELECT i, 'x' AS y FROM n LIMIT 12000").out.splitlines()
    assert len(lines) == 12001
    assert lines[1] == "1     x"  # as wide as the first portion needs: 1,000
    assert lines[-1] == "12000  x"


@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
def test_rows_without_end_come_at_once_and_need_no_memory(form: tuple[str, ...], start: Start) -> None:
    process = start(ENDLESS + "SELECT i, printf('%.*c', 100000, 'x') FROM n", *form)
    assert process.stdout is not None
    length = sum(len(process.stdout.read(1 << 20)) for _ in range(150))
    assert length == 150 << 20, process.communicate()[1]
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 100 << 10, f"{peak >> 10} MiB for rows of 0.1 MB"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "rest",
    [
        "SELECT count(*) FROM n",
        "SELECT max(x) FROM (SELECT i AS x FROM n)",
        "SELECT mm_regex('(a+)+$', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!')",
    ],
)
def test_a_signal_ends_a_query_that_never_ends(rest: str, number: signal.Signals, start: Start) -> None:
    process = start(ENDLESS + "SELECT 'first' UNION ALL " + rest, "--csv")
    assert process.stdout is not None
    assert process.stdout.readline() == b"'first'\n"  # sqlite3 steps ahead of what it gives: from here on it computes
    begun = _processor_ticks(process)
    until(lambda: _processor_ticks(process) > begun + 20, "the query computes")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    code, told = (130, b"interrupted\n") if number == signal.SIGINT else (-number, b"")
    assert (process.returncode, err) == (code, told)


def _processor_ticks(process: Started) -> int:
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
def test_a_pipe_that_is_closed_ends_it_quietly(form: tuple[str, ...], start: Start) -> None:
    process = start(ENDLESS + "SELECT i FROM n", *form)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == -signal.SIGPIPE
    assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("SELECT length(zeroblob(1000000000))", "a value of the query has more than 32 MiB"),
        (ENDLESS + "SELECT group_concat(hex(zeroblob(100000 + 0 * i))) FROM (SELECT i FROM n LIMIT 400)", "has more"),
        (ENDLESS + "SELECT zeroblob(1000000) FROM n ORDER BY -i", "needs more than 1 GiB of memory"),
    ],
)
def test_memory_and_disk_are_bounded(text: str, sentence: str, start: Start) -> None:
    out, err = start(text, "--csv").communicate(timeout=PATIENCE)
    assert sentence in err.decode(), out[:200]
    assert b"Traceback" not in err


def test_an_interrupt_within_a_function_of_ours_arrives(populated: Home) -> None:
    """Otherwise sqlite3 makes "user-defined function raised exception" of it."""
    before = signal.getsignal(signal.SIGINT)
    node = filters.parse("name ~ good", 0.0)
    with Reader(populated) as reader:
        connection = reader.connection()
        assert connection is not None
        connection.create_function("mm_contains", 2, lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            reader.select(node, [])
        with pytest.raises(KeyboardInterrupt):
            reader.count_where(node)
        with interruptible(connection):
            assert connection.execute("SELECT 1").fetchone()[0] == 1  # what was interrupted is over
    assert signal.getsignal(signal.SIGINT) is before
