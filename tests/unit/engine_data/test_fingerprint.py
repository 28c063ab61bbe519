"""What identifies data: content and settings, not place or time."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from engine.__main__ import main
from engine.config.schema import FolderData, ShapesData
from engine.data import digests
from engine.data.check import format_report, summarise
from engine.data.digests import digest_files, file_digest
from engine.data.fingerprint import fingerprint
from engine.data.progress import Paced, terminal_line
from engine.errors import DataError


@pytest.fixture
def config(tmp_path: Path) -> FolderData:
    root = tmp_path / "data"
    for split, count in (("train", 3), ("val", 1)):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (6, 5), (index, len(split), 0)).save(root / f"images/{split}/{split}{index}.png")
            Image.new("L", (6, 5), index % 2).save(root / f"labels/{split}/{split}{index}.png")
    (root / "classes.txt").write_text("a\nb\n")
    return FolderData(root=str(root))


def test_digest_files_are_path_size_and_sha256_in_order(config: FolderData) -> None:
    root = Path(config.root)
    files = [path for path in root.rglob("*") if path.is_file()]
    found = digest_files(root, [*files, files[0]])
    relative = sorted(str(path.relative_to(root)) for path in files)
    contents = [(root / name).read_bytes() for name in relative]
    expected = [(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in zip(relative, contents, strict=True)]
    assert found == expected and len(found) == 9


def test_fingerprint_follows_content_and_settings_only(config: FolderData, tmp_path: Path) -> None:
    root, first = Path(config.root), fingerprint(config)
    assert len(first) == 64 and int(first, 16) > 0
    os.utime(root / "images/train/train0.png", ns=(1, 1))
    (root / "images/train/notes.txt").write_text("no picture")
    assert fingerprint(config) == first
    root.rename(tmp_path / "elsewhere")
    moved = config.model_copy(update={"root": str(tmp_path / "elsewhere")})
    assert fingerprint(moved) == first
    others = {first, *(fingerprint(moved.model_copy(update=c)) for c in ({"scale": 0.5}, {"max_train": 2}))}
    for change in ("images/val/val0.png", "labels/train/train1.png", "classes.txt"):
        path = tmp_path / "elsewhere" / change
        if path.suffix == ".txt":
            path.write_text("a\nc\n")
        else:
            Image.new("L", (6, 5), 1 - path.name.count("1")).save(path)
        others.add(fingerprint(moved))
    for part in ("images", "labels"):
        folder = tmp_path / "elsewhere" / part / "train"
        (folder / "train2.png").rename(folder / "train9.png")
    others.add(fingerprint(moved))
    assert len(others) == 7


def test_fingerprint_of_shapes_is_that_of_the_section() -> None:
    assert fingerprint(ShapesData()) == fingerprint(ShapesData()) != fingerprint(ShapesData(data_seed=1))


def test_fingerprint_without_a_file_names_it(config: FolderData) -> None:
    (Path(config.root) / "labels/val/val0.png").unlink()
    with pytest.raises(DataError, match=r"labels/val/val0\.png cannot be read"):
        fingerprint(config)


def test_file_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_digest(path)
    hashed: list[bytes] = []
    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda: hashed.append(b"") or real())
    assert file_digest(path) == first and hashed == []
    path.write_bytes(b"two")
    os.utime(path, ns=(5, 5))
    assert file_digest(path) == real(b"two").hexdigest() and len(hashed) == 1


def test_digests_are_written_down_while_other_threads_read_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {f"/old/{number}": ((1, 1, 1, 1), "x" * 64) for number in range(20_000)}
    monkeypatch.setattr(digests, "_known", dict(known))
    files = [tmp_path / f"{number}.bin" for number in range(400)]
    for file in files:
        file.write_bytes(b"content")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(lambda: [file_digest(file) for file in files])
            while not reading.done():
                digests.remember(tmp_path / "digests")
    finally:
        sys.setswitchinterval(interval)
    stored = json.loads((tmp_path / "digests").read_text())
    assert set(known) <= set(stored) and len(digests._known) == 20_400


def test_summarise_names_copies_orphans_and_every_problem(config: FolderData) -> None:
    root = Path(config.root)
    (root / "images/val/copy.png").write_bytes((root / "images/train/train2.png").read_bytes())
    (root / "labels/val/copy.png").write_bytes((root / "labels/train/train2.png").read_bytes())
    (root / "labels/train/alone.png").write_bytes(b"no matter")
    for index in range(30):
        Image.new("RGB", (6, 5)).save(root / f"images/train/bare{index:02d}.png")
    Image.new("L", (6, 5), 9).save(root / "labels/val/val0.png")
    report = summarise(config)
    assert report.problem_count == 31 == len(report.problems)
    assert all(any(f"bare{index:02d}.png has no mask" in p for p in report.problems) for index in range(30))
    assert any("val0.png" in p and "the value 9 (30 pixels, 100 %)" in p for p in report.problems)
    assert any("copy (val) = train2 (train)" in w and "1 image of the same content" in w for w in report.warnings)
    assert any("1 mask of split train without an image" in w and "alone.png" in w for w in report.warnings)
    assert report.fingerprint == "" and "fingerprint" not in format_report(report)
    assert all(p in format_report(report) for p in report.problems)


def test_check_data_command_prints_table_and_fingerprint(
    config: FolderData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {kind: folder}\nsegment: {steps: 1}\n")
    assert main(["check-data", str(recipe), "--set", f"data.root={config.root}"]) == 0
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert ["0", "a", "66.67", "2", "100.00", "1"] in lines and ["1", "b", "33.33", "1", "0.00", "0"] in lines
    assert f"fingerprint: sha256:{fingerprint(config)}" in output.out and output.err == ""
    (Path(config.root) / "labels/val/val0.png").unlink()
    assert main(["check-data", str(recipe), "--set", f"data.root={config.root}"]) == 1


def test_paced_progress_tells_first_last_and_twice_a_second() -> None:
    now, told, calls = [0.0], [], []
    paced = Paced(lambda *values: told.append(values), lambda: calls.append(1), lambda: now[0])
    for done in range(1, 101):
        now[0] = done / 10  # ten items a second
        paced("a", done, 100)
    assert len(calls) == 100 and told[0] == ("a", 1, 100, None) and told[-1] == ("a", 100, 100, 0.0)
    assert len(told) == 21
    for _, done, _, left in told[1:]:
        assert left == pytest.approx((100 - done) / 10)
    paced("b", 1, 2)
    assert told[-1] == ("b", 1, 2, None)


def test_terminal_line_is_written_over_and_wiped(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_line("reading", 16, 90, 12.4)
    terminal_line("reading", 90, 90, 0.0)
    written = capsys.readouterr().err.split("\r")
    assert written[2] == "reading 16/90, 12 s left" and written[3].strip() == "" and written[-1] == ""
