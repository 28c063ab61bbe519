"""Paths in a home directory that does not exist: another user's, or one's own in a container. A sentence each."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import engine.__main__
from mmtui.paths import Home
from mmtui.services import service_unit

Invoke = Callable[..., Any]
NOBODYS = "~nobody-is-called-so/x"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose user is in no list of users, and who was told nothing else."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "MMTUI_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        (["import", NOBODYS], NOBODYS),
        (["run", f"{NOBODYS}.yaml"], NOBODYS),
        (["run", "camvid_tiny_baseline", f"data.root={NOBODYS}"], "data.root"),
        (["run", "shapes_smoke", f"model.weights={NOBODYS}"], "model.weights"),
        (["run", "shapes_mixmatch", "proxy.kind=rotation", f"proxy.images={NOBODYS}"], "proxy.images"),
        (["run", "shapes_smoke", f"evaluate.ensemble=[{NOBODYS}]"], "evaluate.ensemble"),
        (["backup", "--restore", NOBODYS], NOBODYS),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_home_of_nobody_is_a_path_that_is_not_there(
    home: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = mmtui_(*argv)
    assert found.code in (2, 3, 4), found
    assert place in found.err and found.err.splitlines()[0].startswith(("error: ", "Usage: ")), found.err


def test_export_into_the_home_of_nobody_is_refused(
    populated: Home, mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken as it is written, it would be a folder called ~... in the current one."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = mmtui_("export", "1", "--to", "csv", "-o", NOBODYS)
    assert found.code in (2, 3, 4) and NOBODYS in found.err, found
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", [["train", "--run-dir", "run"], ["check-recipe"], ["check-data"], ["probe"]])
def test_engine_is_told_of_the_home_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine.__main__.main([*verb, f"{NOBODYS}.yaml"]) == 2
    assert NOBODYS in capsys.readouterr().err


def test_data_directory_in_the_home_of_nobody_is_refused(mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken as it is written, it would be a folder called ~... wherever one happens to be."""
    monkeypatch.setenv("MMTUI_HOME", NOBODYS)
    found = mmtui_("ls")
    assert found.code == 2
    assert found.err.splitlines() == [
        f"error: MMTUI_HOME={NOBODYS}: there is no such home directory",
        "  set MMTUI_HOME to a folder that can be written",
    ]


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("argv", [["ls"], ["run", "shapes_smoke"], ["doctor"], ["daemon", "status"], ["show", "1"]])
def test_user_without_a_home_is_told_what_to_set(mmtui_: Invoke, argv: list[str]) -> None:
    found = mmtui_(*argv)
    assert found.code == 2
    assert found.err.splitlines() == [
        "error: this user has no home directory",
        "  set MMTUI_HOME to a folder that can be written",
    ]


@pytest.mark.usefixtures("homeless")
def test_user_without_a_home_may_name_the_data_directory(
    mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMTUI_HOME", str(tmp_path / "home"))
    assert mmtui_("ls").code == 0
    with pytest.raises(Exception, match="no home directory") as told:
        service_unit.place()
    assert "XDG_CONFIG_HOME" in told.value.hint  # type: ignore[attr-defined]
