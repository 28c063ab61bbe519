"""What ends a command line without anybody having expected it: one line, exit code 1, no traceback unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import mmtui.__main__
from mmtui.cli.diagnostics import guarded
from mmtui.errors import RefusedError
from mmtui.paths import Home
from mmtui.services import runs

HINT = "; MMTUI_DEBUG=1 shows where it comes from"


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """A command line through the real entry point, which the common runner holds for failed here."""
    monkeypatch.setattr("sys.argv", ["mmtui", *argv])
    return mmtui.__main__.main()


def failing(*_: Any, **__: Any) -> Any:
    raise KeyError("x\x1b[31m")


@pytest.mark.parametrize("argv", [("ls",), ("ls", "--limit=3"), ("--color", "never", "ls")])
def test_fault_of_a_verb_is_one_line_and_exit_1(
    populated: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    """Through the quick parser and through Typer."""
    for name in ("list_runs", "find"):
        monkeypatch.setattr(runs, name, failing)
    assert run(monkeypatch, *argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: a fault of mmtui: KeyError: 'x\\x1b[31m'{HINT}\n"


@pytest.mark.parametrize("error", [KeyError("x"), OSError(28, "No space left"), RecursionError("deep")])
def test_debug_shows_the_traceback_before_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def command() -> int:
        raise error

    assert guarded(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ")
    monkeypatch.setenv("MMTUI_DEBUG", "1")
    assert guarded(command) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last == said[0].removesuffix(HINT)


@pytest.mark.parametrize("text", ["two\nlines", "x" * 5000, "", "\ud800"])
def test_fault_is_one_bounded_line_whatever_it_says(capsys: pytest.CaptureFixture[str], text: str) -> None:
    def command() -> int:
        raise ValueError(text)

    assert guarded(command) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: a fault of mmtui: ValueError") and len(err) < 300


@pytest.mark.parametrize(("error", "code"), [(RefusedError("no"), 5), (KeyboardInterrupt(), 130), (SystemExit(4), 4)])
def test_what_is_expected_is_no_fault(capsys: pytest.CaptureFixture[str], error: BaseException, code: int) -> None:
    def command() -> int:
        raise error

    assert guarded(command) == code
    assert "fault" not in capsys.readouterr().err


def test_guard_loads_the_words_for_faults_only_when_there_is_one() -> None:
    code = "import sys; sys.argv = ['mmtui', '--version']; from mmtui.__main__ import main; main(); "
    code += "sys.exit('mmtui.tui.faults' in sys.modules or 'traceback' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
