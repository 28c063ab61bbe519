"""What the documents say is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmtui.cli import verbs
from mmtui.settings import Settings
from tests.waiting import PATIENCE


def test_command_reference_is_what_help_says(repository: Path) -> None:
    file = repository / "docs" / "cli.md"
    done = subprocess.run(
        [sys.executable, "-m", "mmtui.cli.docs", "--check", str(file)],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "COLUMNS": "200", "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_command_reference_check_notices_a_change(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "cli.md"
    file.write_text((repository / "docs" / "cli.md").read_text().replace("newest first", "oldest first"))
    done = subprocess.run(
        [sys.executable, "-m", "mmtui.cli.docs", "--check", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "make docs" in done.stderr


def test_readme_names_every_verb_and_no_other(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    table = text.partition("<!-- verbs -->")[2].partition("<!-- /verbs -->")[0]
    named = set(re.findall(r"^\| `([a-z]+)", table, re.M))
    assert named == {name.split()[0] for name in verbs.VERBS}


def test_command_reference_names_every_setting(repository: Path) -> None:
    text = (repository / "docs" / "cli.md").read_text()
    for name in Settings.__slots__:
        assert f"`{name}`" in text


def test_architecture_names_a_test_for_every_invariant_and_it_exists(repository: Path) -> None:
    text = (repository / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", text, re.M)
    assert len(rows) > 10
    for number, _, guards in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", guards)
        assert named or "pyproject.toml" in guards, f"invariant {number} has no guard"
        for file, function in named:
            assert (repository / file).is_file(), f"invariant {number}: no {file}"
            if function:
                assert f"def {function}(" in (repository / file).read_text(), f"invariant {number}: no {function}"


def test_security_names_a_test_for_every_threat_and_it_exists(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+ \| (.+) \|$", text, re.M)[1:]
    assert len(rows) > 12
    for what, guards in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", guards)
        assert named or set(guards) == {"-"}, f"{what}: no test"
        for file, function in named:
            assert (repository / file).is_file(), f"{what}: no {file}"
            assert not function or f"def {function}(" in (repository / file).read_text(), f"{what}: no {function}"


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/cli.md", "docs/architecture.md"]
)
def test_documents_link_to_files_that_exist(repository: Path, name: str) -> None:
    file = repository / name
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), f"{name} links to {target}"


def test_only_render_and_diagnostics_write_to_the_terminal(repository: Path) -> None:
    """stdout has one owner, stderr another; the trainer's lines are the engine's own business."""
    # What the launcher says goes into the output of the trainer that it does not become.
    allowed = {"mmtui/cli/render.py", "mmtui/cli/diagnostics.py", "mmtui/services/launch.py"}
    for file in (repository / "mmtui").rglob("*.py"):
        name = str(file.relative_to(repository))
        if name not in allowed and not name.startswith(("mmtui/tui/", "mmtui/supervisor/")):
            assert not re.search(r"\bprint\(|std(out|err)\.write\(", file.read_text()), name


def test_modules_stay_short(repository: Path) -> None:
    for package in ("mmtui", "engine"):
        for file in (repository / package).rglob("*.py"):
            assert len(file.read_text().splitlines()) < 500, file
