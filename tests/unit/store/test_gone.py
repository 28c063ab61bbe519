"""A database that is gone while the folders of its runs are there: nobody is told that there are no runs."""

from __future__ import annotations

import re

import pytest

from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.services import doctor, keeping, mending, queue, runs, supervisors
from mmtui.supervisor.loop import Supervisor


@pytest.mark.parametrize("how", ["deleted", "empty"])
def test_database_that_is_gone_is_told_and_not_replaced_by_an_empty_one(home: Home, how: str) -> None:
    """To say that there are no runs would be a lie, and a new database would be believed."""
    home.create()
    assert runs.list_runs(home) == [], "a new directory has no runs, and that is no error"
    queue.enqueue(home, "shapes_smoke")
    for file in home.root.glob("mmtui.db*"):
        file.unlink()
    if how == "empty":
        home.database.touch()
    told = r"is gone, but folders of runs are there \(1\)"
    for ask in (
        lambda: runs.list_runs(home),
        lambda: runs.get_run(home, "1"),
        lambda: queue.enqueue(home, "shapes_smoke"),
        lambda: Supervisor(home),
        lambda: keeping.backup(home, None),
    ):
        with pytest.raises(UnreachableError, match=told) as error:
            ask()
        assert "doctor --fix" in error.value.hint
    assert not home.database.exists() or not home.database.stat().st_size
    status = supervisors.status(home)
    assert re.search(told, status.trouble) and not status.note
    (check,) = [check for check in doctor.checks(home) if check.name == "database"]
    assert check.ok is False and "doctor --fix" in check.fix
    assert "run 1 made again from its folder: held" in list(mending.fix(home))
    assert [run.state for run in runs.list_runs(home)] == ["held"]
