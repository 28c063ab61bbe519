"""Words that nobody means: every verb answers with a documented code and one sentence; shells are told no commands."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from mmtui.cli.app import app
from mmtui.paths import Home
from mmtui.services import queue
from mmtui.store.quick import put_setting
from tests.fuzz.mutations import argument, each, seeds
from tests.fuzz.watch import Watch

Invoke = Callable[..., Any]
CODES = frozenset(range(7))
LEFT_OUT = frozenset({"demo", "wait", "watch", "daemon", "completion", "config"})
"""They wait, or change what does not lie in the data directory."""
SHELLS = ("bash", "zsh", "fish")


def options() -> dict[str, list[str]]:
    """{verb: its options}."""
    group: Any = typer.main.get_command(app)
    found: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        below = getattr(command, "commands", {"": command})
        for second, verb in below.items():
            if name not in LEFT_OUT:
                words = [opt for param in verb.params for opt in getattr(param, "opts", []) if opt.startswith("-")]
                found[f"{name} {second}".strip()] = [word for word in words if word not in ("--follow", "-f")]
    return found


def line(chosen: random.Random, known: dict[str, list[str]]) -> list[str]:
    verb = chosen.choice(sorted(known))
    words = [*verb.split(), *(["--hold"] if verb == "run" else [])]
    for _ in range(chosen.randint(0, 4)):
        kind = chosen.random()
        if kind < 0.3 and known[verb]:
            words.append(chosen.choice(known[verb]))
        elif kind < 0.6:
            words.append(chosen.choice(("1", "2", "3", "shapes_smoke", "loss", "out")))
        else:
            words.append(argument(chosen))
    return words


@pytest.fixture
def home(seeded_copy: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    put_setting(seeded_copy, "closed", "no run is to start in this test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv("VISUAL", "false")
    return seeded_copy


def clean(told: str) -> bool:
    """Whether a terminal could not be made to do anything by it."""
    return not [c for c in told if (ord(c) < 32 and c not in "\n\r\t") or c in "\x7f\u202e\u2066"]


@pytest.mark.parametrize("part", range(2))
def test_any_words_get_a_sentence(home: Home, mmtui_: Invoke, tmp_path: Path, watch: Watch, part: int) -> None:
    known = options()
    for seed, chosen in each(seeds(60, part)):
        words = line(chosen, known)
        with watch.input(home.root, tmp_path, Path("/tmp"), starts=["git", "false", "python", "python3", "mmtui"]):
            found = mmtui_(*words)
        assert found.code in CODES, (seed, words, found)
        assert clean(found.out) and clean(found.err), (seed, words, found)
        assert "Traceback" not in found.err, (seed, words)
    assert mmtui_("ls", "-a").code == 0


def test_any_name_is_shown_and_found(home: Home, mmtui_: Invoke, watch: Watch) -> None:
    for seed, chosen in each(seeds(12)):
        name, tag, note = argument(chosen), argument(chosen), argument(chosen)
        made = mmtui_("run", "shapes_smoke", "--hold", f"--name={name}", f"--tag={tag}")
        if made.code:
            assert made.code == 2 and made.err.startswith("error: "), (seed, made)
            made = mmtui_("run", "shapes_smoke", "--hold")
        run_id = made.out.split()[0]
        assert mmtui_("note", run_id, f"--{note}" if not note.startswith("-") else note).code in (0, 2)
        for words in (["show", run_id], ["ls", "-a"], ["ls", "-a", "--csv"], ["queue"], ["ls", "-c", "name,tags"]):
            found = mmtui_(*words)
            assert found.code == 0 and clean(found.out), (seed, words, found)
        assert mmtui_("ls", "-a", "--json").json()["runs"], seed
        assert mmtui_("cancel", run_id).code == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_are_told_no_commands(
    home: Home, mmtui_: Invoke, monkeypatch: pytest.MonkeyPatch, watch: Watch, shell: str
) -> None:
    known = sorted(options())
    for number in range(6):
        queue.enqueue(home, "shapes_smoke", name=argument(random.Random(number))[:100] or "x", hold=True)
    monkeypatch.setenv("_MMTUI_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    for seed, chosen in each(seeds(40)):
        words = [*chosen.choice(known).split(), *(argument(chosen)[:500] for _ in range(chosen.randint(0, 2)))]
        asked = " ".join(["mmtui", *words])
        monkeypatch.setenv("COMP_WORDS", "\n".join(["mmtui", *words]))
        monkeypatch.setenv("COMP_CWORD", chosen.choice([str(len(words)), "0", "1", "x", "-1", "99"]))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", asked)
        with watch.input(home.root):
            found = mmtui_()
        assert found.code in (0, 1), (seed, words, found)
        assert "Traceback" not in found.err and clean(found.out), (seed, words, found)
