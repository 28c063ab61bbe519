"""Something else than a manifest in the folder of a run: said in one sentence, and nothing waits or is changed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services.plain_files import MOST_OF_MANIFEST, named_file, read_table

pytestmark = pytest.mark.slow

Invoke = Callable[..., Any]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_OF_MANIFEST + 1)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": pipe,
    "folder": Path.mkdir,
    "too long": endless,
    "no JSON": lambda path: path.write_text("{"),
    "no UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "a list": lambda path: path.write_text("[]"),
    "nested": lambda path: path.write_text("[" * 200_000),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_table_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "run.json")
    with pytest.raises((OSError, ValueError)):
        read_table(tmp_path / "run.json")


@pytest.mark.parametrize("kind", KINDS)
def test_recipe_of_a_run_without_a_manifest_is_not_edited(mmtui_: Invoke, home: Home, kind: str) -> None:
    run_id = mmtui_("run", "shapes_smoke", "--hold").out.split()[0]
    paths = home.run(run_id)
    recipe = paths.recipe.read_bytes()
    paths.manifest.unlink()
    KINDS[kind](paths.manifest)
    found = mmtui_("edit", run_id, "segment.steps=9")
    assert found.code == 5 and found.err.startswith(f"error: {paths.manifest} cannot be read: ")
    assert found.err.count(str(paths.manifest)) == 1
    assert paths.recipe.read_bytes() == recipe
    assert "segment.steps=9" not in mmtui_("show", run_id).out


WRONG: tuple[dict[str, Any], ...] = (
    {"name": 3},
    {"name": None},
    {"seed": None},
    {"seed": [1]},
    {"seed": "x"},
    {"seed": 2**70},
    {"tags": 5},
    {"tags": [None]},
    {"code": [1]},
    {"code": "x"},
    {"overrides": 7},
    {"group": {}},
    {"forked_from": 3},
    {"forked_from": {"step": None}},
    {"forked_from": {"run": "1", "step": 10**30}},
)


def one_damaged_of_two(mmtui_: Invoke, home: Home, damage: str | dict[str, Any]) -> str:
    """Two runs, the manifest of the first damaged; the id of the other."""
    odd, sound = (mmtui_("run", "shapes_smoke", "--hold").out.split()[0] for _ in range(2))
    manifest = home.run(odd).manifest
    if isinstance(damage, str):
        manifest.unlink()
        KINDS[damage](manifest)
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **damage}))
    return str(sound)


@pytest.mark.parametrize("damage", [*KINDS, *WRONG], ids=str)
def test_folder_that_does_not_help_keeps_no_other_from_being_mended(
    mmtui_: Invoke, home: Home, damage: str | dict[str, Any]
) -> None:
    sound = one_damaged_of_two(mmtui_, home, damage)
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("UPDATE runs SET config = '{'")
    connection.close()
    found = mmtui_("doctor", "--fix")
    assert "a fault of mmtui" not in found.err and "Traceback" not in found.err
    assert f"run {sound}: config mended" in found.out + found.err
    assert "shapes" in mmtui_("show", sound, "--json").out


@pytest.mark.parametrize("damage", [*KINDS, *WRONG], ids=str)
def test_folder_that_does_not_help_keeps_no_other_from_being_made_again(
    mmtui_: Invoke, home: Home, damage: str | dict[str, Any]
) -> None:
    sound = one_damaged_of_two(mmtui_, home, damage)
    for name in ("", "-wal", "-shm"):
        Path(f"{home.database}{name}").unlink(missing_ok=True)
    found = mmtui_("doctor", "--rebuild")
    assert "a fault of mmtui" not in found.err and "Traceback" not in found.err
    assert sound in [run["id"] for run in json.loads(mmtui_("ls", "-a", "--json").out)["runs"]]


ODD = ("", "..", "../x", "/etc/passwd", "n" * 5000, "a/" * 3000, "a\0b", "loop", "out", "pipe", ".", "missing", None, 7)


@pytest.mark.parametrize("name", ODD)
def test_name_that_a_trainer_tells_leads_to_no_file_but_one_of_the_run(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "x").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "out").symlink_to("../x")
    os.mkfifo(folder / "pipe")
    assert named_file(folder, name) is None
    (folder / "in").touch()
    (folder / "same").symlink_to("in")
    assert named_file(folder, "in") == named_file(folder, "same") == folder / "in"
