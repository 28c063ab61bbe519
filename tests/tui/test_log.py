"""The output of a run: where each step stands in it, searching, wrapping, following."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.widgets import Input

from mmtui.cli import follow
from mmtui.domain.states import RunEvent
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services import output, runs
from mmtui.store.db import Database
from mmtui.store.runs import add_attempt
from mmtui.tui.app import MmtuiApp
from mmtui.tui.pages import log as page_of_log
from mmtui.tui.screens.commands import SearchDialog
from mmtui.tui.screens.run import RunScreen
from tests.tui.real import CRASHED_AT, KILLED_AT, crashed_run, events_of
from tests.tui.seed import seed_run
from tests.tui.test_pages import page, plain, ready, shown
from tests.waiting import until_async

NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    home = Home(tmp_path_factory.mktemp("crashed") / "home")
    return home, crashed_run(home)


def texts(found: output.Output) -> list[str]:
    return [text for text, ours in found.lines if not ours]


def headings(found: output.Output) -> list[str]:
    return [text for text, ours in found.lines if ours]


def test_every_step_of_a_real_run_tells_its_place_in_the_output(crashed: tuple[Home, str]) -> None:
    home, run_id = crashed
    for tries in (1, 2):
        printed = home.run(run_id).log(tries).read_bytes()
        logged = [event for event in events_of(home, run_id, tries) if event["kind"] == "metrics"]
        assert logged
        for event in logged:
            line = printed[: event["printed"]].splitlines()[-1].decode()
            assert re.match(rf"{event['stage']} {event['step']}/\d+  ", line), "the step's own line, and no later one"


def test_output_as_of_a_step_over_two_attempts_ends_with_that_step(crashed: tuple[Home, str]) -> None:
    home, run_id = crashed
    first, second = (home.run(run_id).log(tries).read_text() for tries in (1, 2))
    resumed = next(e for e in events_of(home, run_id, 2) if e["kind"] == "run_started")["values"]["resumed_global_step"]
    assert 0 < resumed < KILLED_AT, "some steps were done twice"
    for step in (*range(1, resumed + 1, 7), resumed):
        found = output.read_output(home, run_id, step)
        assert found.note == "" and not headings(found)
        text = "\n".join(texts(found))
        assert first.startswith(text) and last_step(home, run_id, texts(found)) == step
    for step in (resumed + 1, KILLED_AT, CRASHED_AT - 1):
        found = output.read_output(home, run_id, step)
        again = texts(found)[len(first.splitlines()) :]
        assert texts(found)[: len(first.splitlines())] == first.splitlines(), "all of the first attempt was there"
        assert second.startswith("\n".join(again)) and last_step(home, run_id, again) == step
        assert [text.split(",")[0] for text in headings(found)] == ["attempt 1", "attempt 2"]
    newest = output.read_output(home, run_id)
    assert texts(newest) == first.splitlines() + second.splitlines()


def last_step(home: Home, run_id: str, lines: list[str]) -> int:
    """Global step of the last progress line, worked out from the words of the lines alone."""
    offsets = {stage.name: stage.offset for stage in runs.get_run(home, run_id).stages}
    found = [m for line in lines if (m := re.match(r"(\w+) (\d+)/\d+  ", line))]
    return offsets[found[-1][1]] + int(found[-1][2])


def test_output_without_positions_is_placed_by_its_progress_lines(crashed: tuple[Home, str], tmp_path: Path) -> None:
    home, run_id = crashed
    wanted = {step: output.read_output(home, run_id, step) for step in (3, 17, CRASHED_AT - 2)}
    kept = {}
    for tries in (1, 2):
        file = home.run(run_id).events(tries)
        kept[file] = file.read_bytes()
        file.write_bytes(re.sub(rb'"printed":\d+,', b"", kept[file]))
    try:
        for step, exact in wanted.items():
            found = output.read_output(home, run_id, step)
            assert found.lines == exact.lines and found.note == "found by its progress lines"
    finally:
        for file, data in kept.items():
            file.write_bytes(data)


def foreign(home: Home, lines: list[str], **keys: object) -> str:
    """A run whose trainer is not ours: one event each second, one step each."""
    run_id = seed_run(home, "foreign", until=5, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    home.run(run_id).log(1).write_text("".join(f"{line}\n" for line in lines))
    events = [
        {"v": 1, "seq": n + 1, "t": NOW + n, "kind": "metrics", "stage": "x", "step": n, "global_step": n, "values": {}}
        for n in range(20)
    ]
    home.run(run_id).events(1).write_text("".join(json.dumps({**event, **keys}) + "\n" for event in events))
    return run_id


def test_output_with_times_is_placed_by_them_and_one_without_is_shown_whole(home: Home) -> None:
    stamps = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW + n)) for n in range(20)]
    lines = [f"[{stamp}] value {n}" for n, stamp in enumerate(stamps)]
    lines.insert(5, "  a line that goes on")
    run_id = foreign(home, lines)
    found = output.read_output(home, run_id, 4)
    assert texts(found) == lines[:6] and "times" in found.note
    utc = [f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(NOW + n))}Z value {n}" for n in range(20)]
    found = output.read_output(home, foreign(home, utc), 7)
    assert texts(found) == utc[:8]
    bare = [f"value {n}" for n in range(20)]
    found = output.read_output(home, foreign(home, bare), 7)
    assert texts(found) == bare and "not known" in found.note
    drawn, _ = page_of_log.log(home, "3", 80, False, 7)
    assert "not known" in plain(drawn[-1:])


@pytest.mark.parametrize("printed", [-5, "12", 2.5, 10**9, None, [1]])
def test_position_that_makes_no_sense_does_no_harm(home: Home, printed: object) -> None:
    run_id = foreign(home, ["one", "two"], printed=printed)
    assert texts(output.read_output(home, run_id, 3)) == ["one", "two"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(-1, 300))
def test_last_event_up_to_a_step_is_that_of_a_plain_search(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, step: int
) -> None:
    rng = random.Random(seed)
    path, now, lines = tmp_path_factory.mktemp("e") / "events.jsonl", 0, []
    for number in range(count):
        now += rng.choice([0, 0, 1, 3])
        event = {"seq": number, "t": 0.0, "kind": "x", "global_step": now, "values": "y" * rng.choice([5, 900, 70_000])}
        lines.append(json.dumps(event) if rng.random() > 0.1 else "no event {")
        if sum(map(len, lines)) > 3_000_000:
            break
    path.write_text("\n".join(lines) + '\n{"torn": ')
    events = [json.loads(line) for line in lines if line != "no event {"]
    before = [event["seq"] for event in events if event["global_step"] <= step]
    found = output.last_event(path, step)
    assert (None if found is None else found.seq) == (before[-1] if before else None)


def test_only_the_end_of_a_long_output_is_read_and_it_is_said(home: Home) -> None:
    run_id = seed_run(home, "long", until=5, seed=1, end=RunEvent.EXIT_OK, now=NOW)
    lines = [f"line {n:06d} " + "x" * 100 for n in range(20_000)]
    home.run(run_id).log(1).write_text("".join(f"{line}\n" for line in lines))
    found = output.read_output(home, run_id)
    assert texts(found) == lines[-len(texts(found)) :] and 4_000 < len(texts(found)) < 5_000
    (told,) = headings(found)
    assert "MiB before this are not shown" in told and f"mmtui logs {run_id}" in told
    database = Database(home)
    with database.write() as session:
        add_attempt(session, int(run_id), 2, began=NOW, ended=NOW, host="box")
    database.close()
    home.run(run_id).log(2).parent.mkdir()
    home.run(run_id).log(2).write_text("short\n")
    found = output.read_output(home, run_id)
    assert texts(found)[-1] == "short" and len(headings(found)) == 3, "the end of the attempt before is there too"


def test_run_that_does_not_exist_is_not_found(home: Home) -> None:
    with pytest.raises(NotFoundError):
        output.read_output(home, "7")


# ---- drawing -------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.text("ab 中🚀é", max_size=60), st.integers(2, 20), st.text("ab中", max_size=2))
def test_wrapped_line_is_whole_and_fits(text: str, width: int, wanted: str) -> None:
    spans = page_of_log.marked(text, wanted)
    lines = page_of_log.wrapped(spans, width)
    assert "".join(part for line in lines for part, _ in line) == text
    assert all(sum(cell_len(part) for part, _ in line) <= width for line in lines)
    if wanted:
        found = "".join(part for part, style in spans if style == page_of_log.FOUND)
        assert found == wanted * text.count(wanted)


async def test_search_goes_from_place_to_place(home: Home) -> None:
    run_id = seed_run(home, "training", until=330, seed=2, end=None, now=NOW)
    lines = [f"line {n}" + (" Warning: [bold]slow[/]" if n % 100 == 7 else "") for n in range(400)]
    home.run(run_id).log(1).write_text("".join(f"{line}\n" for line in lines))
    app = MmtuiApp(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("o")
        await until_async(lambda: "line 399" in shown(app) and " end" in shown(app))
        await pilot.press("slash")
        await until_async(lambda: isinstance(app.screen, SearchDialog))
        app.screen.query_one(Input).value = "WARNING: [bold]"
        await pilot.press("enter")
        await until_async(lambda: "line 307 Warning: [bold]slow[/]" in shown(app))
        assert "4 of 4" in page(app).said
        styles = [style for line in page(app).body for part, style in line if part == "Warning: [bold]"]
        assert styles == ["cursor"] * 4
        for key, line, told in (("N", 207, 3), ("N", 107, 2), ("n", 207, 3), ("n", 307, 4), ("n", 7, 1), ("N", 307, 4)):
            await pilot.press(key)
            await until_async(lambda line=line: f"line {line} W" in shown(app))
            assert f"{told} of 4" in page(app).said
        await pilot.press("slash")
        await until_async(lambda: isinstance(app.screen, SearchDialog))
        app.screen.query_one(Input).value = "nothing like it"
        await pilot.press("enter")
        await until_async(lambda: "does not occur" in page(app).said)


async def test_output_is_followed_until_one_scrolls_up_and_again_from_its_end(home: Home) -> None:
    run_id = seed_run(home, "training", until=330, seed=2, end=None, now=NOW)
    file = home.run(run_id).log(1)
    file.write_text("".join(f"line {n}\n" for n in range(100)))
    app = MmtuiApp(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(app, pilot)
        await pilot.press("o")
        await until_async(lambda: "line 99" in shown(app))
        assert isinstance(app.screen, RunScreen)
        append(home, file, "line 100")
        await until_async(lambda: "line 100" in shown(app))
        await pilot.press("k", "k")
        await until_async(lambda: " end" not in shown(app) and "line 98" in shown(app))
        append(home, file, "line 101")
        await until_async(lambda: "/102" in shown(app))
        assert "line 101" not in shown(app), "what one reads stays where it is"
        await pilot.press("G")
        await until_async(lambda: "line 101" in shown(app))
        append(home, file, "line 102 " + "y" * 100)
        await until_async(lambda: shown(app).splitlines()[-1].startswith("yyyy"))


def append(home: Home, file: Path, line: str) -> None:
    """A trainer prints, and the supervisor stores something."""
    with file.open("a") as out:
        out.write(f"{line}\n")
    database = Database(home)
    with database.write() as session:
        session.connection().exec_driver_sql(f"UPDATE runs SET last_event_at = {time.time()}")
    database.close()


async def test_slider_shows_the_output_of_a_crashed_run_as_it_was(crashed: tuple[Home, str]) -> None:
    home, run_id = crashed
    app = MmtuiApp(home, select=run_id)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("o")
        last = output.read_output(home, run_id).lines[-1][0]
        await until_async(lambda: last in shown(app))
        await pilot.press("left", "left")
        await until_async(lambda: "as of step" in shown(app))
        step = page(app).view.moment  # type: ignore[attr-defined]
        expected = output.read_output(home, run_id, step).lines[-1][0]
        await until_async(lambda: shown(app).splitlines()[-1].strip() == expected.strip())
        await pilot.press("0")
        await until_async(lambda: last in shown(app))


def test_output_as_of_a_step_on_the_command_line(
    crashed: tuple[Home, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, run_id = crashed
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    follow.logs([run_id], step=CRASHED_AT - 2, lines=3)
    found = output.read_output(home, run_id, CRASHED_AT - 2)
    assert capsys.readouterr().out.splitlines() == [text for text, _ in found.lines[-3:]]
    for wrong in ({"follow": True}, {"attempt": 1}):
        with pytest.raises(UsageError, match="--step"):
            follow.logs([run_id], step=3, **wrong)
