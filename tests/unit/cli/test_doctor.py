"""doctor: every fault it is there to find, made for real."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import doctor, queue
from tests.process_state import file_size_limit

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]


def check(home: Home, name: str) -> doctor.Check:
    (found,) = [item for item in doctor.checks(home) if item.name == name]
    return found


def test_doctor_on_a_fresh_machine_finds_no_fault_and_makes_nothing(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("doctor")
    faults = [item for item in doctor.checks(home) if item.ok is False and item.name != "disk"]
    assert not faults
    assert "torch" in found.out
    assert not home.root.exists()


def test_doctor_names_the_fault_and_what_to_do_and_exits_1(populated: Home, mmtui_: Invoke) -> None:
    populated.root.chmod(0o755)
    found = mmtui_("doctor")
    assert found.code == 1
    assert f"-> chmod 700 {populated.root}" in found.out
    populated.root.chmod(0o700)
    assert check(populated, "home").ok


def test_database_with_a_damaged_page_is_a_fault(populated: Home) -> None:
    assert check(populated, "database").ok
    with populated.database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)
    assert check(populated, "database").ok is False


def test_supervisor_missing_while_runs_wait_is_a_fault(populated: Home) -> None:
    assert check(populated, "supervisor").ok is None
    queue.release(populated, "3")
    found = check(populated, "supervisor")
    assert (found.ok, found.fix) == (False, "mmtui daemon start")


def test_recipe_that_does_not_load_is_a_fault(populated: Home) -> None:
    assert check(populated, "recipes").ok
    own = populated.root / "recipes"
    own.mkdir()
    (own / "mine.yaml").write_text("sed: 1\n")
    found = check(populated, "recipes")
    assert found.ok is False
    assert "mine.yaml" in found.text


def test_settings_that_are_wrong_are_a_fault(populated: Home) -> None:
    populated.config.write_text("rows = 'many'\n")
    assert check(populated, "settings").ok is False


def test_network_file_system_is_a_fault(populated: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(populated, "file system").ok
    monkeypatch.setattr(doctor, "_filesystem_kind", lambda path: "nfs4")
    found = check(populated, "file system")
    assert found.ok is False
    assert "MMTUI_HOME" in found.fix


@pytest.mark.parametrize(
    "version, safe",
    [((3, 40, 1), None), ((3, 44, 6), True), ((3, 50, 7), True), ((3, 50, 6), None), ((3, 51, 3), True)],
)
def test_sqlite_with_the_wal_reset_fault_is_a_note(
    monkeypatch: pytest.MonkeyPatch, home: Home, version: tuple[int, int, int], safe: bool | None
) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", version)
    assert check(home, "sqlite").ok is safe


def test_simulated_gpus_are_labelled_and_a_broken_recording_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "recording.json"
    device = {"nvmlDeviceGetName": "H100", "nvmlDeviceGetUUID": "GPU-1"}
    file.write_text(json.dumps({"format": 1, "users": {}, "frames": [{"devices": [device]}]}))
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(file))
    assert check(home, "gpu").text == "H100 (simulated)"
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(tmp_path / "missing.json"))
    assert "missing.json" in check(home, "gpu").text


# ---- --fix --------------------------------------------------------------------------------------------------------


def test_fix_on_a_sound_machine_does_nothing(populated: Home, mmtui_: Invoke) -> None:
    before = populated.database.read_bytes()
    found = mmtui_("doctor", "--fix")
    assert found.err == "" and populated.database.read_bytes() == before


def test_fix_closes_the_home_to_others(populated: Home, mmtui_: Invoke) -> None:
    populated.root.chmod(0o755)
    assert "private" in mmtui_("doctor", "--fix").err
    assert populated.root.stat().st_mode & 0o777 == 0o700


def test_row_without_folder_is_named_and_the_others_are_shown(populated: Home, mmtui_: Invoke) -> None:
    shutil.rmtree(populated.run("2").root)
    found = check(populated, "files")
    assert (found.ok, found.fix) == (False, "mmtui rm 2") and found.text == "1 run without its folder: 2"
    assert mmtui_("rm", "2").code == 0
    assert check(populated, "files").ok


def test_fix_takes_in_folders_that_the_database_does_not_know(
    populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SETTLED", -1.0)
    connection = sqlite3.connect(populated.database)
    for table in ("transitions", "stages", "runs"):
        connection.execute(f"DELETE FROM {table} WHERE {'id' if table == 'runs' else 'run_id'} = 3")
    connection.commit()
    connection.close()
    assert check(populated, "folders").text == "1 run folder not in the database: 3"
    assert "run 3 made again" in mmtui_("doctor", "--fix").err
    assert check(populated, "folders").ok and mmtui_("show", "3").code == 0


@pytest.mark.parametrize("backed_up", [True, False])
def test_fix_replaces_a_damaged_database_and_keeps_it(populated: Home, mmtui_: Invoke, backed_up: bool) -> None:
    if backed_up:
        mmtui_("note", "1", "a thought")
        assert mmtui_("backup").code == 0
        newer = populated.backups / "torn.db"  # newer, but none that SQLite can read
        newer.write_bytes(populated.database.read_bytes()[:5000] + b"\xff" * 20000)
    populated.database.write_bytes(b"\x00no database" * 1000)
    for suffix in ("-wal", "-shm"):
        Path(f"{populated.database}{suffix}").unlink(missing_ok=True)
    assert check(populated, "database").ok is False
    found = mmtui_("doctor", "--fix")
    assert check(populated, "database").ok, found.err
    (kept,) = populated.root.glob("mmtui.db.damaged-*")
    assert kept.read_bytes().startswith(b"\x00no database")
    if backed_up:
        assert "restored" in found.err and mmtui_("show", "1", "--json").json()["note"] == "a thought"
    else:
        assert "run 3 made again" in found.err


@pytest.mark.processes
def test_fix_starts_a_supervisor_for_waiting_runs(supervised: Home, mmtui_: Invoke) -> None:
    assert mmtui_("run", "shapes_baseline", "--hold", "--quiet").code == 0
    assert mmtui_("daemon", "stop").code == 0
    queue.release(supervised, "1")
    assert "a supervisor runs now" in mmtui_("doctor", "--fix").err
    assert check(supervised, "supervisor").ok
    mmtui_("cancel", "1")


DAMAGE: list[tuple[str, Any]] = [
    ("tags", "{bad"), ("config", "{bad"), ("gpus", "nope"), ("created_at", "text"), ("state", "weird"), ("miou", "abc"),
    ("overrides", "[1"), ("name", b"\xff\xfe"), ("code", "no"), ("recipe", b"\xff"), ("loss", "x"),
    ("run_group", b"\xff"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), DAMAGE)
def test_damaged_row_hides_no_other_is_named_and_mended(
    populated: Home, mmtui_: Invoke, column: str, value: object
) -> None:
    shutil.copy(populated.run("3").recipe, populated.run("1").recipe)
    told = json.loads(populated.run("3").manifest.read_text()) | {"name": "good", "seed": 7}
    populated.run("1").manifest.write_text(json.dumps(told))
    connection = sqlite3.connect(populated.database)
    miou = mmtui_("show", "1", "--json").json()["metrics"]["miou"]
    connection.execute(f"UPDATE runs SET {column} = ? WHERE id = 1", [value])
    connection.commit()
    connection.close()
    for words in (
        ["ls"], ["ls", "--json"], ["show", "1"], ["show", "3"], ["ls", "-F", "max loss > 0 or tag = demo or seed = 7"],
        ["queue"], ["compare", "1", "3"], ["ls", "--group", "seed"], ["report", "1", "3"], ["best", "--min", "loss"],
        ["diff", "1", "3"], ["news"], ["run", "shapes_baseline", "--smoke", "seed=0,1", "--dry-run"],
    ):  # fmt: skip
        found = mmtui_(*words)
        assert found.code in (0, 4) and "Traceback" not in found.err, (words, found.err)
    assert {row["id"] for row in mmtui_("ls", "--json").json()["runs"]} == {"1", "2", "3"}
    assert check(populated, "rows").text == f"run 1 has a damaged {column}"
    assert f"run 1: {column} mended" in mmtui_("doctor", "--fix").err
    assert check(populated, "rows").ok
    if column == "miou":
        assert mmtui_("show", "1", "--json").json()["metrics"]["miou"] == pytest.approx(miou)


@pytest.mark.parametrize("what", ["newer", "foreign", "foreign alembic", "folder"])
def test_fix_leaves_a_database_that_is_not_damaged(populated: Home, mmtui_: Invoke, what: str) -> None:
    mmtui_("note", "1", "keep me")
    database = populated.database
    if what == "folder":
        database.rename(populated.root / "kept.db")
        database.mkdir()
    else:
        if what != "newer":
            database.rename(populated.root / "kept.db")
        connection = sqlite3.connect(database)
        with connection:
            if what == "newer":
                connection.execute("UPDATE alembic_version SET version_num = '0099'")
                connection.execute("ALTER TABLE runs ADD COLUMN later TEXT")
            else:
                connection.execute("CREATE TABLE theirs (a)")
            if what == "foreign alembic":
                connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
                connection.execute("INSERT INTO alembic_version VALUES ('3f1b9c2d7e5a')")
        connection.close()
    before = database.read_bytes() if database.is_file() else b""
    found = mmtui_("doctor", "--fix")
    assert found.code == 1
    assert "is left as it is" in found.err
    assert "--fix" not in check(populated, "database").fix
    assert not list(populated.root.glob("mmtui.db.*-*"))
    assert (database.read_bytes() if database.is_file() else b"") == before
    for argv in (("ls",), ("note", "1", "x"), ("run", "shapes_smoke", "--hold")):
        assert mmtui_(*argv).code == 3, argv
    assert (database.read_bytes() if database.is_file() else b"") == before
    if what == "newer":
        connection = sqlite3.connect(database)
        assert connection.execute("SELECT note FROM runs WHERE id = 1").fetchone() == ("keep me",)
        connection.close()


@pytest.mark.parametrize("put", ["other database", "empty", "text", "folder", "itself"])
def test_backup_writes_over_nothing_that_is_no_backup(
    populated: Home, mmtui_: Invoke, tmp_path: Path, put: str
) -> None:
    file = populated.database if put == "itself" else tmp_path / "theirs.db"
    if put == "other database":
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE theirs (a)")
        connection.close()
    elif put == "folder":
        file.mkdir()
    elif put != "itself":
        file.write_bytes(b"" if put == "empty" else b"theirs")
    before = file.read_bytes() if file.is_file() else None
    found = mmtui_("backup", str(file))
    assert (found.code, found.out) == (5, "")
    assert str(file) in found.err
    assert (file.read_bytes() if file.is_file() else None) == before


def test_backup_writes_over_an_earlier_one_and_leaves_nothing_beside_it(
    populated: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "mine.db"
    for note in ("one", "two"):
        mmtui_("note", "1", note)
        assert mmtui_("backup", str(file)).code == 0
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT note FROM runs WHERE id = 1").fetchone() == ("two",)
    connection.close()
    assert [path.name for path in tmp_path.iterdir() if "mine" in path.name] == ["mine.db"]


def test_backup_that_finds_no_room_leaves_the_earlier_one(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "mine.db"
    assert mmtui_("backup", str(file)).code == 0
    before = file.read_bytes()
    # SQLite writes less than half of the copy before it meets the limit, as on a full disk.
    with file_size_limit(len(before) // 2):
        found = mmtui_("backup", str(file))
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("error: ")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "mine" in path.name] == ["mine.db"]


def test_backup_is_taken_back_and_the_database_as_it_was_is_kept(populated: Home, mmtui_: Invoke) -> None:
    mmtui_("note", "1", "before")
    copy = mmtui_("backup", str(populated.root / "copy %41.db")).out.strip()
    mmtui_("note", "1", "after")
    found = mmtui_("backup", "--restore", copy)
    assert (found.code, found.out) == (0, "") and "is kept as mmtui.db.replaced-" in found.err
    assert mmtui_("show", "1", "--json").json()["note"] == "before"
    assert len(list(populated.root.glob("mmtui.db.replaced-*"))) >= 1
    assert mmtui_("backup", "--restore", "/no/such/file").code == 4
    assert mmtui_("backup", "--restore").code == 2
    (populated.root / "torn.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert mmtui_("backup", "--restore", str(populated.root / "torn.db")).code == 3
    assert mmtui_("show", "1", "--json").json()["note"] == "before", "nothing was touched"
