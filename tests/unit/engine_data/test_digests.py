"""Remembered checksums: written only when there is news, by one process at a time, without what is gone."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from engine.data import digests
from engine.data.digests import file_digest, recall, remember


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, where files settle at once."""
    forget(monkeypatch)
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_known", "_lists"):
        monkeypatch.setattr(digests, name, {}, raising=False)
    monkeypatch.setattr(digests, "_folders", set(), raising=False)


def files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    found = [folder / f"{number}.bin" for number in range(count)]
    for file in found:
        file.write_bytes(file.name.encode())
    time.sleep(0.01)  # past the clock's grain
    return found


def inode(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_list_without_news_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "digests"
    first, second = files(tmp_path / "data", 2)
    file_digest(first)
    remember(listed)
    before = inode(listed)
    for _ in range(2):
        recall(listed)
        file_digest(first)
        remember(listed)
        assert inode(listed) == before
        forget(monkeypatch)
    recall(listed)
    file_digest(second)
    remember(listed)
    assert inode(listed) != before and set(json.loads(listed.read_text())) == {str(first), str(second)}


def test_file_that_changed_is_news(tmp_path: Path) -> None:
    listed, (file,) = tmp_path / "digests", files(tmp_path / "data", 1)
    file_digest(file)
    remember(listed)
    file.write_bytes(b"other")
    time.sleep(0.01)
    digest = file_digest(file)
    remember(listed)
    assert json.loads(listed.read_text())[str(file)][1] == digest


def test_list_that_was_deleted_or_is_no_list_is_written_anew(tmp_path: Path) -> None:
    listed, (file,) = tmp_path / "digests", files(tmp_path / "data", 1)
    file_digest(file)
    remember(listed)
    listed.unlink()
    recall(listed)
    remember(listed)
    assert set(json.loads(listed.read_text())) == {str(file)}
    for text in ("no list", '{"a": 1}', '{"a": [["x", "y", 1, 1], "f"]}'):
        listed.write_text(text)
        recall(listed)
        remember(listed)
        assert set(json.loads(listed.read_text())) == {str(file)}


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    listed, found = tmp_path / "digests", files(tmp_path / "data", 3)
    file_digest(found[0])
    remember(listed)
    recall(listed)
    (other,) = json.loads(listed.read_text()).values()
    changed = [[1, 2, 3, 4], "f" * 64]
    listed.write_text(json.dumps({str(found[0]): changed, str(found[1]): other}))
    file_digest(found[2])
    remember(listed)
    stored = json.loads(listed.read_text())
    assert set(stored) == {str(file) for file in found} and stored[str(found[1])] == other
    assert stored[str(found[0])] == changed, "the other process has read that file later"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "digests"], "nothing else is left"


def test_process_that_holds_the_list_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "WAIT_SECONDS", 0.1, raising=False)
    listed, (file,) = tmp_path / "digests", files(tmp_path / "data", 1)
    file_digest(file)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        remember(listed)
        assert not listed.exists()
    finally:
        os.close(descriptor)
    remember(listed)
    assert set(json.loads(listed.read_text())) == {str(file)}


def test_files_that_are_gone_leave_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, found, foreign = tmp_path / "digests", files(tmp_path / "data", 3), files(tmp_path / "foreign", 2)
    for file in found[:2] + foreign:
        file_digest(file)
    remember(listed)
    forget(monkeypatch)
    found[0].unlink()
    foreign[0].unlink()  # its folder is not used: looking there may take long
    recall(listed)
    file_digest(found[2])
    remember(listed)
    expected = {str(file) for file in (found[1], found[2], *foreign)}
    assert set(json.loads(listed.read_text())) == expected
    before = inode(listed)
    remember(listed)
    assert inode(listed) == before, "what is gone is no news"
