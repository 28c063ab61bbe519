"""What `pip install` gives: everything the program needs, and nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

hatchling = pytest.importorskip(
    "hatchling.builders.wheel", reason="hatchling is not installed: pip install -e '.[dev]'"
)


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in this process with no network."""
    folder = tmp_path_factory.mktemp("wheel")
    (artifact,) = hatchling.WheelBuilder(str(repository)).build(directory=str(folder), versions=["standard"])
    return Path(artifact)


def test_wheel_holds_both_packages_recipes_migrations_and_styles(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("mmtui", "engine"):
        sources = {
            str(file.relative_to(repository))
            for file in (repository / package).rglob("*")
            if file.suffix in {".py", ".tcss"} or file.name == "py.typed"
        }
        assert sources <= names, sources - names
        assert f"{package}/py.typed" in names
    recipes = {f"mmtui/_recipes/{file.name}" for file in (repository / "recipes").glob("*.yaml")}
    assert recipes
    assert recipes <= names
    assert any(name.startswith("mmtui/store/migrations/versions/m0001") for name in names)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mmtui", "engine"}
    assert not [n for n in zipfile.ZipFile(wheel).namelist() if "__pycache__" in n or n.endswith((".db", ".pt"))]


def test_wheel_names_the_program_and_its_dependencies(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "mmtui = mmtui.__main__:main" in archive.read(entry).decode()
    (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    for name in ("torch", "textual", "typer", "sqlmodel", "nvidia-ml-py"):
        assert f"Requires-Dist: {name}" in text


def test_wheel_unpacked_elsewhere_runs_and_finds_its_recipes(wheel: Path, tmp_path: Path) -> None:
    """From another directory, with nothing of the checkout on the path."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def mmtui(*argv: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(site)!r}); from mmtui.__main__ import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "shapes_mixmatch" in mmtui("recipes")
    assert mmtui("run", "shapes_mixmatch", "--hold") == "1\n"
    shown = mmtui("run", "shapes_baseline", "--dry-run")
    assert "backbone: tiny_vgg" in shown
    frozen = list((Path(environment["MMTUI_HOME"]) / "code").rglob("loop.py"))
    assert len(frozen) == 1, "the engine's source is frozen from the installed copy"
