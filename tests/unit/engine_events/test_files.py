"""The event file: what a reader may rely on whatever happens to the writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.events import (
    KINDS,
    EventWriter,
    Heartbeat,
    attempt_folder,
    attempt_numbers,
    cut_torn_line,
    last_seq,
    read_events,
    whole_lines,
)
from engine.events.lines import lines_from_the_end
from engine.events.reader import Event, parse_line
from tests.process_state import file_size_limit
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_emit_line_has_every_key_of_the_schema(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e.jsonl", clock=lambda: 1764000000.12345)
    writer.at("match", 4, 14)
    writer.emit("metrics", {"loss": 0.5})
    assert events_of(tmp_path / "e.jsonl") == [
        {
            "v": 1,
            "seq": 1,
            "t": 1764000000.123,
            "kind": "metrics",
            "stage": "match",
            "step": 4,
            "global_step": 14,
            "values": {"loss": 0.5},
        }
    ]


def test_emit_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e.jsonl")
    writer.emit("metrics", {"a": float("nan"), "b": [1.0, float("-inf")], "c": {"d": float("inf")}, "e": (1, 2)})
    assert events_of(tmp_path / "e.jsonl")[0]["values"] == {"a": None, "b": [1.0, None], "c": {"d": None}, "e": [1, 2]}


def test_emit_from_many_threads_gives_whole_lines_in_order_of_seq(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "e.jsonl")

    def emit_many() -> None:
        for _ in range(100):
            writer.emit("metrics", {"x": "y" * 500})

    threads = [threading.Thread(target=emit_many) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in events_of(tmp_path / "e.jsonl")] == list(range(1, 501))


def test_emit_every_line_is_one_write_in_append_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    real = os.write

    def counted(descriptor: int, data: bytes) -> int:
        writes.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    path = tmp_path / "e.jsonl"
    writer = EventWriter(path)
    writer.emit("metrics", {"x": "y" * 20_000})
    with path.open("ab") as other:
        other.write(b'{"by":"another"}\n')
    writer.emit("metrics", {})
    assert len(writes) == 2 and all(line.endswith(b"\n") for line in writes)
    assert [event.get("by") for event in events_of(path)] == [None, "another", None]


def test_open_for_attempt_seq_goes_on_over_attempts_and_torn_lines(tmp_path: Path) -> None:
    first = EventWriter.open_for_attempt(tmp_path, 1)
    for _ in range(3):
        first.emit("progress", {})
    first.close()
    path = attempt_folder(tmp_path, 1) / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":4,"t":1.0,"kind":"met')
    second = EventWriter.open_for_attempt(tmp_path, 2)
    second.emit("progress", {})
    again = EventWriter.open_for_attempt(tmp_path, 2)
    again.emit("progress", {})
    assert [e["seq"] for e in events_of(attempt_folder(tmp_path, 2) / "events.jsonl")] == [4, 5]
    assert attempt_numbers(tmp_path) == [1, 2]


def test_open_torn_last_line_is_cut_and_what_follows_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    EventWriter(path).emit("progress", {})
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":2,' + b"x" * 100_000)
    EventWriter(path, first_seq=2).emit("progress", {"text": "after"})
    assert [event["seq"] for event in events_of(path)] == [1, 2]


@pytest.mark.parametrize(("content", "kept"), [(b"", b""), (b"abc", b""), (b"a\nb", b"a\n"), (b"a\nb\n", b"a\nb\n")])
def test_cut_torn_line_keeps_all_that_ends_in_a_newline(tmp_path: Path, content: bytes, kept: bytes) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(content)
    assert cut_torn_line(path) == len(content) - len(kept)
    assert path.read_bytes() == kept


def test_last_seq_skips_lines_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"seq":7}\n{"no":1}\n\xff\xfe\n[1]\n' + b"z" * 200_000 + b"\n")
    assert last_seq(path) == 7


def test_emit_partial_write_is_taken_back_and_raised(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    writer = EventWriter(path)
    writer.emit("progress", {"text": "fits"})
    size = path.stat().st_size
    with file_size_limit(size + 40), pytest.raises(OSError, match="space") as caught:
        writer.emit("progress", {"text": "x" * 200})
    assert caught.value.filename == str(path)
    assert path.stat().st_size == size
    writer.emit("progress", {"text": "space again"})
    assert [event["seq"] for event in events_of(path)] == [1, 2]


def test_emit_full_device_raises_with_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.symlink_to("/dev/full")
    writer = EventWriter(path)
    with pytest.raises(OSError, match="space") as caught:
        writer.emit("progress", {})
    assert caught.value.filename == str(path)


def test_read_events_resumes_at_an_offset_and_leaves_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    writer = EventWriter(path)
    writer.emit("progress", {"n": 1})
    (first,) = read_events(path)
    writer.emit("progress", {"n": 2})
    with path.open("ab") as file:
        file.write(b"no json\n{torn")
    rest = list(read_events(path, first[0]))
    assert [None if event is None else event.record.values["n"] for _, event in rest] == [2, None]
    assert rest[-1][0] == path.stat().st_size - len(b"{torn")


def test_heartbeat_beats_only_in_silence_and_never_after_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.jsonl"
    writer, looks, busy = EventWriter(path), [], True
    writer.emit("progress", {})
    quiet_seconds = writer.quiet_seconds
    monkeypatch.setattr(writer, "quiet_seconds", lambda: looks.append(1) or (0.0 if busy else quiet_seconds()))
    with Heartbeat(writer, interval=0.1):
        until(lambda: len(looks) > 4)
        assert "heartbeat" not in [event["kind"] for event in events_of(path)]
        busy = False
        until(lambda: "heartbeat" in path.read_text())
    beats = [event for event in events_of(path) if event["kind"] == "heartbeat"]
    assert beats and beats[0]["values"]["rss"] > 1_000_000
    size = path.stat().st_size
    time.sleep(0.25)  # more than two intervals: a thread that has ended stays silent however long that is
    assert path.stat().st_size == size


def test_events_module_needs_no_torch() -> None:
    code = "import sys, engine.events, engine.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_kinds_are_those_of_the_documented_schema() -> None:
    table = (ROOT / "docs" / "events.md").read_text().split("| kind | `values` |")[1].split("\n\n")[0]
    documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert documented == KINDS


def test_events_tell_how_much_was_printed_where_the_output_lies_beside_them(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.events import EventWriter;"
        "writer = EventWriter(Path(sys.argv[1]) / 'events.jsonl');"
        "[(print('x' * n, flush=True), writer.emit('progress', {})) for n in (1, 10, 100)]"
    )
    for name, beside in (("output.log", True), ("elsewhere.log", False)):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / name).open("wb") as output:
            subprocess.run([sys.executable, "-c", code, str(folder)], stdout=output, cwd=ROOT, check=True)
        told = [event.get("printed") for event in events_of(folder / "events.jsonl")]
        assert told == ([2, 13, 114] if beside else [None] * 3)


LONG = "engine.events.lines.LONGEST_LINE"


def test_read_events_passes_over_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LONG, 1000)
    event, path = b'{"seq":1,"t":1,"kind":"a","values":{"pad":"%s"}}\n', tmp_path / "e.jsonl"
    fits = event % (b"x" * (1000 - len(event % b"")))
    assert len(fits) == 1000
    path.write_bytes(fits + event % (b"x" * 1000) + b"y" * 5_000_000 + b"\n" + event % b"" + b"z" * 3000)
    found = list(read_events(path))
    assert [str(item.record.values["pad"])[:1] if item else None for _, item in found] == ["x", None, None, ""]
    assert found[-1][0] == path.stat().st_size - 3000
    assert list(read_events(path, found[1][0]))[-1] == found[-1]


@pytest.mark.parametrize("behind", [b"", b"torn" * 100, b"t" * 200_000])
def test_last_seq_passes_over_lines_that_are_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bytes
) -> None:
    monkeypatch.setattr(LONG, 1000)
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"seq":7}\n{"seq":8,"pad":"' + b"x" * 400_000 + b'"}\n{"seq":99999999999999999999}\n' + behind)
    assert last_seq(path) == 7
    assert cut_torn_line(path) == len(behind)
    assert last_seq(path) == 7


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12), block=st.integers(1, 40))
def test_lines_from_the_end_are_those_from_the_beginning_turned_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: list[tuple[int, bool]], block: int
) -> None:
    monkeypatch.setattr("engine.events.lines.BLOCK_BYTES", block)
    monkeypatch.setattr(LONG, 20)
    content = b"".join(bytes([65 + n]) * length + (b"\n" if ends else b"") for n, (length, ends) in enumerate(parts))
    (tmp_path / "f").write_bytes(content)
    expected = [line for line in content.split(b"\n")[:-1] if len(line) < 20]
    with (tmp_path / "f").open("rb") as file:
        assert list(lines_from_the_end(file)) == expected[::-1]
    with (tmp_path / "f").open("rb") as file:
        assert [line.rstrip(b"\n") for _, line in whole_lines(file) if line is not None] == expected
    assert cut_torn_line(tmp_path / "f") == len(content.split(b"\n")[-1])


def test_emit_event_longer_than_readers_take_becomes_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LONG, 400)
    writer = EventWriter(tmp_path / "e.jsonl")
    writer.emit("projection", {"x": [0.5] * 1000})
    writer.emit("note", {"a": 1})
    writer.close()
    first, second = (event for _, event in read_events(writer.path))
    assert first is not None and second is not None
    assert (first.kind, first.seq, second.seq) == ("warning", 1, 2)
    assert "'projection'" in str(first.record.values["text"])


def test_emit_writes_names_of_files_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"h\xff \xc3\xa9")
    writer = EventWriter.open_for_attempt(tmp_path, 1)
    writer.emit("error", {"text": name, "type": "x"})
    writer.close()
    (event,) = events_of(writer.path)
    assert event["values"]["text"] == name
    read = parse_line(writer.path.read_bytes())
    assert isinstance(read, Event) and read.record.values["text"] == "h\\xff é", "read, it can be stored"
