"""Command lines run inside the test's process, through the real entry point."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mmtui.__main__
from mmtui.cli import render
from mmtui.cli.diagnostics import guarded
from mmtui.paths import Home
from mmtui.services import supervisors


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as the one JSON document that it must be."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


Invoke = Callable[..., Outcome]
FAULT = "a fault of mmtui"
"""What stderr says instead of a traceback: no test is to get as far."""


@pytest.fixture(autouse=True)
def colours_kept() -> Iterator[None]:
    """The entry point sets a colour mode; the test process gets its own back."""
    yield
    render.set_color("")


@pytest.fixture
def mmtui_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``mmtui_("ls", "--json")`` as typed at a prompt."""

    def invoke(*argv: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["mmtui", *argv])
        code = mmtui.__main__.main()
        out, err = capsys.readouterr()
        assert FAULT not in err, err
        return Outcome(code, out, err)

    return invoke


@pytest.fixture
def typer_(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """The same through Typer alone, past the quick parser."""

    def invoke(*argv: str) -> Outcome:
        from mmtui.cli.app import app

        capsys.readouterr()

        def command() -> int:
            app(list(argv), prog_name="mmtui")
            return 0

        code = guarded(command)
        out, err = capsys.readouterr()
        assert FAULT not in err, err
        return Outcome(code, out, err)

    return invoke


@pytest.fixture
def supervised(home: Home) -> Iterator[Home]:
    """A data directory whose supervisor, should a verb start one, is stopped at the end."""
    yield home
    supervisors.stop(home, 30)


@pytest.fixture
def whole(populated: Home) -> Home:
    """The first run has every file that a run has: recipe, manifest, weights, frozen code."""
    paths, third = populated.run("1"), populated.run("3")
    shutil.copy(third.recipe, paths.recipe)
    manifest = json.loads(third.manifest.read_text())
    paths.manifest.write_text(json.dumps({**manifest, "id": "1", "name": "good", "tags": ["demo"], "seed": 7}))
    connection = sqlite3.connect(populated.database)
    connection.execute("UPDATE runs SET code = ? WHERE id = 1", [json.dumps(manifest["code"])])
    connection.commit()
    connection.close()
    final = paths.checkpoints / "segment" / "final"
    final.mkdir(parents=True)
    (final / "model.safetensors").write_bytes(b"weights" * 1000)
    (paths.checkpoints / "segment" / "step_00000002").mkdir()
    (paths.checkpoints / "segment" / "step_00000002" / "optim.pt").write_bytes(b"left out")
    return populated


@pytest.fixture
def capsule(whole: Home, mmtui_: Invoke, tmp_path: Path) -> Path:
    file = tmp_path / "run.tar"
    assert mmtui_("export", "1", "--to", "capsule", "-o", str(file)).code == 0
    return file


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Another machine's data directory."""
    home = Home(tmp_path / "elsewhere")
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    return home
