"""Second tries: who gets one, how it is told of, and how many are too many; alone and shared out by pytest-xdist."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
TESTS = """
import pathlib
import pytest

def first_time(name):
    file = pathlib.Path(__file__).with_name(name)
    before = file.exists()
    file.touch()
    return not before

@pytest.mark.e2e
@pytest.mark.parametrize("number", range(4))
def test_real(number, tmp_path):
    assert not first_time(f"real{number}"), "the port was taken"

def test_formula():
    assert not first_time("formula"), "two is not three"

@pytest.mark.e2e
def test_broken():
    assert False, "never right"
"""
pytestmark = [
    pytest.mark.processes,
    pytest.mark.parametrize("shared_out", [(), ("-n", "3", "--dist", "loadgroup")], ids=["alone", "xdist"]),
]


def played(folder: Path, shared_out: tuple[str, ...], wanted: str, **environment: str) -> tuple[int, str]:
    """Exit code and words of a run of the tests whose names fit."""
    (folder / "test_it.py").write_text(TESTS)
    plugins = ("xdist", "xdist.looponfail", "pytest_rerunfailures", "tests.second_tries")
    words = [sys.executable, "-m", "pytest", *(word for name in plugins for word in ("-p", name)), "-p"]
    # A folder of its own: else it also clears away what earlier runs of all tests have left, for minutes.
    words += ["no:cacheprovider", "--basetemp", str(folder / "temporary"), "--rootdir", str(folder), *shared_out]
    words += ["-k", wanted, str(folder / "test_it.py")]
    told = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    with (folder / "told").open("w+") as output:
        child = subprocess.Popen(words, cwd=folder, env=told, stdout=output, stderr=output)
        try:
            until(lambda: child.poll() is not None, "the end of a run", (folder / "told").read_text)
        finally:
            child.kill()
            child.wait()
    return child.returncode, (folder / "told").read_text()


def test_real_process_is_tried_again_and_its_first_failure_is_told(tmp_path: Path, shared_out: tuple[str, ...]) -> None:
    code, told = played(tmp_path, shared_out, "real and not 3")
    assert code == 0 and "3 passed, " in told and "3 rerun" in told, told
    _, heading, account = told.partition(" second tries ")
    assert heading and account.count("tried again: test_it.py::test_real[") == 3
    assert account.count("AssertionError: the port was taken") == 3


def test_what_other_runs_have_left_is_not_its_to_clear_away(tmp_path: Path, shared_out: tuple[str, ...]) -> None:
    left = [tmp_path / f"pytest-of-{getpass.getuser()}" / f"pytest-{number}" for number in range(6)]
    for folder in left:
        folder.mkdir(parents=True, mode=0o700)
    code, told = played(tmp_path, shared_out, "real and not 3", PYTEST_DEBUG_TEMPROOT=str(tmp_path))
    assert code == 0 and [folder for folder in left if not folder.is_dir()] == [], told


def test_formula_is_not_tried_again_nor_a_process_twice(tmp_path: Path, shared_out: tuple[str, ...]) -> None:
    code, told = played(tmp_path, shared_out, "formula or broken")
    assert code == 1 and "2 failed, " in told and "1 rerun" in told, told
    assert "tried again: test_it.py::test_broken" in told and "tried again: test_it.py::test_formula" not in told


def test_none_is_made_where_none_is_wanted(tmp_path: Path, shared_out: tuple[str, ...]) -> None:
    code, told = played(tmp_path, shared_out, "real", MMTUI_SECOND_TRIES="0")
    assert code == 1 and "4 failed" in told and "second tries" not in told, told


@pytest.mark.parametrize(("most", "wanted"), [("", 1), ("4", 0)], ids=["three may be", "four may be"])
def test_too_many_fail_the_run_though_every_test_passed(
    tmp_path: Path, shared_out: tuple[str, ...], most: str, wanted: int
) -> None:
    code, told = played(tmp_path, shared_out, "real", MMTUI_MOST_SECOND_TRIES=most)
    assert code == wanted, told
    assert ("FAILED: 4 second tries; 3 at most may be needed" in told) == bool(code)
    assert "4 passed, " in told.rstrip().splitlines()[-1], "the summary is the last line"
