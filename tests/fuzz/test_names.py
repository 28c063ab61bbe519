"""Texts that nobody means as a name, as names of runs, tags, notes, groups and as any argument of any verb.

A terminal is told none of what it would act on, nothing is started or written elsewhere, and the answer is what was
asked for or a sentence.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from mmtui.cli import verbs
from mmtui.cli.quick_completion import harmless
from mmtui.domain.options import Argument, Option
from mmtui.paths import Home
from mmtui.store.quick import put_setting
from tests.fuzz.mutations import argument, each, seeds, text
from tests.fuzz.names import named
from tests.fuzz.watch import Watch
from tests.unit.cli.test_hostile import OF_ALL, OF_ONE, OTHER, VICTIM, harms, problem

Invoke = Callable[..., Any]
OWN_PROCESSES = {"watch", "wait", "demo", "daemon start", "daemon stop", "figures"} | {
    *("cancel", "pause", "hold", "resume", "retry", "release"),
}
"""Verbs that wait for a run, or start the supervisor or the engine as they should."""
TARGETS = {"force", "output", "html", "file", "follow", "fix"}
"""Parameters that name what is written, wherever that is, make a verb wait, or mend and start the supervisor."""
SHOWING = [argv for argv in (*OF_ALL, *OF_ONE) if argv[0] != "figures" and "--html" not in argv]
VERBS = [name for name in verbs.VERBS if name not in OWN_PROCESSES]


@pytest.fixture
def home(seeded_copy: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    put_setting(seeded_copy, "closed", "no run is to start in this test")
    folder = tmp_path / "where one is"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return seeded_copy


def words(name: str, chosen: random.Random) -> Iterator[str]:
    """A command line of a verb: some of what it takes, most of it odd."""
    yield from name.split()
    for key, parameter in inspect.signature(verbs.load(name), eval_str=True).parameters.items():
        kind, about = get_args(parameter.annotation)[:2]
        if key in TARGETS or (key == "yes" and name != "purge"):
            continue
        if isinstance(about, Argument) and chosen.random() < 0.9:
            for _ in range(chosen.choice((1, 1, 2)) if get_origin(kind) is list else 1):
                yield chosen.choice((OTHER, VICTIM, "@")) if chosen.random() < 0.4 else argument(chosen)
        if isinstance(about, Option) and chosen.random() < 0.15:
            flag = chosen.choice(about.flags).partition("/")[0]
            yield from (flag,) if kind is bool else (flag, argument(chosen))


def test_any_argument_of_any_verb_is_answered(home: Home, mmtui_: Invoke, watch: Watch, tmp_path: Path) -> None:
    faults = {}
    for seed, chosen in each(seeds(120), "command lines"):
        argv = tuple(words(chosen.choice(VERBS), chosen))
        argv += ("--dry-run",) if argv[0] == "run" else ()
        told = ""
        try:
            with watch.input(home.root, tmp_path, starts=["git", "true", "nvidia-smi"]):
                told = problem(mmtui_, argv, listed=False)
        except AssertionError as deed:
            told = str(deed)
        if told:
            faults[seed] = f"{argv!r:.500}: {told:.500}"
    if faults:
        pytest.fail("\n".join(f"seed {seed}: {fault}" for seed, fault in faults.items()))


def test_verbs_show_any_name(home: Home, mmtui_: Invoke, watch: Watch, tmp_path: Path) -> None:
    for seed, chosen in each(seeds(20), "runs with odd names"):
        named(home, chosen)
        for argv in chosen.sample(SHOWING, 4):
            with watch.input(home.root, tmp_path, starts=["git", "nvidia-smi"]):
                told = problem(mmtui_, argv)
            assert not told, (seed, argv, told)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_no_name_that_a_shell_acts_on(
    home: Home, mmtui_: Invoke, watch: Watch, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("_MMTUI_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    for seed, chosen in each(seeds(40), f"completions, {shell}"):
        named(home, chosen)
        begun = argument(chosen)[:100] if chosen.random() < 0.5 else ""
        for line in (f"mmtui show {begun}", f"mmtui {begun}"):
            monkeypatch.setenv("COMP_WORDS", line)
            monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
            with watch.input(home.root):
                found = mmtui_()
            assert not harms(found.out) and not harms(found.err), (seed, line)


def test_descriptions_are_harmless() -> None:
    for seed, chosen in each(seeds(200, 1), "descriptions in completions"):
        assert not set(harmless(text(chosen))) & set("\\$`\"'!*<>|&[]{}\n\x1b\u202e"), seed
