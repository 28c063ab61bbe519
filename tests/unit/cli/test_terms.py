"""Terms of runs on the command line: places, limits, budgets; and putting many runs back at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs

Invoke = Callable[..., Any]


def stored(home: Home, run_id: str, column: str) -> Any:
    connection = sqlite3.connect(home.database)
    try:
        return connection.execute(f"SELECT {column} FROM runs WHERE id = ?", [run_id]).fetchone()[0]
    finally:
        connection.close()


def set_state(home: Home, run_id: str, state: str) -> None:
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = ? WHERE id = ?", [state, run_id])
    connection.commit()
    connection.close()


def test_run_terms_are_stored_and_shown(home: Home, mmtui_: Invoke) -> None:
    words = ("--gpus", "0.5", "--time-limit", "90m", "--hold", "-q")
    run_id = mmtui_("run", "shapes_baseline", *words).out.strip()
    assert (stored(home, run_id, "wanted"), stored(home, run_id, "time_limit")) == (0.5, 5400.0)
    shown = mmtui_("show", run_id)
    assert "0.5 GPUs or CPU slots, time limit 1h30m" in shown.out
    terms = mmtui_("show", run_id, "--json").json()["terms"]
    alone = {"launcher": None, "after": [], "not_before": None}
    assert terms == {"gpus": 0.5, "time_limit_seconds": 5400.0, **alone}

    later = mmtui_("run", "shapes_baseline", "--after", run_id, "--delay", "2h", "--hold", "-q").out.strip()
    shown = mmtui_("show", later)
    assert f"after run {run_id}, not before 20" in shown.out
    terms = mmtui_("show", later, "--json").json()["terms"]
    assert terms["after"] == [run_id] and terms["not_before"].endswith("Z")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gpus", "1.5"), "whole number, or a share"),
        (("--gpus", "0"), "whole number, or a share"),
        (("--gpus", "-1"), "whole number, or a share"),
        (("--time-limit", "soon"), "write for example 90s"),
        (("--budget", "20h"), "for one run use --time-limit"),
        (("--fail-fast",), "leave it out for one run"),
        (("--launcher", "cloud"), "write local or slurm"),
        (("--slurm", "nodes=2"), "with --launcher slurm"),
        (
            ("--gpus", "2", "--hold", "segment.batch_size=2", "segment.crop=16"),
            "--gpus 2: segment.batch_size 2 gives each of 2 processes one image at a time",
        ),
        (("segment.batch_size=1", "segment.crop=16"), "segment.batch_size 1 gives the network one image at a time"),
    ],
)
def test_run_wrong_terms_exit_2_and_queue_nothing(
    home: Home, mmtui_: Invoke, words: tuple[str, ...], told: str
) -> None:
    found = mmtui_("run", "shapes_baseline", *words)
    assert found.code == 2
    assert told in found.err
    assert runs.list_runs(home) == []


def test_dry_run_tells_what_processes_could_not_train(home: Home, mmtui_: Invoke) -> None:
    words = ("run", "shapes_baseline", "--gpus", "2", "segment.batch_size=2", "segment.crop=16", "--dry-run")
    assert "would not start here: --gpus 2: segment.batch_size 2 gives each of 2 processes" in mmtui_(*words).err
    assert "would not start" not in mmtui_(*words, "segment.accumulate=2", "segment.batch_size=4").err


def test_budget_of_a_sweep_is_kept_changed_and_removed(home: Home, mmtui_: Invoke) -> None:
    first = mmtui_("run", "shapes_baseline", "seed=0,1", "--budget", "20h", "--hold", "-q").out.split()[0]
    assert runs.queue_settings(home)[f"budget:sweep-{first}"] == "20.0"
    assert mmtui_("queue", "--budget", f"sweep-{first}=30.5h").code == 0
    assert runs.queue_settings(home)[f"budget:sweep-{first}"] == "30.5"
    assert mmtui_("queue", "--budget", f"sweep-{first}=0").code == 0
    assert runs.queue_settings(home) == {}
    for wrong in ("x", "=3", "g=many"):
        assert mmtui_("queue", "--budget", wrong).code == 2


@pytest.mark.processes
def test_retry_failed_puts_back_what_failed_or_was_interrupted_and_nothing_else(home: Home, mmtui_: Invoke) -> None:
    ids = mmtui_("run", "shapes_baseline", "seed=0..4", "--hold", "-q").out.split()
    states = ("failed", "interrupted", "cancelled", "succeeded", "held")
    for run_id, state in zip(ids, states, strict=True):
        set_state(home, run_id, state)
    # A drained queue: nothing of what is put back starts here.
    mmtui_("queue", "drain")
    listed = mmtui_("retry", "--failed", "--dry-run").out.splitlines()
    assert [line.split()[0] for line in listed] == ids[:2]
    assert mmtui_("retry", "--failed", "-q").out.split() == ids[:2]
    after = {row.id: row.state for row in runs.list_runs(home)}
    assert [after[run_id] for run_id in ids] == ["queued", "queued", "cancelled", "succeeded", "held"]
    again = mmtui_("retry", "--failed")
    assert (again.code, "no run has failed" in again.err) == (0, True)


def test_retry_says_which_runs_it_wants(home: Home, mmtui_: Invoke) -> None:
    assert mmtui_("retry").code == 2
    run_id = mmtui_("run", "shapes_baseline", "--hold", "-q").out.strip()
    assert mmtui_("retry", run_id, "--failed").code == 2


@pytest.mark.processes
def test_retry_time_limit_gives_more_time(home: Home, mmtui_: Invoke) -> None:
    run_id = mmtui_("run", "shapes_baseline", "--time-limit", "1h", "--hold", "-q").out.strip()
    set_state(home, run_id, "cancelled")
    mmtui_("queue", "drain")
    assert mmtui_("retry", run_id, "--time-limit", "2h").code == 0
    assert stored(home, run_id, "time_limit") == 7200.0, "it has trained for no time yet"
    set_state(home, run_id, "cancelled")
    assert mmtui_("retry", run_id, "--time-limit", "0").code == 0
    assert stored(home, run_id, "time_limit") == 0.0


def test_cancel_save_and_now_contradict_each_other(home: Home, mmtui_: Invoke) -> None:
    run_id = mmtui_("run", "shapes_baseline", "--hold", "-q").out.strip()
    assert mmtui_("cancel", run_id, "--save", "--now").code == 2
    assert mmtui_("cancel", run_id, "--save").code == 0
    assert runs.get_run(home, run_id).row.state == "cancelled"


def test_run_that_no_place_here_can_ever_hold_is_refused_unless_held(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "shapes_baseline", "--smoke", "--gpus", "99")
    assert (found.code, found.out) == (6, "") and "this machine has" in found.err and "--hold" in found.err
    assert mmtui_("ls").out == ""
    assert mmtui_("run", "shapes_baseline", "--smoke", "--gpus", "99", "--hold").code == 0


def test_queue_tells_limits_that_cannot_be_read_as_unknown(home: Home, mmtui_: Invoke) -> None:
    assert mmtui_("queue", "--limit", "g=2").code == 0
    connection = sqlite3.connect(home.database)
    with connection:
        connection.execute("INSERT INTO settings VALUES ('limit:h', 'many'), ('budget:h', x'ff00')")
    connection.close()
    assert mmtui_("queue", "--json").json()["limits"] == {"g": 2, "h": None}
    assert mmtui_("queue").code == 0
