"""A database is replaced: a process that is killed on the way loses nothing, and what was removed stays removed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import mending, queue, replacement, salvage
from mmtui.store.reader import Reader

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]


class Killed(BaseException):
    """What nobody catches: the process ends here."""


@pytest.fixture
def noted(home: Home, mmtui_: Invoke) -> Home:
    """Two runs of a sweep with notes, and a limit; no log beside the database."""
    queue.enqueue_all(home, "shapes_baseline", [["seed=0"], ["seed=1"]], queue.Terms(hold=True))
    for run_id in ("1", "2"):
        assert mmtui_("note", run_id, f"about {run_id}").code == 0
    queue.limit_group(home, "night", 2)
    return home


def flush(home: Home) -> None:
    with closing(sqlite3.connect(home.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def break_index(home: Home) -> None:
    """SQLite finds it damaged, and every row of runs can be read."""
    flush(home)
    with closing(sqlite3.connect(home.database)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'metrics'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with home.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def notes(mmtui_: Invoke, *ids: str) -> list[str]:
    return [mmtui_("show", run_id, "--json").json()["note"] for run_id in ids]


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(owner, name, killed)


@pytest.mark.parametrize("owner, name", [(mending, "rebuild"), (salvage, "take_over"), (salvage, "read")])
@pytest.mark.parametrize("backup", [False, True])
def test_fix_that_was_killed_after_the_exchange_is_finished_by_the_next(
    noted: Home, mmtui_: Invoke, owner: Any, name: str, backup: bool
) -> None:
    if backup:
        assert mmtui_("backup").code == 0
    assert mmtui_("note", "1", "later").code == 0
    break_index(noted)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, owner, name)
        with pytest.raises(Killed):
            list(mending.fix(noted))
    found = mmtui_("doctor")
    assert found.code == 1 and "mmtui doctor --fix" in found.out
    if noted.database.exists():
        assert "its replacement was interrupted; the old one is mmtui.db.damaged-" in found.out
    assert "replacement of the database is finished" in mmtui_("doctor", "--fix").err
    assert notes(mmtui_, "1", "2") == ["later", "about 2"]
    with Reader(noted) as reader:
        assert reader.settings()["limit:night"] == "2"
    assert not (noted.root / replacement.MARK).exists() and replacement.unfinished(noted) is None


def test_fix_that_was_killed_before_the_exchange_begins_anew(noted: Home, mmtui_: Invoke) -> None:
    assert mmtui_("backup").code == 0
    break_index(noted)
    with pytest.MonkeyPatch.context() as patch:
        rename = Path.rename

        def killed(path: Path, target: Path) -> Path:
            if path.suffix == ".new":
                raise Killed
            return rename(path, target)

        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            list(mending.fix(noted))
    err = mmtui_("doctor", "--fix").err
    assert "the damaged database is kept as" in err and "finished" not in err
    assert notes(mmtui_, "1", "2") == ["about 1", "about 2"]


def test_restore_that_was_killed_is_finished_and_keeps_what_the_backup_says(noted: Home, mmtui_: Invoke) -> None:
    copy = mmtui_("backup", str(noted.root / "copy.db")).out.strip()
    assert mmtui_("note", "1", "later").code == 0
    queue.limit_group(noted, "night", 5)
    queue.enqueue(noted, "shapes_baseline", hold=True)
    assert mmtui_("note", "3", "of a later run").code == 0
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, salvage, "take_over")
        with pytest.raises(Killed):
            list(mending.restore_backup(noted, Path(copy)))
    assert "finished" in mmtui_("doctor", "--fix").err
    assert notes(mmtui_, "1", "2", "3") == ["about 1", "about 2", "of a later run"]
    with Reader(noted) as reader:
        assert reader.settings()["limit:night"] == "2", "the backup was chosen by a person"


def test_mark_that_says_nonsense_is_passed_over(noted: Home, mmtui_: Invoke) -> None:
    for content in (b"\xff", b"[]", b'{"kept": "../elsewhere"}', b'{"kept": "mmtui.db.gone"}', b'{"kept": 5}'):
        (noted.root / replacement.MARK).write_bytes(content)
        assert replacement.unfinished(noted) is None
        assert "interrupted; the old one" not in mmtui_("doctor").out


@pytest.mark.parametrize("how", ["damaged", "gone", "all removed"])
def test_removed_runs_are_in_the_trash_of_a_database_that_was_made_again(noted: Home, mmtui_: Invoke, how: str) -> None:
    assert mmtui_("rm", "2").code == 0
    if how == "damaged":
        break_index(noted)
    else:
        if how == "all removed":
            assert mmtui_("rm", "1").code == 0
        for file in noted.root.glob("mmtui.db*"):
            file.unlink()
        assert "is gone, but folders of runs are there" in mmtui_("ls").err
    assert "run 2 made again from its folder: held, in the trash" in mmtui_("doctor", "--fix").err
    shown = [row["id"] for row in mmtui_("ls", "--json").json()["runs"]]
    assert shown == ([] if how == "all removed" else ["1"])
    assert not [line for line in mmtui_("purge").out.splitlines() if "files of purged run" in line]
    assert mmtui_("restore", "2").code == 0
    assert mmtui_("show", "2", "--json").json()["state"] == "held"
    if how == "damaged":
        assert notes(mmtui_, "2") == ["about 2"]


def test_what_a_killed_purge_has_left_does_not_come_back(noted: Home, mmtui_: Invoke) -> None:
    assert mmtui_("rm", "2").code == 0
    with closing(sqlite3.connect(noted.database)) as connection:
        connection.execute("DELETE FROM runs WHERE id = 2")
        connection.commit()
    (noted.run("9").root).mkdir()
    list(mending.fix(noted))
    with Reader(noted) as reader:
        assert [tuple(row) for row in reader.query("SELECT id FROM runs")] == [(1,)]


def test_first_run_of_a_sweep_keeps_its_group_when_the_database_is_made_again(noted: Home, mmtui_: Invoke) -> None:
    for file in noted.root.glob("mmtui.db*"):
        file.unlink()
    assert mmtui_("doctor", "--fix").code in (0, 1)
    with Reader(noted) as reader:
        rows = reader.query("SELECT id, run_group FROM runs ORDER BY id")
        assert [tuple(row) for row in rows] == [(1, "sweep-1"), (2, "sweep-1")]
