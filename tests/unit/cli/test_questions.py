"""Seeds folded, regressions, windows of metrics, logs of several runs."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from mmtui.paths import Home
from mmtui.services import queue

Invoke = Callable[..., Any]
A, B = [57.0, 58.5, 57.9], [50.1, 52.2, 49.3]


def finish(home: Home, run_id: str, miou: float) -> None:
    connection = sqlite3.connect(home.database)
    connection.execute("UPDATE runs SET state = 'succeeded', miou = ? WHERE id = ?", [miou, run_id])
    connection.commit()
    connection.close()


@pytest.fixture
def study(home: Home) -> Home:
    """Two settings with three seeds each, and one of another recipe without a result."""
    for lr, values in (("0.05", A), ("0.01", B)):
        for seed, value in enumerate(values):
            texts = [f"segment.optim.lr={lr}", "segment.steps=9", f"seed={seed}"]
            finish(home, queue.enqueue(home, "shapes_baseline", texts, hold=True), value)
    queue.enqueue(home, "shapes_mixmatch", hold=True)
    return home


def test_ls_group_seed_folds_and_compares_with_the_best(study: Home, mmtui_: Invoke) -> None:
    folds = mmtui_("ls", "--group", "seed", "--json").json()["folds"]
    assert [(one["n"], one["ids"]) for one in folds] == [(3, ["1", "2", "3"]), (3, ["4", "5", "6"]), (0, ["7"])]
    best, other, _ = folds
    assert best["miou_mean"] == pytest.approx(sum(A) / 3) and best["p_welch"] is None
    assert best["changed"] == ["segment.optim.lr=0.05"], "steps are the same in both"
    assert other["p_welch"] == pytest.approx(stats.ttest_ind(B, A, equal_var=False).pvalue)
    assert other["difference_to_best"] == pytest.approx(sum(B) / 3 - sum(A) / 3)
    text = mmtui_("ls", "--group", "seed").out
    assert "~" not in text, "the difference is far beyond the noise"


def test_ls_group_seed_inside_noise_says_how_many_seeds_it_takes(study: Home, mmtui_: Invoke) -> None:
    for run_id, value in zip(("4", "5", "6"), (57.0, 58.0, 56.5), strict=True):
        finish(study, run_id, value)
    found = mmtui_("ls", "--group", "seed")
    assert "~" in found.out
    needed = mmtui_("ls", "--group", "seed", "--json").json()["folds"][1]["seeds_needed"]
    words = f"mmtui run shapes_baseline segment.optim.lr=0.01 segment.steps=9 seed=3..{3 + needed - 3 - 1}"
    assert words in found.err
    assert mmtui_(*words.split()[1:], "--dry-run").code == 0, "the command that it gives is one"


def test_overrides_are_told_as_a_shell_reads_them_and_without_those_that_came_to_nothing(
    home: Home, mmtui_: Invoke
) -> None:
    texts = ["match.patch_size=[16,48]", "description=it's $HOME", "seed=1", "segment.steps=9", "seed=2"]
    for values in ([50.0, 51.0], [50.5, 50.8]):
        for value in values:
            finish(home, queue.enqueue(home, "shapes_mixmatch", texts, hold=True), value)
        texts = [*texts, "segment.steps=8", f"seed={values[0]:.0f}"]
    words = next(line for line in mmtui_("show", "1").out.splitlines() if line.startswith("recipe"))
    typed = ["shapes_mixmatch", "match.patch_size=[16,48]", "description=it's $HOME", "segment.steps=9", "seed=2"]
    assert shlex.split(words)[1:] == typed
    assert mmtui_("run", *shlex.split(words)[1:], "--hold").code == 0
    assert " ".join(typed[1:]) in mmtui_("report", "1").out
    command = next(line for line in mmtui_("ls", "--group", "seed").err.splitlines() if "mmtui run" in line)
    asked = shlex.split(command.partition("mmtui ")[2].partition(": ")[0])
    assert asked[:4] == ["run", *typed[:3]] and mmtui_(*asked, "--dry-run").code == 0
    edited = mmtui_("edit", "5", "match.patch_size=[8, 24]", "seed=4")
    assert "now has 'match.patch_size=[8, 24]' seed=4" in edited.err
    assert "'match.patch_size=[8, 24]'" in mmtui_("show", "5").out and "[16,48]" not in mmtui_("show", "5").out


def test_ls_group_seed_with_a_filter_and_of_nothing(study: Home, mmtui_: Invoke) -> None:
    assert len(mmtui_("ls", "--group", "seed", "-F", "lr < 0.02", "--json").json()["folds"]) == 1
    assert "no runs" in mmtui_("ls", "--group", "seed", "-F", "id > 99").err
    assert mmtui_("ls", "--group", "day").code == 2
    assert mmtui_("ls", "--group", "seed", "--csv").out.splitlines()[0].startswith("mIoU,sd,n")


def regress(home: Home) -> None:
    """A second run like the first whose class "car" is worse by ten points of a hundred."""
    connection = sqlite3.connect(home.database)
    connection.execute("DELETE FROM evaluations WHERE run_id = 2")
    from array import array

    blob = array("q", [8, 2, 0, 3, 7, 0, 0, 0, 0]).tobytes()
    connection.execute(
        "INSERT INTO evaluations SELECT 2, global_step, 1, stage, step, t, classes, ?, split, images, predictions"
        " FROM evaluations WHERE run_id = 1 AND global_step = 4",
        [blob],
    )
    connection.commit()
    connection.close()


def test_classes_fail_below_exits_1_on_a_regression_alone(populated: Home, mmtui_: Invoke) -> None:
    regress(populated)
    found = mmtui_("classes", "2", "--vs", "1", "--fail-below", "-0.5")
    assert found.code == 1
    assert "error: car is worse by" in found.err
    assert mmtui_("classes", "2", "--vs", "1", "--fail-below", "30").code == 0
    assert mmtui_("classes", "1", "--vs", "2", "--fail-below", "0").code == 0, "better is no regression"
    assert mmtui_("classes", "2", "--vs", "1").code == 0
    assert mmtui_("classes", "2", "--fail-below", "1").code == 2


def test_metrics_around_window_and_smooth(populated: Home, mmtui_: Invoke) -> None:
    def values(*words: str) -> list[tuple[int, float]]:
        points = mmtui_("metrics", "1", "-m", "loss", *words, "--json").json()["points"]
        return [(point["step"], round(point["value"], 6)) for point in points]

    losses = {step: 1 / step for step in range(1, 5)}
    assert values("--around", "3", "--window", "1") == [(step, round(losses[step], 6)) for step in (2, 3, 4)]
    smooth = values("--smooth", "2")
    assert smooth[0] == (1, 1.0), "nothing is invented before the first point"
    assert smooth[3] == (4, round((losses[3] + losses[4]) / 2, 6))
    # The window is cut from the smoothed curve, so its first point knows of those before it.
    assert values("--smooth", "2", "--around", "4", "--window", "0") == [smooth[3]]
    assert values("--last", "1") == [(4, 0.25)]


def test_logs_of_several_runs_say_whose_line_it_is(populated: Home, mmtui_: Invoke) -> None:
    lines = mmtui_("logs", "1", "2", "-n", "1").out.splitlines()
    assert lines == ["1 | second \\x1b[2Jline", "2 | second \\x1b[2Jline"]
    followed = mmtui_("logs", "1", "2", "-f").out.splitlines()
    assert sorted(followed) == sorted(
        f"{run} | {text}" for run in "12" for text in ("first line", "second \\x1b[2Jline")
    )


def test_ls_group_sweep_is_one_line_a_sweep(home: Home, mmtui_: Invoke) -> None:
    assert "no runs" in mmtui_("ls", "--group", "sweep").err
    ids = mmtui_("run", "shapes_baseline", "seed=0..2", "--hold", "-q").out.split()
    mmtui_("run", "shapes_mixmatch", "--hold", "-q")
    finish(home, ids[1], 44.5)
    (only,) = mmtui_("ls", "--group", "sweep", "--json").json()["groups"]
    assert (only["group"], only["runs"], sorted(only["ids"])) == (f"sweep-{ids[0]}", 3, ids)
    assert (only["states"], only["best_run"], only["best_miou"]) == ({"held": 2, "succeeded": 1}, ids[1], 44.5)
    assert only["progress"] == pytest.approx(1 / 3, abs=1e-3)
    assert "2 held 1 succeeded" in mmtui_("ls", "--group", "sweep").out


def test_view_is_kept_shown_by_ls_and_forgotten(study: Home, mmtui_: Invoke) -> None:
    assert "no views yet" in mmtui_("view").err
    kept = mmtui_("view", "good", "-F", "miou > 55", "--sort=-miou", "-c", "lr,miou")
    assert kept.code == 0 and "mmtui ls -F 'miou > 55' --sort=-miou -c lr,miou" in kept.err
    shown, same = mmtui_("ls", "--view", "good"), mmtui_("ls", "-F", "miou > 55", "--sort=-miou", "-c", "lr,miou")
    assert shown.out == same.out and shown.out.splitlines()[1].split()[0] == "2"
    wins = [run["id"] for run in mmtui_("ls", "--view", "good", "-F", "miou < 50", "--json").json()["runs"]]
    assert wins == ["6"], "what is given beside a view wins"
    assert mmtui_("view", "--json").json()["views"][0]["name"] == "good"
    assert mmtui_("view", "good", "--remove").code == 0 and mmtui_("view", "good").code == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["view", "two words", "-F", "id = 1"], 2, "is no name for a view"),
        (["view", "bad", "-F", "mioo > 1"], 2, "did you mean miou"),
        (["view", "bad", "--group", "day"], 2, "write seed or sweep"),
        (["ls", "--view", "goood"], 4, "no view 'goood', did you mean good?"),
    ],
)
def test_wrong_view_is_refused_with_what_to_write(
    study: Home, mmtui_: Invoke, words: list[str], code: int, said: str
) -> None:
    mmtui_("view", "good", "-F", "miou > 55")
    found = mmtui_(*words)
    assert found.code == code and said in found.err


def test_damaged_views_file_is_named(study: Home, mmtui_: Invoke) -> None:
    (study.root / "views.json").write_text("{not json")
    found = mmtui_("ls", "--view", "x")
    assert found.code == 2 and "views.json cannot be read" in found.err


def test_pinned_is_a_column_of_filters(study: Home, mmtui_: Invoke) -> None:
    mmtui_("tag", "2", "5", "--add", "pinned")
    assert [run["id"] for run in mmtui_("ls", "-F", "pinned = 1", "--json").json()["runs"]] == ["5", "2"]
    assert [run["id"] for run in mmtui_("ls", "--sort=-pinned", "--json").json()["runs"]][:2] == ["5", "2"]
