"""What a newcomer is told holds: the licence, the tree of rooms, the commands, the numbers of the invariants."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

LISTED = ("engine", "mmtui", "tests")
"""Folders of which the tree names every room."""


def told(repository: Path) -> dict[str, str]:
    """{folder: its line} of the tree in CONTRIBUTING.md; what is indented lies in the folder above it."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text.partition("<!-- rooms -->")[2].partition("<!-- /rooms -->")[0]
    above: list[str] = []
    found = {}
    for indent, name, what in re.findall(r"^( *)([\w.]+)/ *(.*)$", tree, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        found["/".join(above)] = what
    return found


def rooms(repository: Path, top: str) -> set[str]:
    """The folder and all below it that hold a Python file, and those that lie between."""
    files = [file.relative_to(repository) for file in (repository / top).rglob("*.py")]
    return {str(folder) for file in files for folder in file.parents if str(folder) != "."}


def test_tree_names_every_room_and_no_other(repository: Path) -> None:
    named = {name for name in told(repository) if name.split("/")[0] in LISTED}
    there = {room for top in LISTED for room in rooms(repository, top)}
    mirrors = {room for room in there if room.startswith("tests/unit/")}  # one for each room, as its line says
    skipped = {"mmtui/store/migrations/versions"}
    assert named == there - mirrors - skipped


def test_every_room_but_the_tests_says_what_it_is(repository: Path) -> None:
    lines = told(repository)
    assert len(lines) > 20
    assert [name for name, what in lines.items() if len(what) < 15 and name != "tests"] == []
    assert [name for name in lines if not (repository / name).is_dir()] == []


def test_commands_are_targets_of_make(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([\w-]+)", text))
    targets = {name for line in re.findall(r"^([\w -]+):(?!=)", makefile, re.MULTILINE) for name in line.split()}
    assert {"quick", "test", "lint"} <= named <= targets


def test_the_licence_is_the_one_that_the_package_names(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert project["license"] == "Apache-2.0"
    assert text.lstrip().startswith("Apache License") and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_classifiers_are_known_to_the_package_index(repository: Path) -> None:
    known = pytest.importorskip("trove_classifiers", reason="trove-classifiers comes with hatchling").classifiers
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [one for one in project["classifiers"] if one not in known] == []


def test_invariants_are_numbered_once_and_in_order(repository: Path) -> None:
    text = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
