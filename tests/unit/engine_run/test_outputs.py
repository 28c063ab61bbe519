"""Files that a user named: whole or as they were, whatever happens on the way, and nobody else's written over."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine import outputs
from engine.outputs import OutputExistsError, obstacle, replacing, replacing_folder, write_all, write_text
from tests.process_state import file_size_limit

WRITER = """
import sys
from pathlib import Path
from engine.outputs import replacing
with replacing(Path(sys.argv[1]), overwrite=sys.argv[2] == "over") as path:
    path.write_text(sys.argv[3])
    print(flush=True)
    sys.stdin.read()
"""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A process that has written all but not yet put it in place; it goes on when its stdin ends."""
    command = [sys.executable, "-c", WRITER, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"\n", process.communicate()[1]
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_body_that_fails_leaves_the_former_file_and_nothing_beside_it(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("former")
    with pytest.raises(fault), replacing(file, overwrite=True) as path:
        path.write_text("half")
        assert path.parent == tmp_path and path.name.startswith(".") and str(os.getpid()) in path.name
        raise fault
    assert file.read_text() == "former" and names(tmp_path) == ["a.txt"]
    with pytest.raises(fault), replacing(tmp_path / "new" / "deep" / "b.txt", overwrite=False) as path:
        raise fault
    assert names(tmp_path) == ["a.txt"], "folders that were made for it are gone, too"


def test_full_disk_leaves_the_former_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("former")
    with file_size_limit(10), pytest.raises(OSError):
        write_text(file, "x" * 1000, overwrite=True)
    assert file.read_text() == "former" and names(tmp_path) == ["a.txt"]


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_process_that_is_ended_before_its_end_leaves_the_former_file(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "a.txt"
    file.write_text("former")
    process = start(str(file), "over", "newer")
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0 and file.read_text() == "former"
    visible = [name for name in names(tmp_path) if number == signal.SIGINT or not name.startswith(".")]
    assert visible == ["a.txt"]


@pytest.mark.processes
def test_of_two_processes_one_makes_the_file_and_the_other_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    first, second = start(str(file), "new", "first"), start(str(file), "new", "second")
    assert not file.exists()
    second.communicate()
    assert second.returncode == 0 and file.read_text() == "second"
    assert b"OutputExistsError" in first.communicate()[1]
    assert first.returncode == 1 and file.read_text() == "second" and names(tmp_path) == ["a.txt"]


@pytest.mark.processes
def test_of_two_processes_that_may_replace_the_last_one_wins_with_all_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    first, second = start(str(file), "over", "first " * 9), start(str(file), "over", "second")
    for process in (second, first):
        assert process.communicate()[1] == b"" and process.returncode == 0
    assert file.read_text() == "first " * 9 and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("refused", [False, True])
def test_file_that_comes_meanwhile_is_not_written_over(
    tmp_path: Path, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file system has no second names."""
    if refused:
        monkeypatch.setattr(os, "link", _no_link)
    file = tmp_path / "a.txt"
    with pytest.raises(OutputExistsError, match=r"a\.txt exists already"), replacing(file, overwrite=False) as path:
        path.write_text("ours")
        file.write_text("theirs")
    assert file.read_text() == "theirs" and names(tmp_path) == ["a.txt"]
    write_text(tmp_path / "b.txt", "ours", overwrite=False)
    assert (tmp_path / "b.txt").read_text() == "ours"


def _no_link(*_arguments: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_permissions_are_those_of_the_file_before_else_of_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        write_text(file, "one", overwrite=False)
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        file.chmod(0o604)
        with replacing(file, overwrite=True) as path:
            assert not stat.S_IMODE(path.stat().st_mode) & 0o070, "nobody reads it who may not read the result"
        assert stat.S_IMODE(file.stat().st_mode) == 0o604
        with replacing(file, overwrite=True, mode=0o600):
            pass
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file, link = tmp_path / "deep" / "a.txt", tmp_path / "link"
    link.symlink_to("deep/a.txt")
    for text in ("one", "two"):
        write_text(link, text, overwrite=text == "two")
        assert link.is_symlink() and file.read_text() == text
    assert "link exists already" in obstacle(link)
    assert names(tmp_path) == ["deep", "link"] and names(tmp_path / "deep") == ["a.txt"]
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    with pytest.raises(OSError):
        obstacle(circle)


@pytest.mark.parametrize("name", ["é" * 127 + "x", "x" * 255, os.fsdecode(b"\xff" * 255), os.fsdecode(b"\xe9t\xe9")])
def test_names_that_are_as_long_as_names_may_be_or_not_utf8(tmp_path: Path, name: str) -> None:
    for text in ("one", "two"):
        with replacing(tmp_path / name, overwrite=text == "two") as path:
            path.write_text(text)
            path.with_name(f"{path.name}-journal").touch()  # SQLite's, which must have room
            path.with_name(f"{path.name}-journal").unlink()
        assert (tmp_path / name).read_text() == text and names(tmp_path) == [name]


@pytest.mark.processes
def test_standard_output_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    code = (
        "from engine.outputs import *\n"
        "print('before'); write_text(Path({!r}), 'text\\n', overwrite=False); print('after')"
    )
    env = {**os.environ, "PYTHONUNBUFFERED": ""}  # what was printed before waits to be written
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        log = tmp_path / "log"
        log.write_text("kept\n")
        with log.open("ab") as end:
            subprocess.run([sys.executable, "-c", code.format(name)], stdout=end, check=True, env=env)
        assert log.read_text() == "kept\nbefore\ntext\nafter\n", "not over what the shell appends to"
        piped = subprocess.run([sys.executable, "-c", code.format(name)], stdout=subprocess.PIPE, check=True, env=env)
        assert piped.stdout == b"before\ntext\nafter\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_text(pipe, "through", overwrite=False)
    assert reader.communicate()[0] == b"through" and stat.S_ISFIFO(pipe.stat().st_mode)
    write_text(Path("/dev/null"), "gone", overwrite=False)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError) as full:
        write_text(Path("/dev/full"), "x", overwrite=True)
    assert "the disk is full" in outputs.error_text(full.value, Path("/dev/full"))


def test_what_stands_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    asked: list[Path] = []

    def is_ours(path: Path) -> bool:
        asked.append(path)
        return path.read_text() == "ours"

    assert obstacle(file, is_ours) == "" and not asked
    file.write_text("theirs")
    assert obstacle(file) == f"{file} exists already"
    assert obstacle(file, is_ours) == f"{file} exists already and was made or changed by someone else"
    assert obstacle(file, is_ours, force=True) == ""
    file.write_text("ours")
    assert obstacle(file, is_ours) == ""
    assert obstacle(tmp_path, is_ours, force=True) == f"{tmp_path} is a folder"
    for name in ("/dev/null", "/dev/stdout"):
        assert obstacle(Path(name), is_ours) == "", name


def test_own_file_that_was_made_read_only_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("ours")
    file.chmod(0o400)
    assert obstacle(file, lambda _: True) == f"{file} exists already and is read-only"
    assert obstacle(file, lambda _: True, force=True) == ""


def test_of_several_files_none_is_written_if_one_may_not_be(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("theirs")
    files = {tmp_path / name: b"ours" for name in "abc"}
    with pytest.raises(OutputExistsError, match="b exists already"):
        write_all(files, lambda _: False, force=False)
    assert names(tmp_path) == ["b"] and (tmp_path / "b").read_text() == "theirs"
    write_all(files, lambda _: False, force=True)
    assert names(tmp_path) == ["a", "b", "c"] and (tmp_path / "b").read_text() == "ours"


def fill(folder: Path, name: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / name).write_text(name)


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "over" / "out"
    with replacing_folder(target, overwrite=False) as folder:
        fill(folder, "one")
        assert not target.exists()
    assert names(target / "deep") == ["one"]
    with pytest.raises(OutputExistsError), replacing_folder(target, overwrite=False):
        raise AssertionError("it is looked at before anything is computed")
    with pytest.raises(RuntimeError), replacing_folder(target, overwrite=True) as folder:
        fill(folder, "half")
        raise RuntimeError
    assert names(target / "deep") == ["one"] and names(target.parent) == ["out"]
    with replacing_folder(target, overwrite=True) as folder:
        fill(folder, "two")
    assert names(target / "deep") == ["two"] and names(target.parent) == ["out"]


@pytest.mark.parametrize("put", ["empty", "filled meanwhile", "file"])
def test_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path, put: str) -> None:
    target = tmp_path / "out"
    target.write_text("theirs") if put == "file" else target.mkdir()
    if put == "empty":
        with replacing_folder(target, overwrite=False) as folder:
            fill(folder, "one")
        assert names(target / "deep") == ["one"]
    else:
        with pytest.raises(OutputExistsError), replacing_folder(target, overwrite=put == "file") as folder:
            fill(folder, "one")
            (target / "theirs").touch()
        assert target.is_file() or names(target) == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    fill(target, "old")
    rename, seen = Path.rename, []

    def second_fails(self: Path, to: Path) -> Path:
        seen.append(to)
        if len(seen) == 3:  # the first finds the old one there, the second sets that aside
            raise PermissionError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(PermissionError), replacing_folder(target, overwrite=True) as folder:
        fill(folder, "new")
    assert names(target / "deep") == ["old"] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("name", ["out.csv", "long" * 60])
def test_what_a_killed_process_has_left_goes_with_the_next_one_of_the_name(
    tmp_path: Path, name: str, folder: bool
) -> None:
    killed = start(str(tmp_path / name), "new", "half")
    killed.kill()
    killed.communicate()
    (left,) = tmp_path.iterdir()
    stem = left.name.removesuffix(f".{killed.pid}.{left.name[-12:]}")
    young = left.with_name(f"{stem}.{killed.pid}.00000001.new")
    living = left.with_name(f"{stem}.{os.getpid()}.00000002.new")
    others = left.with_name(f".other.{killed.pid}.00000003.new")
    if folder:
        left.unlink()
        left.mkdir()
        (left / "half").touch()
    for path in (young, living, others):
        path.touch()
    for path in (left, living, others):
        os.utime(path, (1e9, 1e9))
    outputs.left_behind.cache_clear()
    with replacing(tmp_path / name, overwrite=False) as path:
        path.write_text("whole")
    assert names(tmp_path) == sorted([name, young.name, living.name, others.name])
