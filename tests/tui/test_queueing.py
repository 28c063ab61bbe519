"""What the form queues is what the command line queues; and what becomes of it when something is in the way."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from mmtui.errors import RefusedError, UsageError
from mmtui.paths import Home
from mmtui.services import code, runs, submit
from mmtui.store.runs import delayed_text
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens import queueing
from mmtui.tui.screens.new_run import NewRunDialog
from mmtui.tui.screens.run_request import NewRun
from tests.e2e.test_disk import fill
from tests.family import trained_parent
from tests.tui.test_terminal import Terminal
from tests.waiting import until, until_async

OWN = {"created_at", "not_before"}
"""Columns that tell when a run was queued, or count from then."""
SLURM = "--launcher slurm --slurm nodes=2 --slurm partition=gpu"
QUEUED = [
    ("shapes_smoke", "", "", "--hold"),
    ("shapes_smoke", "segment.steps=3 seed=7", "a name", "--hold --tag x --tag 'y z'"),
    ("shapes_smoke", "seed=0..2 segment.steps=3,4", "", "--hold"),
    ("shapes_smoke", "seed=0..1 segment.steps=3,4", "s", "--zip --hold --group g --budget 20h --fail-fast"),
    ("shapes_mixmatch", "", "", "--hold --smoke --seed=3"),
    ("shapes_mixmatch", "seed=0,1", "", "--smoke --hold --group=g --priority -3"),
    ("shapes_smoke", "", "", "--hold --after 1 --after 2 --if-failed run"),
    ("shapes_smoke", "", "", "--hold --delay 2h --time-limit 90m"),
    ("shapes_smoke", "", "", "--hold --delay 0"),
    ("shapes_smoke", "", "--hold", "--hold --gpus 0.5"),
    ("shapes_smoke", "", "", f"--hold {SLURM} --gpus 2"),
    ("tiny", "segment.optim.lr=0.2 runtime.keep_every=2", "child", "--from 1@9 --hold"),
    ("tiny", "seed=1 segment.optim.lr=0.1,0.2", "", "--from 1 --hold"),
    ("shapes_smoke", "", "", "segment.steps=5 --hold -- seed=2"),
]
REFUSED = [
    ("shapes_smoke", "", "", "--slurm nodes=2"),
    ("shapes_smoke", "", "", "--launcher slurm --slurm nodes=x"),
    ("shapes_smoke", "", "", "--launcher cloud"),
    ("shapes_smoke", "", "", "--gpus 1.5"),
    ("shapes_smoke", "", "", "--gpus 4"),
    ("shapes_smoke", "", "", "--budget 20h"),
    ("shapes_smoke", "", "", "--budget 0"),
    ("shapes_smoke", "", "", "--fail-fast"),
    ("shapes_smoke", "", "", "--delay soon"),
    ("shapes_smoke", "", "", "--time-limit 20000d"),
    ("shapes_smoke", "", "", "--after 99"),
    ("shapes_smoke", "", "", "--if-failed maybe"),
    ("shapes_smoke", "", "", "--priority 9999999999999999"),
]


@pytest.fixture(scope="module")
def parent_once(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return trained_parent(tmp_path_factory.mktemp("parent") / "mmtui")


@pytest.fixture
def twins(home: Home, parent_once: Home, tmp_path: Path) -> tuple[Home, Home]:
    """Two data directories with the same run in them."""
    for root in (home.root, tmp_path / "twin"):
        shutil.copytree(parent_once.root, root)
    return home, Home(tmp_path / "twin")


def typed(home: Home, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """``mmtui run WORDS`` in a process of its own."""
    command = [sys.executable, "-P", "-m", "mmtui", "run", *words]
    env = {**os.environ, "MMTUI_HOME": str(home.root)}
    return subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def stored(home: Home) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of all runs, without what depends on the moment, and what is set for groups."""
    with closing(sqlite3.connect(home.database)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM runs ORDER BY id")]
        settings = dict(connection.execute("SELECT key, value FROM settings WHERE key LIKE '%:%'").fetchall())
    for row in rows:
        row["reason"] = row["reason"].replace(delayed_text(row["not_before"]), "waits until its own moment")
    return [{key: value for key, value in row.items() if key not in OWN} for row in rows], settings


def moments(home: Home) -> list[float]:
    """Before which Unix time each run does not start, 0 = whenever it can."""
    with closing(sqlite3.connect(home.database)) as connection:
        return [float(row[0]) for row in connection.execute("SELECT not_before FROM runs ORDER BY id")]


async def ask(app: MmtuiApp, pilot: Pilot[int], entry: tuple[str, str, str, str]) -> NewRun:
    """Fill the form in, and press Enter."""
    recipe, *texts = entry
    await pilot.press("n")
    await until_async(lambda: isinstance(app.screen, NewRunDialog) and app.screen.checker.ready)
    dialog = app.screen
    assert isinstance(dialog, NewRunDialog)
    dialog.recipe_list.go_to(recipe)
    for name, text in zip(("overrides", "name", "options"), texts, strict=True):
        dialog.query_one(f"#{name}", Input).value = text
    wanted = dialog.entered()
    assert wanted is not None and wanted.recipe == recipe
    dialog.query_one("#options", Input).focus()
    await pilot.press("enter")
    await until_async(lambda: app.screen is app.runs_screen, f"the form takes {entry}")
    await until_async(lambda: app.runs_screen.said.startswith(("queued", "! ")), f"the end of {entry}")
    return wanted


async def test_form_queues_the_rows_that_the_command_line_makes(twins: tuple[Home, Home]) -> None:
    here, there = twins
    app = MmtuiApp(here)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        for entry in QUEUED:
            wanted = await ask(app, pilot, entry)
            before = len(runs.list_runs(there))
            done = typed(there, ("--quiet", *wanted.words))
            assert (done.returncode, done.stderr) == (0, ""), entry
            ids = done.stdout.split()
            several = f"queued {len(ids)} runs, {ids[0]} to {ids[-1]}"
            assert app.runs_screen.said == (several if len(ids) > 1 else f"queued run {ids[0]}")
            assert len(runs.list_runs(there)) == before + len(ids) > before
    (rows, settings), (expected, expected_settings) = stored(here), stored(there)
    for row, one in zip(rows, expected, strict=True):
        assert row == {**one, "config": row["config"], "code": row["code"]}
        assert row["config"] == one["config"].replace(str(there.root), str(here.root))
    assert settings == expected_settings and {"failfast:g", "budget:g"} <= set(settings)
    assert moments(here) == pytest.approx(moments(there), abs=200)
    later, at_once = (moment for moment in moments(here) if moment)
    assert later - at_once == pytest.approx(7200, abs=200)


async def test_form_refuses_in_the_words_of_the_command_line(twins: tuple[Home, Home]) -> None:
    here, there = twins
    app = MmtuiApp(here)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_async(lambda: app.runs_screen.is_mounted)
        for entry in REFUSED:
            wanted = await ask(app, pilot, entry)
            done = typed(there, wanted.words)
            first, *hint = done.stderr.splitlines()
            assert done.returncode, entry
            told = f"! {first.removeprefix('error: ')}" + (f" ({hint[0].strip()})" if hint else "")
            assert app.runs_screen.said == told
    assert [len(runs.list_runs(home)) for home in twins] == [1, 1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--gpsu 2", "there is no option --gpsu: did you mean --gpus?"),
        ("--name", "--name lacks its value"),
        ("--hold=yes", "--hold takes no value"),
        ("--seed -1", "--seed -1: write at least 0"),
        ("--priority high", "--priority high: write a whole number"),
        ("--gpus nan", "--gpus nan: write a number that is not infinite"),
        ("-f", "stays until a run ends"),
        ("--hold --follow", "stays until a run ends"),
    ],
)
def test_option_that_is_none_is_told_and_nothing_is_queued(home: Home, options: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        queueing.queue(home, NewRun("shapes_smoke", (), "", tuple(options.split())), submit.untold, time.time())
    assert told in refused.value.message
    assert not home.root.exists()


def test_dry_run_in_the_form_queues_nothing_and_says_what_it_would(home: Home) -> None:
    def look(*overrides: str) -> str:
        wanted = NewRun("shapes_baseline", overrides, "", ("--dry-run",))
        found, told = queueing.queue(home, wanted, submit.untold, time.time())
        assert found is None
        return told

    assert look("seed=0..4") == "--dry-run: 5 runs would be queued"
    assert "1 run would be queued; it would not start here: model.weights /no.pth" in look("model.weights=/no.pth")
    assert not home.root.exists()


async def told_by(app: MmtuiApp, wanted: NewRun) -> str:
    """What the screen says in the end about a run that is to be queued."""
    app.runs_screen._launch(wanted)
    await until_async(lambda: app.runs_screen.said.startswith(("queued", "! ")))
    return app.runs_screen.said


HELD = NewRun("shapes_smoke", (), "", ("--hold",))
SWEEP = NewRun("shapes_smoke", ("seed=0..29",), "", ("--hold",))


async def test_big_sweep_tells_how_far_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(queueing, "EVERY_SECONDS", 0.0)
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)):
        await until_async(lambda: app.runs_screen.is_mounted)
        said: list[str] = []
        say = app.runs_screen.say
        monkeypatch.setattr(app.runs_screen, "say", lambda text: (said.append(text), say(text)))
        assert await told_by(app, SWEEP) == "queued 30 runs, 1 to 30"
        assert await told_by(app, HELD) == "queued run 31"
    shares = [int(text.split()[-2]) for text in said if text.startswith("queueing 30 runs: ")]
    assert len(shares) > 10 and shares == sorted(shares) and 0 <= shares[0] < shares[-1] <= 100
    assert said[said.index("queued 30 runs, 1 to 30") + 1 :] == ["queueing shapes_smoke", "queued run 31"]


def test_screen_that_cannot_show_progress_holds_up_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_text: str) -> None:
        raise RuntimeError("the screen is closed")

    monkeypatch.setattr(queueing, "SILENT_SECONDS", 0.0)
    found, told = queueing.queue(home, SWEEP, queueing.Progress(closed), time.time())
    assert found is not None and told == "queued 30 runs, 1 to 30"
    assert len(runs.list_runs(home)) == 30


async def test_database_that_others_hold_is_told_and_nothing_is_queued(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmtui.store.db.BUSY_SECONDS", 0.05)
    app = MmtuiApp(home.create())
    async with app.run_test(size=(100, 30)):
        await until_async(lambda: app.runs_screen.is_mounted)
        assert await told_by(app, HELD) == "queued run 1"
        with closing(sqlite3.connect(home.database)) as other:
            other.execute("BEGIN IMMEDIATE")
            told = await told_by(app, SWEEP)
            assert told.startswith("! ") and "database" in told and "fault" not in told
            other.rollback()
        assert [row.id for row in runs.list_runs(home)] == ["1"]
        assert (await told_by(app, SWEEP)).startswith("queued 30 runs")
    assert len(runs.list_runs(home)) == 31


@pytest.fixture
def small_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A data directory on a small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests mount a file system")
    monkeypatch.setenv("MMTUI_HOME", str(tmp_path / "h"))
    yield Home(tmp_path / "h").create()
    subprocess.run(["umount", "-l", str(tmp_path)], check=False)


async def test_full_disk_is_told_and_nothing_is_queued(small_home: Home, tmp_path: Path) -> None:
    app = MmtuiApp(small_home)
    async with app.run_test(size=(100, 30)):
        await until_async(lambda: app.runs_screen.is_mounted)
        assert await told_by(app, HELD) == "queued run 1"
        ballast = fill(tmp_path)
        told = await told_by(app, SWEEP)
        assert told.startswith("! ") and ("full" in told or "No space left" in told) and "fault" not in told
        ballast.unlink()
        assert [row.id for row in runs.list_runs(small_home)] == ["1"]
        assert (await told_by(app, SWEEP)).startswith("queued 30 runs")
    assert len(runs.list_runs(small_home)) == 31
    assert not [path for path in small_home.runs.iterdir() if path.name.startswith(".")]


async def test_supervisor_that_cannot_be_started_is_told_and_the_run_stays_queued(home: Home) -> None:
    home.create()
    home.supervisor_log.mkdir()
    app = MmtuiApp(home)
    async with app.run_test(size=(100, 30)):
        await until_async(lambda: app.runs_screen.is_mounted)
        told = await told_by(app, NewRun("shapes_smoke", (), ""))
        assert told.startswith("queued run 1; the supervisor cannot be started:")
    assert [row.state for row in runs.list_runs(home)] == ["queued"]


async def test_fault_while_queueing_is_told_and_the_screen_goes_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise ValueError("nobody expected this")

    app = MmtuiApp(home.create())
    async with app.run_test(size=(100, 30)):
        await until_async(lambda: app.runs_screen.is_mounted)
        with monkeypatch.context() as faulty:
            faulty.setattr(submit, "plan", failing)
            assert "a fault of mmtui: ValueError: nobody expected this" in await told_by(app, HELD)
        assert await told_by(app, HELD) == "queued run 1"
    assert "nobody expected this" in home.screen_log.read_text()
    home.screen_log.unlink()  # it tells of this fault alone


def test_engine_that_was_changed_while_the_screen_was_open_is_told(home: Home) -> None:
    """Its recipes would be read by the former code, and trained by the new one."""
    import engine.config

    code.refuse_loaded_before(time.time())
    with pytest.raises(RefusedError, match="was changed after this screen was opened"):
        queueing.queue(home, HELD, submit.untold, Path(engine.config.__file__).stat().st_mtime - 1)
    assert not home.root.exists()


@pytest.mark.parametrize("end", ["keys", "SIGTERM", "SIGKILL"])
def test_screen_that_ends_while_a_sweep_is_queued_leaves_all_of_it_or_nothing(home: Home, end: str) -> None:
    own = home.create().root / "recipes" / "zzz.yaml"
    own.parent.mkdir()
    own.write_text("base: shapes_smoke\n")
    terminal = Terminal(home, 120, 36)
    try:
        terminal.wait_for("no runs yet")
        terminal.child.send(b"nzzz")
        terminal.until(lambda: "> " in terminal.text() and "zzz" in terminal.text(), "the recipe")
        terminal.child.send(b"\t\t\tseed=0..299")
        terminal.wait_for("ok: 300 runs")
        terminal.child.send(b"\t\t--hold\r")
        # A machine that is quick may have queued them all between two looks: that is all of it, and fine.
        until(
            lambda: any(home.runs.glob(".draft-*")) or runs.list_runs(home),
            "folders of runs",
            terminal.text,
            lambda: terminal.read(0.005),
        )
        if end == "keys":
            terminal.child.send(b"qq")
        else:
            os.kill(terminal.child.pid, getattr(signal, end))
        terminal.until(lambda: terminal.ended, "the end of the program")
        status = terminal.child.until_ended()
    finally:
        terminal.child.close(force=True)
    assert status == {"keys": 0, "SIGTERM": 128 + signal.SIGTERM, "SIGKILL": None}[end]
    there = len(runs.list_runs(home))
    assert there == 300 or (there == 0 and end == "SIGKILL"), "who leaves waits until the runs are queued"
    if not there:
        assert typed(home, ("zzz", "--hold", "--quiet")).returncode == 0
    until(lambda: not any(home.runs.glob(".*")), "nothing that is half there")
    assert len(runs.list_runs(home)) == (there or 1)
