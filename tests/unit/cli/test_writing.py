"""Verbs that change something, against a real database and, where one is needed, a real supervisor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmtui.paths import Home
from mmtui.services import demo, runs, supervisors

Invoke = Callable[..., Any]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A recipe that trains for a few seconds on one thread."""
    file = tmp_path / "tiny.yaml"
    stages = "proxy: null\nmatch: null\nsegment: {steps: 3, eval_every: 0}\n"
    file.write_text(f"base: shapes_smoke\n{stages}runtime: {{threads: 1}}\n")
    return str(file)


def states(home: Home) -> dict[str, str]:
    return {row.id: row.state for row in runs.list_runs(home)}


def test_run_hold_prints_the_id_alone_and_starts_nothing(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "shapes_baseline", "segment.steps=9", "--hold", "--name", "mine", "--tag", "a", "--seed", "4")
    assert (found.code, found.out) == (0, "1\n")
    assert "mmtui release 1" in found.err
    assert mmtui_("run", "shapes_baseline", "--hold", "-q").err == ""
    row = runs.get_run(home, "1").row
    assert (row.state, row.name, row.tags, row.seed) == ("held", "mine", ("a",), 4)
    assert runs.get_run(home, "1").config["segment"]["steps"] == 9
    assert not supervisors.status(home).running


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "shapes_baseline", "--hold", "--name", "n" * 513),
        ("run", "shapes_baseline", "--hold", "--group", "g" * 257),
        ("run", "shapes_baseline", "--hold", "--tag", "t" * 257),
        ("tag", "1", "--add", "t" * 257),
        ("note", "1", "n" * 16_385),
    ],
    ids=lambda argv: f"{argv[0]} {argv[-2]}"[:20],
)
def test_texts_that_are_too_long_are_refused_with_their_limit(
    home: Home, mmtui_: Invoke, argv: tuple[str, ...]
) -> None:
    assert mmtui_("run", "shapes_baseline", "--hold").code == 0
    found = mmtui_(*argv)
    assert (found.code, found.out) == (2, "")
    assert f"has {len(argv[-1]):,} characters" in found.err
    assert f"of at most {len(argv[-1]) - 1:,} characters" in found.err
    assert mmtui_(*argv[:-1], argv[-1][1:]).code == 0
    assert list(states(home)) == (["2", "1"] if argv[0] == "run" else ["1"])


def test_run_dry_run_prints_the_recipe_and_queues_nothing(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("run", "shapes_mixmatch", "match.steps=3", "--seed", "5", "--dry-run")
    assert found.code == 0
    recipe = yaml.safe_load(found.out)
    assert (recipe["match"]["steps"], recipe["seed"], recipe["segment"]["steps"] > 0) == (3, 5, True)
    assert not home.root.exists()


@pytest.mark.parametrize(
    "argv, told",
    [
        (["shapes_mixmach"], "did you mean shapes_mixmatch"),
        (["shapes_baseline", "segment.stepz=1"], "segment.steps"),
        (["shapes_baseline", "segment.steps=many"], "segment.steps"),
        (["shapes_baseline", "segment.steps"], "segment.steps"),
        (["shapes_baseline", "--seed", "-1"], "--seed"),
        (["shapes_baseline", "--seed", str(2**40)], "seed"),
        (["/etc/passwd"], "/etc/passwd"),
        ([], "recipe"),
    ],
)
def test_run_wrong_recipe_or_override_exits_2_and_queues_nothing(
    home: Home, mmtui_: Invoke, argv: list[str], told: str
) -> None:
    found = mmtui_("run", *argv)
    assert (found.code, found.out) == (2, "")
    assert told.lower() in found.err.lower()
    assert "Traceback" not in found.err
    assert states(home) == {}
    assert not supervisors.status(home).running


def test_run_recipe_file_of_ones_own(home: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: shapes_baseline\nsegment: {steps: 3}\n")
    assert mmtui_("run", str(file), "--hold").out == "1\n"
    assert runs.get_run(home, "1").row.recipe == "mine"
    file.write_text("segment:\n  steps: [\n")
    found = mmtui_("run", str(file))
    assert found.code == 2
    assert "mine.yaml" in found.err


def test_run_data_directory_that_cannot_be_made_is_an_error_without_traceback(
    mmtui_: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMTUI_HOME", str(tmp_path / "file" / "home"))
    found = mmtui_("run", "shapes_baseline", "--hold")
    assert found.code != 0
    assert found.err.startswith("error: ")


@pytest.mark.parametrize(
    "verb, run_id, possible",
    [
        ("cancel", "1", "cancelled"),
        ("pause", "3", "paused"),
        ("resume", "1", "resumed"),
        ("hold", "2", "held"),
        ("release", "2", "released"),
        ("retry", "1", "retried"),
    ],
)
def test_verbs_refused_in_a_state_exit_5_and_change_nothing(
    populated: Home, mmtui_: Invoke, verb: str, run_id: str, possible: str
) -> None:
    before = states(populated)
    found = mmtui_(verb, run_id)
    assert (found.code, found.out) == (5, "")
    assert possible in found.err
    assert states(populated) == before
    assert not supervisors.status(populated).running


def test_cancel_goes_on_after_a_refusal_and_says_both(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("cancel", "1", "3", "3")
    assert found.code == 5
    assert "run 1 is succeeded" in found.err
    assert found.err.count("run 3 is cancelled") == 1
    assert states(populated)["3"] == "cancelled"


def test_cancel_unknown_run_among_others_changes_nothing(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("cancel", "3", "77").code == 4
    assert states(populated)["3"] == "held"


def test_cancel_dry_run_only_says_what(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("cancel", "3", "--dry-run")
    assert (found.code, found.out) == (0, "3  held  third\n")
    assert states(populated)["3"] == "held"


def test_cancel_quiet_prints_the_ids(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("cancel", "3", "-q")
    assert (found.code, found.out, found.err) == (0, "3\n", "")


@pytest.mark.e2e
def test_release_starts_a_supervisor_and_the_run_trains(supervised: Home, mmtui_: Invoke, tiny: str) -> None:
    assert mmtui_("run", tiny, "--hold", "-q").out == "1\n"
    assert mmtui_("release", "1").code == 0
    assert mmtui_("daemon", "status").code == 0
    assert mmtui_("wait", "1", "--timeout", "200").code == 0
    assert mmtui_("classes", "1").code == 0
    assert "loss" in mmtui_("metrics", "1").out
    assert mmtui_("daemon", "start").err.startswith("the supervisor already runs")
    assert mmtui_("daemon", "stop").code == 0
    assert mmtui_("daemon", "status").code == 3


@pytest.mark.e2e
def test_run_follow_of_a_run_that_fails_exits_1_and_logs_say_why(
    supervised: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "nowhere.pth").write_bytes(b"no weights")
    recipe = tmp_path / "nodata.yaml"
    recipe.write_text(f"base: shapes_smoke\nmodel: {{weights: {tmp_path / 'nowhere.pth'}}}\n")
    found = mmtui_("run", str(recipe), "--follow")
    assert found.code == 1
    assert found.out.splitlines()[0] == "1"
    last = found.out.splitlines()[-1]
    assert "failed" in last and "nowhere" in last
    assert "nowhere" in mmtui_("logs", "1").out
    assert mmtui_("show", "1", "--json").json()["error"]


@pytest.mark.e2e
def test_demo_without_terminal_ends_with_both_runs_side_by_side(
    supervised: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, tiny: str
) -> None:
    monkeypatch.setattr(demo, "RECIPES", (tiny, tiny))
    found = mmtui_("demo")
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert any("done] run" in line for line in lines)
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[-2:] == ["difference", "pixels"]
    assert any(line.startswith("mean IoU") and line.endswith("+0.0") for line in table)
    assert any(line.startswith("elapsed") for line in table)
    assert not supervisors.status(supervised).running, "the demo started the supervisor, so it stops it"


@pytest.mark.e2e
def test_demo_with_a_run_that_fails_exits_1(
    supervised: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: str
) -> None:
    (tmp_path / "nowhere.pth").write_bytes(b"no weights")
    broken = tmp_path / "broken.yaml"
    broken.write_text(f"base: shapes_smoke\nmodel: {{weights: {tmp_path / 'nowhere.pth'}}}\n")
    monkeypatch.setattr(demo, "RECIPES", (tiny, str(broken)))
    found = mmtui_("demo")
    assert found.code == 1
    assert "mmtui logs 2" in found.err
