"""What the engine's own command line prints: on a terminal nothing acts on it, in a pipe it stays as it is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import streams
from engine.data.progress import terminal_line
from engine.text import printable
from tests.ptys import Program

ROOT = Path(__file__).resolve().parents[3]
NAME = b"p\xe9\x1b[31m\xc3\xa90"
SHOWN = "p\\xe9\\x1b[31mé0"
HOSTILE = os.fsdecode(b"h\xe9\x1b]0;x\x07")
UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def on_terminal(*words: str, folder: Path, **more: str) -> str:
    """Everything that the engine writes to a terminal."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | UTF8 | more
    program = Program(sys.executable, ["-m", "engine", *words], 80, 24, cwd=str(folder), env=env)
    said = b""
    try:
        while not program.flag_eof:
            said += program.drain()
    finally:
        program.close()
    return said.decode("utf-8")  # fails for a byte that is none


def in_pipe(*words: str, folder: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | UTF8 | more
    return subprocess.run(
        [sys.executable, "-m", "engine", *words], cwd=folder, env=env, capture_output=True, check=False
    )


def assert_harmless(said: str) -> None:
    for line in said.replace("\r\n", "\n").split("\n"):
        for part in line.split("\r"):  # progress goes back to the beginning of its line
            assert printable(part) == part, part


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One picture in each split, both of the same name."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for folder, shape in (("images", (32, 32, 3)), ("labels", (32, 32))):
            file = Path(os.fsdecode(os.fsencode(root / folder / split) + b"/" + NAME + b".png"))
            file.parent.mkdir(parents=True)
            Image.fromarray(np.zeros(shape, np.uint8)).save(file)
    (root / "classes.txt").write_text("left\nright\n")
    (tmp_path / "small.yaml").write_text(f"data: {{kind: folder, root: {root}}}\nsegment: {{steps: 1}}\n")
    return root


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_check_data_spells_out_names_of_pictures(data: Path, tmp_path: Path, locale: str) -> None:
    said = on_terminal("check-data", "small.yaml", folder=tmp_path, LC_ALL=locale)
    assert "1 name in both splits" in said or "1 names in both splits" in said
    assert "p\\xe9\\x1b[31m" in said
    assert_harmless(said)


def test_check_data_leaves_names_in_a_pipe_as_they_are(data: Path, tmp_path: Path) -> None:
    found = in_pipe("check-data", "small.yaml", folder=tmp_path)
    assert NAME in found.stdout, found


@pytest.mark.parametrize(
    "encoding",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "ascii:surrogateescape"},
        {"LC_ALL": "C"},
    ],
    ids=["ascii", "latin-1", "surrogateescape", "locale"],
)
def test_letters_that_a_pipe_cannot_take_are_spelled_out(data: Path, tmp_path: Path, encoding: dict[str, str]) -> None:
    (data / "classes.txt").write_text("日本\nright\n", encoding="utf-8")
    found = in_pipe("check-data", "small.yaml", folder=tmp_path, **encoding)
    assert b"Traceback" not in found.stderr, found
    assert b"class 0 \\u65e5\\u672c" in found.stdout
    written = [NAME.replace("é".encode(), there) for there in ("é".encode(), b"\\xe9", b"\xe9")]
    assert any(name in found.stdout for name in written)


def test_names_of_files_are_utf8_in_every_locale(data: Path, tmp_path: Path) -> None:
    data.rename(tmp_path / "dàta")
    recipe = (tmp_path / "small.yaml").read_text().replace(str(data), str(tmp_path / "dàta"))
    (tmp_path / "small.yaml").write_text(recipe, encoding="utf-8")
    found = in_pipe("check-data", "small.yaml", folder=tmp_path, LC_ALL="C")
    assert b"is no folder" not in found.stderr + found.stdout, found
    assert NAME.replace("é".encode(), b"\\xe9") in found.stdout


def test_check_data_spells_out_what_is_wrong(data: Path, tmp_path: Path) -> None:
    (picture,) = (data / "labels" / "train").iterdir()
    picture.write_bytes(b"no picture")
    said = on_terminal("check-data", "small.yaml", folder=tmp_path)
    assert SHOWN in said
    assert_harmless(said)
    assert NAME in (found := in_pipe("check-data", "small.yaml", folder=tmp_path)).stdout + found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("check-recipe", HOSTILE),
        ("check-recipe", "shapes_smoke", "--set", f"description={HOSTILE}", "--set", f"seed={HOSTILE}"),
        ("train", "shapes_smoke", "--run-dir", "run", "--attempt", HOSTILE),
        ("train", "shapes_smoke", "--run-dir", "run", "--from", HOSTILE),
        ("weights", "inspect", HOSTILE),
        ("weights", "export", "--run-dir", HOSTILE, "--out", "x"),
        ("weights", "inspect", "x", "--backbone", HOSTILE),
        ("pictures", "--run-dir", HOSTILE, "--out", "x"),
        (HOSTILE,),
    ],
)
def test_no_error_steers_the_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = on_terminal(*words, folder=tmp_path)
    assert "\\x1b]0;x\\x07" in said
    assert_harmless(said)


def test_a_fault_with_its_traceback_steers_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import engine.config.loader as one\n"
        "class Odd(Exception):\n    def __str__(self): return 'odd \\x1b[31m \\x9b2J'\n"
        "def fail(*_a, **_k): raise Odd\n"
        "one.find_recipe = fail\n"
    )
    said = on_terminal("check-recipe", "shapes_smoke", folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert "Odd: odd \\x1b[31m \\x9b2J" in said
    assert_harmless(said)


def test_training_tells_progress_and_classes_without_steering(tmp_path: Path) -> None:
    run = tmp_path / HOSTILE
    words = ("train", "shapes_smoke", "--run-dir", str(run), "--smoke", "--set", "runtime.device=cpu")
    said = on_terminal(*words, folder=tmp_path)
    assert "segment" in said
    assert_harmless(said)
    assert_harmless(on_terminal("pictures", "--run-dir", str(run), "--out", HOSTILE, folder=tmp_path))


class Screen(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_lines_end_and_progress_goes_back_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", Screen(raw, "ascii"))
    streams.spell_out()
    streams.spell_out()
    sys.stderr.write("a\x1bb\r\u2028\udce9é\n")
    sys.stderr.writelines(["one\n", "two\x07\n"])
    sys.stderr.flush()
    assert raw.getvalue() == b"a\\x1bb\\x0d\\u2028\\xe9\\xe9\none\ntwo\\x07\n"
    raw.truncate(0)
    raw.seek(0)
    terminal_line("read \x1b", 1, 2, None)
    assert raw.getvalue().startswith(b"\rread \\x1b 1/2 ")
    assert raw.getvalue().endswith(b"\rread \\x1b 1/2")
    assert sys.stderr.isatty() and sys.stderr.encoding == "ascii"


def test_a_stream_of_ones_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    monkeypatch.setattr(sys, "stderr", None)
    streams.spell_out()
    assert sys.stdout is own and sys.stderr is None
