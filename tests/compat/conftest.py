"""A data directory that an older version has made, unpacked for each test that changes it."""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mmtui.__main__
from mmtui.cli import render
from mmtui.paths import Home
from mmtui.tui import actions
from tests.compat.asking import COMMIT, masked
from tests.e2e.support import kill_everything

FOLDER = Path(__file__).resolve().parent / COMMIT
Ask = Callable[..., dict[str, Any]]


def stored(name: str) -> Any:
    """Answers of the older version."""
    return json.loads((FOLDER / name).read_text())


def unpack(name: str, target: Path) -> Path:
    """Python before 3.11.4, such as Debian 12's, has no filters; those of 3.14 would change modes without one."""
    target.mkdir(mode=0o700)
    filters = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
    with tarfile.open(FOLDER / name) as archive:
        archive.extractall(target, **filters)
    return target


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed, only copied."""
    return unpack("home.tar.xz", tmp_path_factory.mktemp("compat") / "home")


@pytest.fixture(scope="session")
def looked_at(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """For commands that only read: one for all of them."""
    return Home(Path(shutil.copytree(unpacked, tmp_path_factory.mktemp("compat") / "home")))


@pytest.fixture
def opened(unpacked: Path, tmp_path: Path) -> Iterator[Home]:
    """The test's own copy. Not in ``private_home``: its process ids are those of another machine."""
    home = Home(Path(shutil.copytree(unpacked, tmp_path / "home")))
    yield home
    kill_everything(home)


@pytest.fixture
def capsule(tmp_path: Path) -> Path:
    file = tmp_path / "capsule.tar"
    file.write_bytes(lzma.decompress((FOLDER / "capsule.tar.xz").read_bytes()))
    return file


@pytest.fixture(autouse=True)
def as_then(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment in which the older version was asked; keys that a test chooses are forgotten again."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    monkeypatch.setattr(actions, "KEYMAP", {})
    time.tzset()
    yield
    render.set_color("")
    monkeypatch.delenv("TZ")
    time.tzset()


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """``ask(home, "ls", "--json")``: the exit code and the answer, masked."""

    def invoke(home: Home, *words: str) -> dict[str, Any]:
        monkeypatch.setenv("MMTUI_HOME", str(home.root))
        monkeypatch.setattr("sys.argv", ["mmtui", *words])
        capsys.readouterr()
        code = mmtui.__main__.main()
        text = capsys.readouterr().out
        answer = json.loads(text) if words[-1] == "--json" else text
        return {"code": code, "answer": masked(answer, str(home.root))}

    return invoke
