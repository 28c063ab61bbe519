"""CSV is data in a pipe, and cannot control a terminal."""

from __future__ import annotations

import os
import sqlite3
import sys
import unicodedata
from pathlib import Path

import pexpect
import pytest

from mmtui.paths import Home
from tests.ptys import Program
from tests.unit.cli.conftest import Invoke

HOSTILE = "\x1b]0;owned\x07\x1b[31mred \u202ereversed =1+1"
ASKED = (
    ("ls", "--csv", "-c", "tag,note"),
    ("compare", "1", "2", "--csv", "-c", "name,note"),
    ("query", f'SELECT name, note AS "{HOSTILE}" FROM runs', "--csv"),
    ("query", f'SELECT name, note AS "{HOSTILE}" FROM runs'),
    ("ls", "--group", "sweep", "--csv"),
    ("export", "1", "--to", "csv", "-o", "-"),
    ("export", "1", "--to", "csv", "-o", "/dev/stdout"),
    ("export", "1", "--to", "csv", "-o", "/dev/tty"),
)


@pytest.fixture
def hostile(populated: Home) -> Home:
    with sqlite3.connect(populated.database) as connection:
        connection.execute("UPDATE runs SET name = ?1, note = ?1, run_group = ?1", [HOSTILE])
        connection.execute("UPDATE metrics SET name = ?1 || name, stage = ?1", [HOSTILE])
    return populated


@pytest.mark.parametrize("argv", ASKED, ids=lambda argv: " ".join(argv)[:20])
def test_nothing_but_text_reaches_a_terminal(argv: tuple[str, ...], hostile: Home, tmp_path: Path) -> None:
    environment = {**os.environ, "MMTUI_HOME": str(hostile.root), "NO_COLOR": "1"}
    program = Program(sys.executable, ["-m", "mmtui", *argv], 400, 50, env=environment, cwd=str(tmp_path))
    try:
        text = program.read().decode()
    except pexpect.EOF:
        text = program.before.decode()
    finally:
        program.close()
    assert "\\x1b" in text, text
    assert {char for char in text if unicodedata.category(char) in ("Cc", "Cf")} <= {"\r", "\n"}


def test_a_pipe_has_the_cells_as_they_are(hostile: Home, mmtui_: Invoke) -> None:
    assert HOSTILE in mmtui_("ls", "--csv", "-c", "note").out
