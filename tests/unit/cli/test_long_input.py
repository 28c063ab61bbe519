"""Numbers that are too large, too long or no numbers, on the command line, in settings and in the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmtui.domain.lengths import seconds_of
from mmtui.domain.slurm import launcher
from mmtui.errors import MmtuiError, UsageError
from mmtui.paths import Home
from mmtui.services.places import policy
from mmtui.settings import SettingsError, load

Invoke = Callable[..., Any]
LONG = "9" * 5000
"""More digits than Python reads as a number."""
LARGE = "9" * 20
"""More than a database holds."""
HEX = "rows = 0x" + "f" * 5000
"""Python reads this one, and cannot write it."""
USAGE, NOT_FOUND = 2, 4


def check(found: Any, code: int, named: str) -> None:
    assert found.code == code, found.err
    assert named in found.err
    assert len(found.err) < 800, len(found.err)


def ids(mmtui_: Invoke, *words: str) -> list[str]:
    return [run["id"] for run in mmtui_("ls", *words, "--json").json()["runs"]]


@pytest.fixture
def held(home: Home, mmtui_: Invoke) -> str:
    return str(mmtui_("run", "shapes_smoke", "--hold", "-q").out.strip())


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "[[a]]", "null", LONG])
def test_a_kind_that_is_no_word_is_refused_by_every_verb(home: Home, held: str, mmtui_: Invoke, value: str) -> None:
    text = f"data.kind={value}"
    for words in (
        ("run", "shapes_smoke", text, "--hold", "-q"),
        ("recipes", "shapes_smoke", text),
        ("edit", held, text),
    ):
        check(mmtui_(*words), USAGE, "data.kind")
    assert "kind: shapes" in mmtui_("run", "shapes_smoke", text, "--hold", "-q").err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((f"seed=0..{LONG}",), "seed=0..999"),
        ((f"seed={LONG}..{LONG}",), "seed=999"),
        ((f"seed=-{LONG}..{LONG}",), "seed=-999"),
        ((f"seed=0..4..{LONG}",), "seed=0..4..999"),
        ((f"seed={LONG}",), "seed"),
        ((f"segment.steps={LARGE}",), "segment.steps"),
        (("segment.steps=9007199254740993",), "segment.steps"),
        ((f"segment.pixels={LARGE}",), "segment.pixels"),
        (("--gpus", LONG), "--gpus"),
        (("--gpus", "inf"), "--gpus"),
        (("--gpus", "1e30"), "--gpus"),
        (("--gpus", LONG, "--launcher", "slurm"), "--gpus"),
        (("--launcher", "slurm", "--slurm", f"nodes={LONG}"), "--slurm nodes="),
        (("--launcher", "slurm", "--slurm", f"nodes={LARGE}"), "--slurm nodes="),
        (("--slurm", LONG, "--launcher", "slurm"), "--slurm"),
        (("--delay", f"{LONG}h"), "--delay"),
        (("--delay", "11000d"), "--delay"),
        (("--time-limit", f"{LONG}d"), "--time-limit"),
        (("--budget", f"{LONG}h", "--group", "g"), "--budget"),
        (("--priority", LARGE), "--priority"),
        (("--priority", LONG), "--priority"),
        (("--seed", LONG), "--seed"),
        (("--seed", LARGE), "seed"),
    ],
)
def test_run_names_the_number_that_it_refuses(home: Home, mmtui_: Invoke, words: tuple[str, ...], named: str) -> None:
    check(mmtui_("run", "shapes_smoke", *words, "--hold", "-q"), USAGE, named)
    assert ids(mmtui_) == []


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("show", LONG), NOT_FOUND, "no run 999"),
        (("show", f"@~{LONG}"), NOT_FOUND, "@~999"),
        (("show", f"@~{LARGE}"), NOT_FOUND, "@~999"),
        (("compare", LONG, "1"), NOT_FOUND, "no run 999"),
        (("wait", LONG), NOT_FOUND, "no run 999"),
        (("watch", LONG), NOT_FOUND, "no run 999"),
        (("gpu", "--run", LONG), NOT_FOUND, "no run 999"),
        (("restore", LONG), NOT_FOUND, "999"),
        (("run", "--from", LONG, "--hold"), NOT_FOUND, "no run 999"),
        (("run", "--from", f"1@{LONG}", "--hold"), USAGE, "--from 1@999"),
        (("run", "shapes_smoke", "--after", LONG, "--hold"), NOT_FOUND, "no run 999"),
        (("run", LONG, "--hold"), USAGE, "no recipe called '999"),
        (("run", f"./{LONG}.yaml", "--hold"), USAGE, "no file called"),
        (("queue", "--limit", f"g={LONG}"), USAGE, "--limit g=999"),
        (("queue", "--limit", f"g={LARGE}"), USAGE, "--limit g=999"),
        (("queue", "--budget", f"g={LONG}"), USAGE, "--budget g=999"),
        (("priority", LARGE, "1"), USAGE, "value"),
        (("priority", "--", f"-{LARGE}", "1"), USAGE, "value"),
        (("ls", "-n", LARGE), USAGE, "--limit"),
        (("ls", "--filter", f"loss@{LONG} > 1"), USAGE, "loss@999"),
        (("ls", "--filter", f"loss@{LARGE} > 1"), USAGE, "loss@999"),
        (("ls", "--columns", f"loss@{LONG}"), USAGE, "loss@999"),
        (("ls", "--sort", f"loss@{LONG}"), USAGE, "loss@999"),
        (("ls", "--filter", f"id = 1 {LONG}"), USAGE, "column 8"),
        (("ls", "--filter", f"created > {LONG}"), USAGE, "is no time"),
        (("ls", "--filter", "created > 0001-01-01"), USAGE, "is no time"),
        (("ls", "--state", LONG), USAGE, "--state 999"),
        (("metrics", "1", "--smooth", LARGE), USAGE, "--smooth"),
        (("classes", "1", "--step", LARGE), USAGE, "--step"),
        (("classes", "1", "--vs", "1", "--fail-below", "nan"), USAGE, "--fail-below"),
        (("logs", "1", "-n", LARGE), USAGE, "--lines"),
        (("wait", "1", "--timeout", LONG), USAGE, "--timeout"),
        (("daemon", "stop", "--timeout", "nan"), USAGE, "--timeout"),
        (("retry", "1", "--time-limit", f"{LONG}d"), USAGE, "--time-limit"),
        (("--color", LONG, "ls"), USAGE, "--color"),
        ((LONG,), USAGE, "No such command"),
        (("note", LONG, "x"), NOT_FOUND, "no run 999"),
    ],
)
def test_every_verb_says_what_it_does_not_take(
    home: Home, held: str, mmtui_: Invoke, words: tuple[str, ...], code: int, named: str
) -> None:
    check(mmtui_(*words), code, named)


@pytest.mark.parametrize("words", [("news", "--since"), ("purge", "--unused")])
def test_time_that_has_passed_is_all_of_it_at_most(mmtui_: Invoke, words: tuple[str, ...]) -> None:
    for length in ("36500d", f"{LONG}d"):
        outcome = mmtui_(*words, length)
        assert (outcome.code, outcome.err) == (0, mmtui_(*words, "20000d").err)


@pytest.mark.parametrize("pattern", ["inf", "nan", "1e400", "infinity"])
def test_a_filter_looks_for_words_that_python_takes_for_numbers(home: Home, mmtui_: Invoke, pattern: str) -> None:
    mmtui_("run", "shapes_smoke", "--name", f"all {pattern} here", "--hold", "-q")
    mmtui_("run", "shapes_smoke", "--name", "other", "--hold", "-q")
    assert ids(mmtui_, "--filter", f"name ~ {pattern}") == ["1"]
    assert ids(mmtui_, "--filter", f"name !~ {pattern}") == ["2"]


def test_no_limit_is_set_when_another_is_refused(home: Home, mmtui_: Invoke) -> None:
    mmtui_("run", "shapes_smoke", "--hold", "-q")
    check(mmtui_("queue", "--limit", "a=2", "--limit", "b=x"), USAGE, "--limit b=x")
    check(mmtui_("queue", "--limit", "a=2", "--budget", f"b={LONG}"), USAGE, "--budget b=9")
    assert mmtui_("queue", "--json").json()["limits"] == {}


def test_typer_repeats_no_long_word(home: Home, typer_: Invoke) -> None:
    check(typer_("run", "shapes_smoke", "--gpus", f"{LONG}x"), USAGE, "--gpus")
    check(typer_("priority", LARGE, "1"), USAGE, "value")
    check(typer_(LONG), USAGE, "No such command")


def test_lengths_of_time_end_at_ten_years() -> None:
    assert seconds_of("3650d", "--delay") == 3650 * 86_400
    with pytest.raises(UsageError, match="--delay 3651d"):
        seconds_of("3651d", "--delay")
    with pytest.raises(UsageError, match="--delay 'soon' is no length"):
        seconds_of("soon", "--delay")


def test_a_cluster_is_asked_for_what_a_run_can_keep() -> None:
    assert launcher([f"nodes={10**6 - 1}"], 1, True)["nodes"] == 10**6 - 1
    with pytest.raises(UsageError, match="below 1,000,000"):
        launcher([f"nodes={10**6}"], 1, True)


def test_messages_keep_what_people_type_and_cut_what_they_do_not() -> None:
    path = "/" + "/".join(["folder"] * 100)
    assert MmtuiError(f"no file {path}").message == f"no file {path}"
    assert MmtuiError(f"run {LONG} is none", LONG).message == f"run {'9' * 40}... is none"
    assert MmtuiError(f"seed=0..{LONG}: write less").message == f"seed=0..{'9' * 40}...: write less"
    assert MmtuiError(f"no run '{'x' * 5000}'; see").message == f"no run '{'x' * 39}...'; see"
    assert MmtuiError("", LONG).hint == f"{'9' * 40}..."
    assert len(MmtuiError("ab" * 5000).message) == 43


@pytest.mark.parametrize("text", [f"rows = {LONG}", f"rows = {LARGE}", f"x = {'[' * 5000}", HEX, f"keys = [{HEX[7:]}]"])
def test_settings_that_no_number_holds_are_told(home: Home, mmtui_: Invoke, text: str) -> None:
    home.create()
    home.config.write_text(text)
    with pytest.raises(SettingsError, match=r"config\.toml"):
        load(home.config)
    check(mmtui_("ls"), USAGE, "config.toml")
    check(mmtui_("config"), USAGE, "config.toml")


@pytest.mark.parametrize(("slots", "expected"), [(LONG, 1), ("²", 1), ("0", 1), ("3", 3), ("-2", 1)])
def test_slots_that_are_no_number_are_one(monkeypatch: pytest.MonkeyPatch, slots: str, expected: int) -> None:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", slots)
    assert policy().cpu_slots == expected
