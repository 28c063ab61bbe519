"""What -o writes: never over a file that mmtui did not make, whole or not at all, and "-" where it is text."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmtui.__main__
from engine.marks import is_marked
from mmtui.cli import docs
from mmtui.errors import RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services import keeping, output_files, saved_views, written
from mmtui.services.run_folders import write_file
from mmtui.store.db import Database
from mmtui.store.db import backup as copy_database
from tests.process_state import file_size_limit
from tests.ptys import Program
from tests.waiting import PATIENCE

Invoke = Callable[..., Any]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder that things are written to."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def unit_file(there: Path) -> Path:
    return there / "systemd" / "user" / "mmtui.service"


VERBS: dict[str, tuple[list[str], Callable[[Path], Path]]] = {
    "report": (["report", "1", "--html", "{}/out"], lambda there: there / "out"),
    "figures": (["figures", "1", "-o", "{}"], lambda there: there / "loss_segment.svg"),
    "backup": (["backup", "{}/out"], lambda there: there / "out"),
    "unit": (["daemon", "install-service"], unit_file),
}
"""A command line, and a file that it writes."""


@pytest.mark.processes
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_over_a_file_that_it_did_not_make(
    populated: Home, mmtui_: Invoke, there: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(there))
    words, place = VERBS[verb]
    argv, file = [word.format(there) for word in words], place(there)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("theirs")
    before = names(file.parent)
    found = mmtui_(*argv)
    assert (found.code, found.out) == (5, "") and str(file) in found.err and "--force" in found.err
    assert file.read_text() == "theirs" and names(file.parent) == before, "nor anything beside it"
    assert mmtui_(*argv, "--force").code == 0
    assert file.read_bytes() != b"theirs"
    assert mmtui_(*argv).code == 0, "its own file is written anew without being told to"
    with file.open("ab") as changed:
        changed.write(b"<!-- a word of mine -->")
    assert mmtui_(*argv).code == 5, "changed by hand it is the user's"
    assert not [name for name in names(file.parent) if name.startswith(".")]


@pytest.mark.parametrize("to", ["csv", "jsonl", "parquet", "capsule", "backup"])
def test_what_a_person_has_changed_of_an_export_is_the_persons(
    populated: Home, mmtui_: Invoke, there: Path, to: str
) -> None:
    """Of a kind of file that has no place for a mark: what it held when it was written is remembered."""
    if to == "parquet":
        pytest.importorskip("pyarrow")
    file = there / "out"
    argv = ["backup", str(file)] if to == "backup" else ["export", "1", "--to", to, "-o", str(file)]
    for _ in range(2):
        assert mmtui_(*argv).code == 0, "its own file is written anew without being told to"
    ours = file.read_bytes()
    changed = ours[:-1] + bytes([ours[-1] ^ 1]) if to == "backup" else ours + b" "
    file.write_bytes(changed)
    os.utime(file, (2**31, 2**31))
    found = mmtui_(*argv)
    assert found.code == 5 and "was made or changed by someone else" in found.err and "--force" in found.err
    assert file.read_bytes() == changed
    file.write_bytes(ours)
    assert mmtui_(*argv).code == 0, "changed back it is ours again"
    old = there / "old"
    old.write_bytes(changed)
    os.utime(old, (1e9, 1e9))
    older = [word.replace(str(file), str(old)) for word in argv]
    looks_ours = to in ("csv", "backup")  # a blank behind the last line is none of the other formats
    assert not looks_ours or mmtui_(*older).code == 0, "of a version that remembered nothing: as it was then"


def test_files_that_are_remembered_are_bounded(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.create()
    monkeypatch.setattr(written, "MOST", 3)
    looks = written.unchanged(home, lambda _: True)
    files = [tmp_path / str(number) for number in range(20)]
    for number, file in enumerate(files):
        file.write_text(f"file {number}")
        written.remember(home, file)
        assert looks(file)
    known = [file.name for file in files if looks(file)]
    assert known[-3:] == ["17", "18", "19"] and len(known) <= 7
    assert len(home.written.read_text().splitlines()) <= 8


@pytest.mark.processes
@pytest.mark.parametrize("verb", VERBS)
def test_disk_that_is_full_leaves_the_former_file(
    populated: Home, mmtui_: Invoke, there: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(there))
    words, place = VERBS[verb]
    argv, file = [word.format(there) for word in words], place(there)
    assert mmtui_(*argv).code == 0
    before, beside = file.read_bytes(), names(file.parent)
    with monkeypatch.context() as patch:
        if verb == "backup":  # SQLite writes it, and all else that is written meanwhile is smaller
            limit: AbstractContextManager[None] = file_size_limit(len(before) // 2)
        else:
            limit = nullcontext()
            for name in ("write_text", "write_bytes"):
                patch.setattr(Path, name, _without_room(getattr(Path, name), file.parent))
        with limit:
            found = mmtui_(*argv, "--force")
    assert (found.code, found.out) == (3, "") and str(file) in found.err
    assert file.read_bytes() == before and names(file.parent) == beside


def _without_room(write: Callable[..., int], folder: Path) -> Callable[..., int]:
    """Writing of files with a limit for those in one folder: figures are drawn in another one first."""

    def limited(path: Path, content: str | bytes, **more: Any) -> int:
        with file_size_limit(len(content) // 2) if path.parent == folder else nullcontext():
            return write(path, content, **more)

    return limited


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_it_is_asked(populated: Home, there: Path, answer: str, written: bool) -> None:
    file = there / "out.html"
    file.write_text("theirs")
    arguments = ["-m", "mmtui", "report", "1", "--html", str(file)]
    program = Program(sys.executable, arguments, 200, 20, env={**os.environ, "MMTUI_HOME": str(populated.root)})
    try:
        program.expect("write over it. .y/N.")
        program.sendline(answer)
        assert program.until_ended() == (0 if written else 5)
    finally:
        program.close()
    assert (file.read_text() == "theirs") != written and is_marked(file) == written


def test_report_goes_to_standard_output(
    populated: Home, there: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    monkeypatch.setattr("sys.argv", ["mmtui", "report", "1", "--html", "-"])
    assert mmtui.__main__.main() == 0
    out = capfd.readouterr().out
    assert out.startswith("<!doctype html>") and out.endswith("-->\n") and names(there) == []


def test_dash_is_no_file_where_nothing_can_go_to_standard_output(
    populated: Home, mmtui_: Invoke, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    for argv in (("figures", "1", "-o", "-"), ("backup", "-")):
        found = mmtui_(*argv)
        assert (found.code, found.out) == (2, "") and "./-" in found.err, argv
    assert mmtui_("figures", "1", "-o", "").code == 2
    assert names(there) == []
    assert mmtui_("backup", "./-").code == 0 and names(there) == ["-"]


def test_folder_that_is_a_file_and_file_that_is_a_folder(
    populated: Home, mmtui_: Invoke, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "file").write_text("theirs")
    (there / "link").symlink_to("nowhere")
    for argv in (
        ("figures", "1", "-o", f"{there}/link"),
        ("figures", "1", "-o", f"{there}/file"),
        ("report", "1", "--html", str(there)),
        ("backup", str(there)),
    ):
        for more in ((), ("--force",)):
            found = mmtui_(*argv, *more)
            assert found.code == 5 and any(word in found.err for word in ("other name", "name a folder")), argv
            assert "--force" not in found.err
    assert names(there) == ["file", "link"] and (there / "file").read_text() == "theirs"
    assert mmtui_("report", "1", "--html", f"{there}/file/deep/x.html").code == 3
    monkeypatch.chdir(there)
    assert mmtui_("report", "1", "--html", "~nobody-here/x.html").code == 2, "nobody wants a folder that is called so"
    assert mmtui_("report", "1", "--html", "./~nobody-here/x.html").code == 0
    assert names(there) == ["file", "link", "~nobody-here"]


@pytest.mark.processes
def test_figures_that_were_drawn_before_are_replaced_and_others_left_alone(
    populated: Home, mmtui_: Invoke, there: Path
) -> None:
    images = populated.run("1").root / "images"
    images.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (4, 4), colour).save(images / "match_patches.png")
        (there / "notes.txt").write_text("theirs")
        assert mmtui_("figures", "1", "-o", str(there)).code == 0
        with Image.open(there / "patches.png") as found:
            assert found.convert("RGB").getpixel((0, 0)) == {"red": (255, 0, 0), "blue": (0, 0, 255)}[colour]
    assert names(there) == ["loss_segment.svg", "notes.txt", "patches.png"]
    Image.new("RGB", (4, 4), "white").save(there / "patches.png")
    svg = (there / "loss_segment.svg").read_bytes()
    mmtui_("note", "1", "x")
    found = mmtui_("figures", "1", "-o", str(there))
    assert found.code == 5 and "patches.png" in found.err and (there / "loss_segment.svg").read_bytes() == svg


# --- The database.


def test_backup_over_a_database_in_use_is_refused(populated: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    Database(other).close()
    quiet = sqlite3.connect(other.database)
    quiet.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    quiet.close()
    assert not Path(f"{other.database}-wal").exists(), "nobody is at work on it"
    before, beside = other.database.read_bytes(), names(other.root)
    found = mmtui_("backup", str(other.database))
    assert found.code == 5 and str(other.database) in found.err
    assert other.database.read_bytes() == before and names(other.root) == beside
    connection = sqlite3.connect(other.database)  # it has a log as long as somebody is at work on it
    connection.execute("INSERT INTO settings (key, value) VALUES ('a', '1')")
    connection.commit()
    assert Path(f"{other.database}-wal").exists()
    for more in ((), ("--force",)):
        found = mmtui_("backup", str(other.database), *more)
        assert found.code == 5 and "in use" in found.err
    connection.close()


def test_backups_of_the_same_second_are_both_kept(populated: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda format, *_: format.replace("%", ""))
    first, second = (keeping.backup(populated) for _ in range(2))
    assert first != second and first.is_file() and second.is_file()
    assert stat.S_IMODE(second.stat().st_mode) == 0o600


def test_copy_of_a_database_takes_no_place_that_is_taken(populated: Home, tmp_path: Path) -> None:
    """As of a backup that is taken back: another process may have made a new database meanwhile."""
    file = tmp_path / "there.db"
    file.write_text("theirs")
    with pytest.raises(RefusedError):
        copy_database(populated.database, file)
    assert file.read_text() == "theirs"


def test_backup_under_the_longest_name_there_is(populated: Home, mmtui_: Invoke, there: Path) -> None:
    for name in ("x" * 244 + ".db", os.fsdecode(b"\xff\xfe.db")):
        for _ in range(2):
            assert mmtui_("backup", str(there / name)).code == 0, name
    assert mmtui_("backup", str(there / ("x" * 245 + ".db"))).code == 2
    assert len(names(there)) == 2


# --- The unit.


def test_unit_of_an_earlier_version_is_replaced_and_a_masked_one_is_not(
    home: Home, mmtui_: Invoke, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(there))
    file = unit_file(there)
    file.parent.mkdir(parents=True)
    file.write_text(mmtui_("daemon", "install-service", "--dry-run").out)
    assert mmtui_("daemon", "install-service").code == 0 and is_marked(file)
    file.unlink()
    file.symlink_to("/dev/null")
    found = mmtui_("daemon", "install-service", "--force")
    assert found.code == 5 and "systemctl --user unmask mmtui.service" in found.err
    assert file.is_symlink()


# --- Functions.


def test_page_of_the_command_line_is_written_over_no_other_file(there: Path) -> None:
    file = there / "README.md"
    file.write_text("# Ours\n")
    with pytest.raises(RefusedError):
        docs.main([str(file)])
    assert file.read_text() == "# Ours\n"
    file.write_text(f"{docs.HEADER}older")
    assert docs.main([str(file)]) == 0 and docs.main(["--check", str(file)]) == 0


def test_error_about_a_file_that_is_read_is_not_told_as_one_of_writing(there: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), output_files.replacing(there / "a", force=False):
        (there.parent / "gone").read_bytes()
    with pytest.raises(UnreachableError, match=r"deep/b cannot be written"):
        output_files.write_text(Path("/proc/deep/b"), "x", force=False)
    with pytest.raises(UnreachableError, match=r"^/proc/b cannot be written"):
        output_files.write_text(Path("/proc/b"), "x", force=False)
    refused = pytest.raises(UnreachableError, match=r"^/proc/b cannot be written")
    with refused, output_files.replacing_folder(Path("/proc/b"), force=False):
        pass
    refused = pytest.raises(UnreachableError, match=r"/d cannot be written: No such file")
    with refused, output_files.replacing(there / "d", force=False) as path:
        path.unlink()
    (there / "c").write_text("theirs")
    with pytest.raises(RefusedError) as error, output_files.replacing_folder(there / "c", force=True):
        pass
    assert "--force" not in error.value.hint
    assert names(there) == ["c"]


def test_views_and_manifests_that_find_no_room_stay_as_they_were(home: Home) -> None:
    home.create()
    saved_views._write(home, {"a": saved_views.SavedView("state:failed")})
    write_file(home.root / "run.json", "former")
    before = names(home.root)
    with file_size_limit(3):
        with pytest.raises(UnreachableError):
            saved_views._write(home, {"b": saved_views.SavedView()})
        with pytest.raises(OSError):
            write_file(home.root / "run.json", "newer")
    assert list(saved_views.load(home)) == ["a"] and (home.root / "run.json").read_text() == "former"
    assert names(home.root) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from mmtui.paths import Home
from mmtui.services import output_files, saved_views

with output_files.replacing(saved_views.file_of(Home(Path(sys.argv[1]))), force=True):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_saving_of_views_leaves_is_purged(home: Home, mmtui_: Invoke) -> None:
    home.create()
    saved_views._write(home, {"a": saved_views.SavedView("state:failed")})
    before = names(home.root)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home.root)], check=False, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    (left,) = set(names(home.root)) - set(before)
    assert mmtui_("purge", "--yes").code == 0
    assert left in names(home.root), "it may still be being written"
    os.utime(home.root / left, (time.time() - 7200,) * 2)
    outcome = mmtui_("purge", "--yes")
    assert "saving a view that was interrupted" in outcome.out + outcome.err
    assert left not in names(home.root) and list(saved_views.load(home)) == ["a"]


def test_manifest_is_not_written_through_a_link_that_a_trainer_has_put_there(home: Home, there: Path) -> None:
    secret = there / "secret"
    secret.write_text("theirs")
    for name in ("run.json", ".run.json.writing"):
        home.create().root.joinpath(name).symlink_to(secret)
    write_file(home.root / "run.json", "new")
    assert secret.read_text() == "theirs" and (home.root / "run.json").read_text() == "new"
