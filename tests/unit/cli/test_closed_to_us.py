"""Files and folders that the system keeps from us: each refusal names what is closed and the command that opens it.

The tests may run as root, whom mode bits do not stop: the program is started without the rights that make it so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmtui.access import remedy
from mmtui.paths import Home

ROOT = Path(__file__).resolve().parents[3]
RIGHTS = "-dac_override,-dac_read_search"
BOUND = ["setpriv", "--bounding-set", RIGHTS, "--inh-caps", RIGHTS] if os.geteuid() == 0 else []

pytestmark = pytest.mark.skipif(bool(BOUND) and shutil.which("setpriv") is None, reason="setpriv is not installed")


def ask(home: Home, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MMTUI_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
    command = [*BOUND, sys.executable, "-m", "mmtui", *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "argv",
    [("ls",), ("show", "1"), ("run", "shapes_mixmatch", "--hold"), ("queue",), ("backup",), ("daemon", "start")],
    ids=lambda argv: argv[0],
)
def test_every_verb_names_what_opens_a_closed_home(populated: Home, argv: tuple[str, ...]) -> None:
    populated.root.chmod(0)
    try:
        done = ask(populated, *argv)
    finally:
        populated.root.chmod(0o700)
    assert done.returncode != 0
    assert f"chmod u+rwx {populated.root}" in done.stderr
    assert "Errno" not in done.stderr and done.stdout == ""


def test_doctor_looks_no_further_than_a_closed_home(populated: Home) -> None:
    populated.root.chmod(0)
    try:
        done = ask(populated, "doctor")
    finally:
        populated.root.chmod(0o700)
    assert done.returncode == 1
    assert f"-> chmod u+rwx {populated.root}\n" in done.stdout
    assert done.stdout.splitlines()[-1].strip().startswith("->")


def test_doctor_tells_of_a_closed_folder_and_goes_on(populated: Home) -> None:
    populated.runs.chmod(0)
    try:
        done = ask(populated, "doctor")
    finally:
        populated.runs.chmod(0o700)
    assert done.returncode == 1
    assert f"-> chmod u+rwx {populated.runs}\n" in done.stdout
    assert "recipes load" in done.stdout


def test_doctor_tells_of_settings_that_are_wrong(populated: Home) -> None:
    populated.config.write_text("x=")
    done = ask(populated, "doctor")
    assert done.returncode == 1 and done.stderr == ""
    assert f"-> mend or remove {populated.config}\n" in done.stdout


@pytest.mark.parametrize(("name", "argv"), [("database", ("ls",)), ("runs", ("run", "shapes_mixmatch", "--hold"))])
def test_a_closed_part_of_the_home_is_named(populated: Home, name: str, argv: tuple[str, ...]) -> None:
    part: Path = getattr(populated, name)
    mode = part.stat().st_mode
    part.chmod(0)
    try:
        done = ask(populated, *argv)
    finally:
        part.chmod(mode)
    assert done.returncode == 3
    assert f"chmod u+rw{'x' if part.is_dir() else ''} {part}" in done.stderr


def test_what_belongs_to_another_is_not_ours_to_open(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(theirs, 64321, -1)
    said = subprocess.run(
        [*BOUND, sys.executable, "-c", f"from mmtui.access import remedy; print(remedy({str(theirs / 'x')!r}))"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == f"{theirs} belongs to user 64321 (mode 700): ask for access, or name another place\n"


def test_nothing_is_advised_where_nothing_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert remedy(tmp_path / "file") == remedy(tmp_path / "none") == remedy(tmp_path / "none" / "none") == ""
