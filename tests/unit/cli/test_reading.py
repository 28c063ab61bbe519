"""Reading verbs: what they print, where, and with which exit code."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from tests.copies import copy_run
from tests.work import work

Invoke = Callable[..., Any]


def test_ls_without_database_is_empty_and_makes_nothing(home: Home, mmtui_: Invoke) -> None:
    found = mmtui_("ls")
    assert (found.code, found.out) == (0, "")
    assert "mmtui run" in found.err
    assert not home.root.exists()


def test_ls_newest_first_with_states_in_words(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("ls")
    assert found.code == 0
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "3", "2", "1"]
    assert ["held" in lines[1], "failed" in lines[2], "succeeded" in lines[3]] == [True] * 3
    assert found.err == ""


def test_ls_names_and_errors_with_control_characters_are_spelled_out(populated: Home, mmtui_: Invoke) -> None:
    for argv in (("ls",), ("show", "2"), ("ls", "--json"), ("show", "2", "--json"), ("logs", "1")):
        assert not [c for c in mmtui_(*argv).out if ord(c) < 32 and c != "\n"], argv
    assert r"evil\x1b[31m\x07" in mmtui_("ls").out
    assert mmtui_("ls", "--json").json()["runs"][1]["name"] == "evil\x1b[31m\x07"


def test_ls_among_a_hundred_times_as_many_runs_is_no_slower(populated: Home, mmtui_: Invoke) -> None:
    copy_run(populated, 1, 97)
    few = work(lambda: mmtui_("ls"))
    copy_run(populated, 1, 9_900)
    many = work(lambda: mmtui_("ls"))
    assert mmtui_("ls").err == "30 of 10000 runs; all of them with --all\n"
    assert many.python < 1.1 * few.python
    assert many.sqlite < few.sqlite + 20 * 9_900, "they are counted, no more"


def test_ls_state_lists_only_that_state(populated: Home, mmtui_: Invoke) -> None:
    assert [run["id"] for run in mmtui_("ls", "--state", "failed", "--json").json()["runs"]] == ["2"]
    both = mmtui_("ls", "-s", "failed", "-s", "held", "--json").json()
    assert [run["id"] for run in both["runs"]] == ["3", "2"]


def test_ls_unknown_state_is_a_usage_error_with_the_nearest(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("ls", "--state", "runing")
    assert (found.code, found.out) == (2, "")
    assert "did you mean running?" in found.err


def test_ls_limit_says_on_stderr_what_it_left_out(populated: Home, mmtui_: Invoke) -> None:
    for form in ((), ("--json",)):
        found = mmtui_("ls", "-n", "1", *form)
        assert "1 of 3 runs" in found.err
        assert "of 3 runs" not in found.out
    assert mmtui_("ls", "--all").err == ""


@pytest.mark.parametrize("limit", ["0", "-1", "two", ""])
def test_ls_bad_limit_is_a_usage_error(populated: Home, mmtui_: Invoke, limit: str) -> None:
    found = mmtui_("ls", "--limit", limit)
    assert (found.code, found.out) == (2, "")
    assert "--limit" in found.err


def test_ls_color_only_when_asked_for(populated: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in mmtui_("ls").out
    assert "\x1b[32m" in mmtui_("--color", "always", "ls").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b" not in mmtui_("--color", "never", "ls").out


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_use_color_environment_says_no(mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    from mmtui.cli import render

    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    render.set_color("")
    monkeypatch.setattr("sys.stdout", Terminal())
    assert render.use_color()
    monkeypatch.setenv(name, value)
    assert not render.use_color()


def test_color_mode_unknown_is_a_usage_error(mmtui_: Invoke) -> None:
    found = mmtui_("--color", "blue", "ls")
    assert found.code == 2
    assert "auto, always or never" in found.err


@pytest.mark.parametrize("selector, run_id", [("1", "1"), ("@", "3"), ("@~2", "1"), ("02", "2")])
def test_show_selectors(populated: Home, mmtui_: Invoke, selector: str, run_id: str) -> None:
    assert mmtui_("show", selector, "--json").json()["id"] == run_id


@pytest.mark.parametrize("verb", ["show", "classes", "metrics", "logs", "wait", "watch", "cancel", "retry"])
@pytest.mark.parametrize("selector", ["99", "@~7", "x", "1; rm"])
def test_verbs_of_an_unknown_run_exit_4(populated: Home, mmtui_: Invoke, verb: str, selector: str) -> None:
    found = mmtui_(verb, selector)
    assert (found.code, found.out) == (4, "")
    assert found.err.startswith("error: ")
    assert "Traceback" not in found.err


@pytest.mark.parametrize("verb", ["show", "rm", "cancel", "note"])
def test_a_removed_run_is_said_to_be_in_the_trash_and_no_other_is_meant(
    populated: Home, mmtui_: Invoke, verb: str
) -> None:
    """Run 12 begins with the digits of run 1, which is gone: a command that is given twice must not reach it."""
    ids = [mmtui_("run", "shapes_smoke", "--hold").out.strip() for _ in range(9)]
    assert ids[-1] == "12"
    assert mmtui_("rm", *ids[6:8], "1").code == 0
    found = mmtui_(verb, "1", *(["text"] if verb == "note" else []))
    assert found.code == 4
    assert found.err == "error: run 1 is in the trash\n  bring it back with: mmtui restore 1\n"
    assert mmtui_("purge", "--yes").code == 0
    assert mmtui_(verb, "1", *(["text"] if verb == "note" else [])).err.startswith("error: no run 1\n")
    assert mmtui_("show", "12", "--json").json()["state"] == "held"


def test_show_prints_what_was_overridden(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("show", "3")
    assert "segment.steps=20" in found.out
    assert "0/20" in found.out


@pytest.mark.parametrize(
    ("ema", "told"), [("0.99", True), ("0", False), ("null", False), ('"x"', False), ("true", False)]
)
def test_show_says_where_the_moving_average_was_evaluated(
    populated: Home, mmtui_: Invoke, ema: str, told: bool
) -> None:
    assert "weights" not in mmtui_("show", "1").out
    connection = sqlite3.connect(populated.database)
    segment = f'{{"ema": {ema}}}'
    connection.execute("UPDATE runs SET config = json_set(config, '$.segment', json(?)) WHERE id < 4", [segment])
    connection.execute("UPDATE stages SET status = 'pending' WHERE run_id = 3")
    connection.execute("UPDATE runs SET miou = NULL WHERE id = 3")
    connection.commit()
    connection.close()
    for run_id, when in (("1", "evaluated and handed on"), ("3", "to be evaluated")):
        line = f"weights  {when}: the moving average (segment.ema 0.99), not those of the last step\n"
        found = mmtui_("show", run_id)
        assert found.code == 0 and (line in found.out) == told == ("weights" in found.out)


def test_classes_absent_class_has_no_iou(populated: Home, mmtui_: Invoke) -> None:
    body = mmtui_("classes", "1", "--json").json()
    assert [(c["name"], c["iou"]) for c in body["classes"]] == [("road", 8 / 11), ("car", 9 / 12), ("bike", None)]
    assert body["num_present"] == 2
    assert body["miou"] == pytest.approx((8 / 11 + 9 / 12) / 2)
    text = mmtui_("classes", "1").out
    assert "over 2/3 classes" in text
    assert "nan" not in text.lower()


def test_classes_step_picks_the_evaluation(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("classes", "1", "--step", "2", "--json").json()["classes"][0]["iou"] == 1 / 3
    assert mmtui_("classes", "1", "--step", "3").code == 4


def test_classes_versus_shows_the_difference_of_the_first(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("classes", "1", "--vs", "1")
    assert found.code == 0
    assert "+0.0" in found.out
    assert mmtui_("classes", "1", "--vs", "2").code == 4


def test_metrics_lists_names_and_points(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("metrics", "1").out.split() == ["loss", "lr"]
    points = mmtui_("metrics", "1", "-m", "loss", "--json").json()["points"]
    assert [(p["step"], p["value"]) for p in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [p["step"] for p in mmtui_("metrics", "1", "-m", "loss", "--last", "1", "--json").json()["points"]] == [4]


def test_metrics_unknown_metric_names_those_there_are(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("metrics", "1", "-m", "los")
    assert found.code == 4
    assert "loss, lr" in found.err


def test_logs_last_lines_with_control_characters_spelled_out(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("logs", "1", "-n", "1").out == "second \\x1b[2Jline\n"
    assert mmtui_("logs", "1", "-n", "0").out == ""
    assert mmtui_("logs", "1", "-f").out.splitlines()[0] == "first line"


def test_logs_of_a_run_that_never_ran_exit_4(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("logs", "3").code == 4
    found = mmtui_("logs", "1", "--attempt", "9")
    assert found.code == 4
    assert "attempt 9 of run 1" in found.err


def test_wait_exit_codes(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("wait", "1").code == 0
    found = mmtui_("wait", "1", "2")
    assert (found.code, found.out) == (1, "1 succeeded\n2 failed\n")
    assert mmtui_("wait", "1", "3", "--any").code == 0
    found = mmtui_("wait", "3", "--timeout", "0.3")
    assert found.code == 124
    assert "3 (held)" in found.err
    assert mmtui_("wait", "3", "--timeout", "nan").code == 2


def test_watch_of_finished_runs_prints_one_line(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("watch", "1")
    assert found.code == 0
    assert len(found.out.splitlines()) == 1
    assert mmtui_("watch", "2").code == 1


def test_watch_foreign_event_file_and_run_directory(populated: Home, mmtui_: Invoke) -> None:
    folder = populated.run("1").root
    for path in (folder, folder / "attempts" / "001" / "events.jsonl"):
        found = mmtui_("watch", str(path))
        assert found.code == 0
        assert "segment 4  loss 0.25  lr 0.1" in found.out
        assert found.out.endswith("finished: succeeded\n")


def test_watch_says_what_weights_a_run_begins_with(tmp_path: Path, mmtui_: Invoke) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        '{"seq":1,"t":1,"kind":"weights","stage":"match","values":{"file":"w.pth","loaded":78}}\n'
        '{"seq":2,"t":1,"kind":"weights","stage":"match","values":{}}\n'
        '{"seq":3,"t":1,"kind":"run_finished","values":{"status":"succeeded"}}\n'
    )
    found = mmtui_("watch", str(file))
    assert "weights of w.pth: 78 keys loaded" in found.out
    assert found.code == 0


def test_watch_hostile_event_lines_are_skipped_or_escaped(tmp_path: Path, mmtui_: Invoke) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        "not json\n[]\n"
        '{"seq":1,"t":1,"kind":"metrics","values":7}\n'
        '{"seq":2,"t":1,"kind":"warning","stage":"\\u001b[2J","values":{"text":"a\\u001b]0;b\\u0007"}}\n'
        '{"seq":3,"t":1,"kind":"metrics","stage":5,"step":"x","values":{"loss":1}}\n'
        '{"seq":4,"t":1,"kind":"run_finished","values":{"status":"failed"}}\n'
    )
    found = mmtui_("watch", str(file))
    assert found.code == 1
    assert "\x1b" not in found.out
    assert r"warning: a\x1b]0;b\x07" in found.out
    assert found.out.endswith("finished: failed\n")


def test_watch_path_without_events_exits_4(tmp_path: Path, mmtui_: Invoke) -> None:
    assert mmtui_("watch", str(tmp_path)).code == 4


def test_queue_and_bare_mmtui_print_the_same_short_status(populated: Home, mmtui_: Invoke) -> None:
    status = mmtui_("queue")
    assert status.code == 0
    assert "supervisor does not run" in status.out
    assert "1 held" in status.out

    def without_ages(text: str) -> list[list[str]]:
        return [line.split()[:-1] for line in text.splitlines()]

    assert without_ages(mmtui_().out) == without_ages(status.out)
    assert without_ages(mmtui_("status").out) == without_ages(status.out)


def test_daemon_status_without_supervisor_exits_3(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("daemon", "status").code == 3
    assert mmtui_("daemon", "status", "--json").json()["supervisor"]["running"] is False
    assert mmtui_("daemon", "stop").code == 0


def test_recipes_lists_shipped_and_own_and_says_why_one_does_not_load(home: Home, mmtui_: Invoke) -> None:
    own = home.root / "recipes"
    own.mkdir(parents=True)
    (own / "broken.yaml").write_text("segment: {stepz: 1}\n")
    found = {view["name"]: view for view in mmtui_("recipes", "--json").json()["recipes"]}
    assert {"shapes_baseline", "shapes_mixmatch", "broken"} <= set(found)
    assert "stepz" in found["broken"]["error"]
    assert found["shapes_baseline"]["error"] == ""
    assert "shapes_mixmatch" in mmtui_("recipes").out


def test_recipes_with_a_name_tells_every_key(mmtui_: Invoke) -> None:
    keys = {one["key"]: one for one in mmtui_("recipes", "shapes_mixmatch", "seed=0..2", "--json").json()["keys"]}
    steps = keys["segment.steps"]
    assert (steps["type"], steps["default"], steps["value"], steps["changed_by"]) == (
        "integer >= 1", 42_000, 200, "recipe",
    )  # fmt: skip
    assert keys["seed"]["values"] == ["0", "1", "2"] and keys["seed"]["changed_by"] == "you"
    assert keys["match.strategy"]["choices"] == ["graph", "random", "semi_hard", "balanced"]
    table = mmtui_("recipes", "shapes_mixmatch", "segment.steps=7", "--changed").out.splitlines()
    (line,) = (line for line in table if line.startswith("segment.steps "))
    assert line.split()[1:3] == ["7", "you"] and line.endswith("optimiser steps")
    assert not any(line.startswith("match.margin") for line in table), "the default"
    refused = mmtui_("recipes", "shapes_mixmatch", "segment.stepz=7")
    assert refused.code == 2 and "did you mean segment.steps" in refused.err


def test_gpu_without_driver_says_so(mmtui_: Invoke) -> None:
    body = mmtui_("gpu", "--json").json()
    assert body["gpus"] or body["gpu_note"]
    assert body["memory_total"] > body["memory_used"] > 0
    assert "memory" in mmtui_("gpu").out


def test_database_that_is_no_database_exits_3(populated: Home, mmtui_: Invoke) -> None:
    populated.database.write_bytes(b"not a database at all, by any means" * 100)
    for argv in (("ls",), ("show", "1"), ("metrics", "1"), ("cancel", "3")):
        found = mmtui_(*argv)
        assert (found.code, found.out) == (3, ""), argv
        assert str(populated.database) in found.err


def test_settings_file_that_is_wrong_is_a_usage_error_naming_it(populated: Home, mmtui_: Invoke) -> None:
    populated.config.write_text("rowz = 3\n")
    found = mmtui_("ls")
    assert found.code == 2
    assert "did you mean rows?" in found.err
    assert mmtui_("--version").code == 0


def test_settings_rows_limit_the_list(populated: Home, mmtui_: Invoke) -> None:
    populated.config.write_text("rows = 2\nascii = true\ncolor = 'never'\n")
    found = mmtui_("ls")
    assert len(found.out.splitlines()) == 3
    assert found.out.isascii()


@pytest.mark.parametrize("t", [1.7e12, -1e12, 1e300, -1.7e308])
def test_run_with_times_that_have_no_date_hides_no_other(populated: Home, mmtui_: Invoke, t: float) -> None:
    connection = sqlite3.connect(populated.database)
    connection.execute("UPDATE runs SET created_at = ?, started_at = ?, ended_at = ? WHERE id = 1", [t, t, t])
    connection.execute("UPDATE metrics SET t = ?, value = value * 1e300 WHERE run_id = 1", [t])
    connection.commit()
    connection.close()
    found = mmtui_("ls", "-a", "--json").json()["runs"]
    assert [run["id"] for run in found] == ["3", "2", "1"]
    assert (found[2]["started_at"], found[2]["ended_at"]) == (None, None)
    assert found[0]["created_at"] is not None
    for argv in (("ls", "-a"), ("show", "1"), ("show", "1", "--json"), ("metrics", "1", "-m", "loss", "--json")):
        assert mmtui_(*argv).code == 0, argv
    assert max(map(len, mmtui_("metrics", "1", "-m", "loss", "--smooth", "3").out.splitlines())) < 60


@pytest.mark.parametrize(("loss", "words"), [(1e308, "loss 1e+308"), (7.9e-6, "loss 7.9e-06"), (0.25, "loss 0.250")])
def test_watch_tells_any_loss_in_a_few_characters(populated: Home, mmtui_: Invoke, loss: float, words: str) -> None:
    connection = sqlite3.connect(populated.database)
    connection.execute("UPDATE runs SET loss = ?, miou = ? WHERE id = 1", [loss, loss])
    connection.commit()
    connection.close()
    assert words in mmtui_("watch", "1").out.strip().split("  ")


@pytest.mark.parametrize(
    "argv",
    [
        ("ls", "--json", "--csv"),
        ("ls", "--jsonl", "--json"),
        ("query", "SELECT 1", "--csv", "--json"),
        ("compare", "1", "2", "--json", "--csv"),
        ("report", "1", "--latex", "--html", "x.html"),
    ],
)
def test_answer_in_two_forms_is_refused(populated: Home, mmtui_: Invoke, typer_: Invoke, argv: tuple[str, ...]) -> None:
    for found in (mmtui_(*argv), typer_(*argv)):
        assert (found.code, found.out) == (2, "")
        assert "two forms of one answer\n  ask for one of them" in found.err
        assert all(flag in found.err for flag in argv if flag.startswith("--"))


def test_report_on_runs_is_no_json(populated: Home, mmtui_: Invoke) -> None:
    found = mmtui_("report", "1", "--json")
    assert (found.code, found.out) == (2, "")
    assert "mmtui show 1 --json" in found.err


@pytest.mark.parametrize(
    "argv",
    [
        ("show", "--\x1b]0;x\x07"),
        ("note", "-\u202ex", "@"),
        ("ls", "--limit", "\x1b[31m"),
        ("\x9b31mx",),
        ("daemon", "\x1bc"),
    ],
)
def test_errors_about_what_was_typed_are_spelled_out(mmtui_: Invoke, argv: tuple[str, ...]) -> None:
    found = mmtui_(*argv)
    assert found.code == 2 and "rror: " in found.err
    assert not [char for char in found.err if not char.isprintable() and char != "\n"], found.err
